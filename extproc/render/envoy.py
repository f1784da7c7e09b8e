"""`extproc render envoy`: the bootstrap of an Envoy in front of models, with the sidecar as its guard."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.cluster import sidecar_cluster, socket_address, upstream_cluster
from extproc.render.commented import Tree, because, dump
from extproc.render.listener import listener
from extproc.render.schema import check
from extproc.render.upstream import Upstream

__all__ = ["Upstream", "render_envoy"]

SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"

_MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors"
_HEAP = "envoy.resource_monitors.fixed_heap"

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_HEADER = """\
Envoy with the Aim sidecar in front of {upstreams}.
Printed by `extproc render envoy`; print it again when the sidecar's settings change.
"""


def render_envoy(
    settings: Settings,
    *,
    listen: Address,
    upstreams: Sequence[Upstream],
    admin: Address | None,
    allow_upgrades: Sequence[str] = (),
    ca_file: str = SYSTEM_CA_FILE,
) -> str:
    """Return the bootstrap, as commented YAML, of an Envoy that guards `upstreams` with the sidecar of `settings`.

    `ca_file` is the path, for that Envoy, of the CA certificates for https upstreams. Raises ValueError, with a
    sentence for the operator, if upstreams and upgrades, or addresses, do not fit together.
    """
    if not upstreams:
        raise ValueError("at least one upstream is needed")
    if admin is not None and (_is_own(listen, admin.host, admin.port) or (admin.path and admin == listen)):
        raise ValueError(f"admin: {admin} is the address on which Envoy listens for clients")
    for upstream in upstreams:
        if _is_own(listen, upstream.host, upstream.port):
            raise ValueError(f"upstream: {upstream.authority} is this Envoy's own listener, {listen}")
    servers = {upstream.cluster: upstream for upstream in upstreams}
    access = (
        because("The admin port has no authentication: use an address that others cannot reach.", admin=_admin(admin))
        if admin
        else {}
    )
    tree: Tree = {
        **access,
        "static_resources": {
            "listeners": [listener(settings, listen=listen, upstreams=upstreams, allow_upgrades=allow_upgrades)],
            "clusters": [
                sidecar_cluster(settings),
                *(upstream_cluster(settings, upstream, ca_file) for upstream in servers.values()),
            ],
        },
        **because("Bounds Envoy's memory when many clients are slow.", overload_manager=_overload_manager()),
    }
    check(tree, "envoy.config.bootstrap.v3.Bootstrap")
    return dump(tree, header=_HEADER.format(upstreams=", ".join(server.authority for server in servers.values())))


def _is_own(listen: Address, host: str, port: int) -> bool:
    """Return whether `host` and `port` are the listener's own address."""
    if port != listen.port or not port:  # port 0 is a different port each time
        return False
    hosts = {host, listen.host}
    return len(hosts) == 1 or (hosts <= _EVERYWHERE | _LOOPBACK and not hosts <= {"127.0.0.1", "::1"})


def _admin(admin: Address) -> Tree:
    return {"address": socket_address(admin)}


def _overload_manager() -> Tree:
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": _HEAP,
                "typed_config": {
                    "@type": f"{_MONITORS}.fixed_heap.v3.FixedHeapConfig",
                    **because(
                        "2 GiB: the memory that this Envoy may use; keep it below the container's limit.",
                        max_heap_size_bytes=2_147_483_648,
                    ),
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 50_000,
                },
            },
        ],
        "actions": [
            _action("envoy.overload_actions.shrink_heap", 0.90),
            _action("envoy.overload_actions.stop_accepting_requests", 0.95),
        ],
    }


def _action(name: str, threshold: float) -> Tree:
    return {"name": name, "triggers": [{"name": _HEAP, "threshold": {"value": threshold}}]}
