"""Checks what surrounds the ext_proc filter: the order of filters, paths, time limits, upgrades, routes."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.check.dump import Filter, Manager, Node, Route, mentions, path, seconds
from extproc.check.finding import Finding, error, warning
from extproc.check.processor import check_modes, check_profile
from extproc.config.settings import Settings
from extproc.render.ext_proc import JWT_NAMESPACE
from extproc.render.route import body_limit

_IDLE_SECONDS = 900
_DEFAULT_IDLE_SECONDS = 300
_DEFAULT_ROUTE_SECONDS = 15
_SHORT_SECONDS = 300
"""Answers may last this long: a lower time limit cuts off some."""

_DEFAULT_BUFFER_BYTES = 1_048_576

# The keys are the last part of the configuration's type.
_AUTHENTICATION = {
    "JwtAuthentication": "authentication (jwt_authn)",
    "ExtAuthz": "authorization (ext_authz)",
    "RBAC": "authorization (rbac)",
    "BasicAuth": "authentication (basic_auth)",
    "ApiKeyAuth": "authentication (api_key_auth)",
    "OAuth2": "authentication (oauth2)",
    "RateLimit": "rate limiting (ratelimit)",
    "LocalRateLimit": "rate limiting (local_ratelimit)",
}
_CHANGING = {"Lua": "lua", "Wasm": "wasm", "GrpcJsonTranscoder": "grpc_json_transcoder"}
_ONCE = "put it before the ext_proc filter, which has to be the last before the router"


def check_manager(settings: Settings, manager: Manager, processor: Filter) -> Iterator[Finding]:
    """Yield findings about the surroundings of `processor`, a filter of `manager`."""
    if processor.is_disabled and not all(_override(route, processor) for route in manager.routes):
        where = f"{manager.where}, filter {processor.name}"
        yield error(where, "it is disabled, except on routes that enable it", "remove disabled: true")
    yield from _order(settings, manager, processor)
    yield from _paths(manager)
    yield from _times(manager)
    yield from _upgrades(manager)
    is_buffered = path(processor.config, "processing_mode", "request_body_mode") == "BUFFERED"
    for route in manager.routes:
        yield from _route(settings, manager, processor, route, is_buffered=is_buffered)


def _order(settings: Settings, manager: Manager, processor: Filter) -> Iterator[Finding]:
    position = manager.filters.index(processor)
    before, after = manager.filters[:position], manager.filters[position + 1 :]
    for each in after:
        where = f"{manager.where}, filter {each.name}"
        if each.type in _AUTHENTICATION:
            yield warning(
                where,
                f"{_AUTHENTICATION[each.type]} comes after the ext_proc filter: Aim also sees what it refuses",
                _ONCE,
            )
        elif each.type == "Decompressor":
            if not _is_switched_off(path(each.config, "response_direction_config")):
                yield error(
                    where,
                    "a decompressor of responses hangs together with full-duplex ext_proc",
                    "remove it: the sidecar reads gzip, deflate, br and zstd",
                )
        elif each.type == "Compressor":
            yield warning(
                where, "it compresses the answer before the sidecar reads it", "put it before the ext_proc filter"
            )
        elif each.type in _CHANGING:
            yield warning(
                where,
                f"{_CHANGING[each.type]} may change the request after Aim judged it, and the answer before",
                _ONCE,
            )
        elif each.type == "HeaderMutation":
            for name in _headers_read(settings):
                if mentions(each.config, name):
                    yield error(where, f"it changes {name} after the sidecar has read it", _ONCE)
    for each in before:
        if each.type == "Decompressor" and not _is_switched_off(path(each.config, "response_direction_config")):
            yield error(
                f"{manager.where}, filter {each.name}",
                "a decompressor of responses hangs together with full-duplex ext_proc",
                "set its response_direction_config.common_config.enabled.default_value: false, or remove it",
            )
    trusted = (manager.config.get("early_header_mutation_extensions", ()), [each.config for each in before])
    for name, profile in settings.profiles.items():
        for source in profile.key_alias:
            if source.kind == "header" and not mentions(trusted, source.name):
                yield warning(
                    manager.where,
                    f"a client can choose its guard: profile {name} reads key_alias from {source.name}, which "
                    "no filter removes or sets first",
                    "remove it in early_header_mutation_extensions, or read metadata:",
                )
        if any(
            source.kind == "metadata" and source.name.startswith(JWT_NAMESPACE)
            for source in (*profile.user_email, *profile.session_id, *profile.key_alias)
        ) and not any(each.type == "JwtAuthentication" for each in before):
            yield error(
                manager.where, f"profile {name} reads a JWT's claims, which no earlier filter verifies", "add jwt_authn"
            )


def _is_switched_off(direction: Node | None) -> bool:
    return path(direction, "common_config", "enabled", "default_value") is False


def _headers_read(settings: Settings) -> list[str]:
    sources = (
        source
        for profile in settings.profiles.values()
        for source in (*profile.user_email, *profile.session_id, *profile.key_alias)
    )
    return list(dict.fromkeys(source.name for source in sources if source.kind == "header"))


def _paths(manager: Manager) -> Iterator[Finding]:
    wanted = {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
    }
    for name, value in wanted.items():
        if manager.config.get(name) != value and not (name.startswith("path_with") and _rejects(manager)):
            yield warning(
                manager.where,
                f"the sidecar, the routes and the model may see different paths ({name})",
                f"set {name}: {str(value).lower() if isinstance(value, bool) else value}",
            )


def _rejects(manager: Manager) -> bool:
    return manager.config.get("path_with_escaped_slashes_action") in ("REJECT_REQUEST", "UNESCAPE_AND_FORWARD")


def _times(manager: Manager) -> Iterator[Finding]:
    idle = seconds(manager.config.get("stream_idle_timeout"), _DEFAULT_IDLE_SECONDS)
    if 0 < idle < _IDLE_SECONDS:
        yield warning(
            manager.where,
            f"an answer is cut off when the model is silent for {idle:g} s",
            f"set stream_idle_timeout: {_IDLE_SECONDS}s",
        )
    longest = seconds(path(manager.config, "common_http_protocol_options", "max_stream_duration"), 0)
    if longest > 0:
        yield warning(
            manager.where, f"answers that take longer than {longest:g} s are cut off", "remove max_stream_duration"
        )


def _upgrades(manager: Manager) -> Iterator[Finding]:
    routes = [route for route in manager.routes if path(route.node, "route", "upgrade_configs")]
    for upgrade in manager.config.get("upgrade_configs", ()):
        guarded = any("ext_proc" in str(each) for each in upgrade.get("filters", ())) or not upgrade.get("filters")
        if upgrade.get("enabled", True) and not guarded:
            yield error(
                manager.where,
                f"upgrades to {upgrade.get('upgrade_type')} pass without the sidecar seeing them",
                "remove upgrade_configs, or set enabled: false there and name the routes that need it",
            )
        elif not upgrade.get("enabled", True):
            for route in routes:
                yield warning(route.where, "websockets pass here unguarded", "remove upgrade_configs of the route")


def _route(
    settings: Settings, manager: Manager, processor: Filter, route: Route, *, is_buffered: bool
) -> Iterator[Finding]:
    override = _override(route, processor)
    if override.get("disabled"):
        guarded = {
            cluster
            for other in manager.routes
            if not _override(other, processor).get("disabled")
            for cluster in other.clusters
        }
        say = error if route.clusters & guarded else warning
        yield say(route.where, "the ext_proc filter is turned off here", f"remove disabled: true for {processor.name}")
        return
    overrides = override.get("overrides", {})
    if overrides.get("failure_mode_allow"):
        yield error(route.where, "without a sidecar everything passes unguarded", "set failure_mode_allow: false")
    if "processing_mode" in overrides:
        yield from check_modes(overrides["processing_mode"], route.where)
    yield from check_profile(settings, overrides.get("grpc_initial_metadata", ()), route.where)
    yield from check_profile(settings, path(overrides, "grpc_service", "initial_metadata") or (), route.where)
    action = route.node["route"]
    timeout = seconds(action.get("timeout"), _DEFAULT_ROUTE_SECONDS)
    if timeout:
        say = error if timeout < _SHORT_SECONDS else warning
        default = "" if "timeout" in action else ", by default"
        yield say(route.where, f"answers that take longer than {timeout:g} s are cut off{default}", "set timeout: 0s")
    longest = seconds(path(action, "max_stream_duration", "max_stream_duration"), 0)
    if longest:
        yield warning(
            route.where, f"answers that take longer than {longest:g} s are cut off", "remove max_stream_duration"
        )
    idle = seconds(action.get("idle_timeout"), 0)
    if 0 < idle < _IDLE_SECONDS:
        yield warning(
            route.where,
            f"an answer is cut off when the model is silent for {idle:g} s",
            f"set idle_timeout: {_IDLE_SECONDS}s",
        )
    if is_buffered:
        yield from _buffer(settings, manager, route)


def _override(route: Route, processor: Filter) -> Node:
    """Return the ExtProcPerRoute that applies to a route: the innermost one."""
    for scope in reversed(route.scopes):
        found = path(scope, "typed_per_filter_config", processor.name)
        if isinstance(found, dict):
            inner = found.get("config")
            return {**(inner if isinstance(inner, dict) else {}), **found}
    return {}


def _buffer(settings: Settings, manager: Manager, route: Route) -> Iterator[Finding]:
    limit = int(manager.listener.get("per_connection_buffer_limit_bytes", _DEFAULT_BUFFER_BYTES))
    for scope in route.scopes:
        for name in ("per_request_buffer_limit_bytes", "request_body_buffer_limit"):
            if name in scope:
                limit = int(scope[name])
    if limit < settings.limits.request_bytes:
        yield error(
            route.where,
            f"Envoy refuses requests beyond {limit:,} bytes with 413, but limits.request_bytes is "
            f"{settings.limits.request_bytes:,}",
            f"set request_body_buffer_limit: {body_limit(settings)}",
        )
