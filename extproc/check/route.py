"""Checks routes: whether the filter runs there, how long answers may last, and how large requests may be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from extproc.check.dump import Manager, Route
from extproc.check.filters import Filter, off_because, override
from extproc.check.finding import Finding, actionable, error, warning
from extproc.check.mesh import Mesh, Setting
from extproc.check.node import Node, path, seconds
from extproc.check.processor import check_modes, check_profile
from extproc.config.settings import Settings
from extproc.render.route import body_limit

IDLE_SECONDS = 900
_DEFAULT_ROUTE_SECONDS = 15
SHORT_SECONDS = 300
"""Answers may last this long: a lower time limit cuts off some."""

_DEFAULT_BUFFER_BYTES = 1_048_576


def check_routes(
    settings: Settings, mesh: Mesh, manager: Manager, ours: Sequence[Filter], upstream: Collection[str]
) -> Iterator[Finding]:
    """Yield findings about the routes of `manager`, whose filters for the sidecar are `ours`.

    `upstream` are the clusters whose own chain has such a filter.
    """
    for route in manager.routes:
        reasons = {each.name: off_because(route.scopes, manager.filters, each) for each in ours}
        running = [each for each in ours if not reasons[each.name]]
        if running:
            yield from _route(settings, mesh, manager, running[-1], route)
        elif not route.clusters or not route.clusters <= set(upstream):
            yield error(
                route.where,
                "the ext_proc filter is turned off here: what passes is unguarded",
                _switch_on(mesh, manager, reasons),
            )


def counted(manager: Manager, ours: Sequence[Filter]) -> list[Filter]:
    """Return the filters for the sidecar that run together on some route: the most of any route.

    Without known routes these are all that are not disabled.
    """
    together = [
        [each for each in ours if not off_because(route.scopes, manager.filters, each)] for route in manager.routes
    ]
    return max(together, key=len, default=[each for each in ours if not each.is_disabled])


def _switch_on(mesh: Mesh, manager: Manager, reasons: dict[str, str]) -> str:
    usual = "; ".join(dict.fromkeys(reasons.values()))
    explicit = usual.startswith("remove")
    return usual if explicit else mesh.advice(Setting.SWITCH, usual) or usual


def _route(settings: Settings, mesh: Mesh, manager: Manager, processor: Filter, route: Route) -> Iterator[Finding]:
    overrides = override(route.scopes, processor.name).get("overrides", {})
    if overrides.get("failure_mode_allow"):
        yield error(route.where, "without a sidecar everything passes unguarded", "set failure_mode_allow: false")
    modes = overrides.get("processing_mode") or path(processor.config, "processing_mode") or {}
    if "processing_mode" in overrides:
        yield from check_modes(modes, route.where)
    yield from check_profile(settings, overrides.get("grpc_initial_metadata", ()), route.where)
    yield from check_profile(settings, path(overrides, "grpc_service", "initial_metadata") or (), route.where)
    yield from _times(mesh, route)
    yield from _retries(route, str(modes.get("request_body_mode", "NONE")))
    if modes.get("request_body_mode") == "BUFFERED":
        yield from _buffer(settings, mesh, manager, processor, route)


def _times(mesh: Mesh, route: Route) -> Iterator[Finding]:
    action = route.node["route"]
    timeout = seconds(action.get("timeout"), _DEFAULT_ROUTE_SECONDS)
    if timeout:
        default = "" if "timeout" in action else ", by default"
        advice = mesh.advice(Setting.TIMEOUT, "set timeout: 0s")
        what = f"answers that take longer than {timeout:g} s are cut off{default}"
        yield from actionable(_by(timeout), route.where, what, advice)
    longest = seconds(path(action, "max_stream_duration", "max_stream_duration"), 0)
    if longest:
        advice = mesh.advice(Setting.STREAM_DURATION, "remove max_stream_duration")
        what = f"answers that take longer than {longest:g} s are cut off"
        yield from actionable(_by(longest), route.where, what, advice)
    idle = seconds(action.get("idle_timeout"), 0)
    if 0 < idle < IDLE_SECONDS:
        yield from actionable(
            warning,
            route.where,
            f"an answer is cut off when the model is silent for {idle:g} s",
            mesh.advice(Setting.IDLE, f"set idle_timeout: {IDLE_SECONDS}s", IDLE_SECONDS),
        )


def _by(limit: float) -> Callable[[str, str, str], Finding]:
    """Return the severity of a time limit of `limit` seconds."""
    return error if limit < SHORT_SECONDS else warning


def _retries(route: Route, request_mode: str) -> Iterator[Finding]:
    policy = _retry_policy(route)
    for name in ("per_try_timeout", "per_try_idle_timeout"):
        limit = seconds(policy.get(name), 0)
        if limit:
            what = f"an answer that takes longer than {limit:g} s is given up ({name})"
            yield _by(limit)(route.where, what, f"remove {name}")
    if policy.get("retry_on") and request_mode == "FULL_DUPLEX_STREAMED":
        yield warning(
            route.where,
            "a retry of a request that was streamed to the sidecar (full duplex) may send its body twice",
            "set processing_mode.request_body_mode: BUFFERED, or remove the retries",
        )


def _retry_policy(route: Route) -> Node:
    """Return the retry policy of a route: its own, else that of the virtual host."""
    found = path(route.node, "route", "retry_policy")
    for scope in reversed(route.scopes[:-1]):
        found = found or scope.get("retry_policy")
    return found or {}


def _buffer(settings: Settings, mesh: Mesh, manager: Manager, processor: Filter, route: Route) -> Iterator[Finding]:
    limit = int(manager.listener.get("per_connection_buffer_limit_bytes", _DEFAULT_BUFFER_BYTES))
    for scope in route.scopes:
        for name in ("per_request_buffer_limit_bytes", "request_body_buffer_limit"):
            if name in scope:
                limit = int(scope[name])
    most = settings.limits.request_bytes
    if limit < most:
        value = body_limit(settings)
        yield from actionable(
            error,
            route.where,
            f"Envoy refuses requests beyond {limit:,} bytes with 413, but limits.request_bytes is {most:,}",
            mesh.advice(Setting.BUFFER, f"set request_body_buffer_limit: {value}", value),
        )
    for each in manager.filters[: manager.filters.index(processor)]:
        if each.type != "Buffer" or off_because(route.scopes, manager.filters, each):
            continue
        said = override(route.scopes, each.name)
        own = int(path(said, "buffer", "max_request_bytes") or each.config.get("max_request_bytes", most))
        if own < most:
            yield error(
                route.where,
                f"the filter {each.name} refuses requests beyond {own:,} bytes with 413, but limits.request_bytes is "
                f"{most:,}",
                f"set its max_request_bytes: {body_limit(settings)}, or remove it",
            )
