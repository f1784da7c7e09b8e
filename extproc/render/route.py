"""Envoy's routes: which path goes to which upstream, and where upgrades are allowed."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.config.settings import Settings
from extproc.render.commented import Tree, because
from extproc.render.upstream import Upstream

_MARGIN_BYTES = 1_048_576


def body_limit(settings: Settings) -> int:
    """Return how many bytes of a request Envoy may hold: more than the sidecar, so that the sidecar refuses first."""
    return settings.limits.request_bytes + _MARGIN_BYTES


def routes(settings: Settings, upstreams: Sequence[Upstream], allow_upgrades: Sequence[str]) -> list[Tree]:
    """Return the routes, longest prefix first; websockets are allowed on the prefixes of `allow_upgrades`.

    Raises ValueError, with a sentence for the operator, if a prefix is given twice or has no upstream.
    """
    targets: dict[str, Upstream] = {}
    for upstream in upstreams:
        if targets.setdefault(upstream.prefix, upstream) is not upstream:
            raise ValueError(f"the prefix {upstream.prefix} has more than one upstream")
    for prefix in allow_upgrades:
        covering = [target for target in targets if prefix.startswith(target)]
        if covering:
            targets.setdefault(prefix, targets[max(covering, key=len)])
        elif not prefix.startswith("/") or not any(target.startswith(prefix) for target in targets):
            raise ValueError(f"upgrades cannot be allowed on {prefix or 'nothing'}: no upstream serves it")
    return [
        _route(settings, prefix, targets[prefix], upgrades=prefix.startswith(tuple(allow_upgrades)))
        # Envoy uses the first route that matches.
        for prefix in sorted(targets, key=len, reverse=True)
    ]


def _route(settings: Settings, prefix: str, upstream: Upstream, *, upgrades: bool) -> Tree:
    action = {"cluster": upstream.cluster, **because("The default of 15 s cuts off longer answers.", timeout="0s")}
    if upstream.scheme == "https":
        action |= because(
            "The host name that the server's certificate is for.", host_rewrite_literal=upstream.authority
        )
    if upstream.prefix_rewrite:
        # The route of an upgrade prefix keeps the part beyond the upstream's prefix.
        rest = prefix.removeprefix(upstream.prefix)
        action |= because(
            "Envoy rewrites the path after the sidecar, which finds the dialect by the client's path: see "
            "profiles.NAME.paths.",
            prefix_rewrite=upstream.prefix_rewrite + rest,
        )
    if upgrades:
        action |= because("WARNING: websockets are not guarded here.", upgrade_configs=[{"upgrade_type": "websocket"}])
    return {
        **because("The sidecar compares profiles.NAME.routes with this name (attribute xds.route_name).", name=prefix),
        "match": {"prefix": prefix},
        "route": action,
        **because(
            "limits.request_bytes + 1 MiB, so that the sidecar's 413 comes before Envoy's.",
            request_body_buffer_limit=body_limit(settings),
        ),
    }
