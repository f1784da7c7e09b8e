"""Checks what surrounds the ext_proc filter: the order of filters, paths, time limits, upgrades, routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extproc.check.dump import Manager
from extproc.check.filters import Filter
from extproc.check.finding import Finding, actionable, error, warning
from extproc.check.mesh import Mesh, Setting
from extproc.check.node import Node, mentions, path, seconds
from extproc.check.route import IDLE_SECONDS, SHORT_SECONDS
from extproc.config.settings import Settings
from extproc.render.ext_proc import JWT_NAMESPACE

_DEFAULT_IDLE_SECONDS = 300

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


def check_manager(settings: Settings, mesh: Mesh, manager: Manager, processor: Filter) -> Iterator[Finding]:
    """Yield findings about the surroundings of `processor`, a filter of `manager`."""
    yield from _order(settings, manager, processor)
    yield from _paths(mesh, manager)
    yield from _times(mesh, manager)
    yield from _upgrades(manager)
    if manager.config.get("proxy_100_continue"):
        yield warning(manager.where, "a client that waits for 100 Continue waits for ever", "remove proxy_100_continue")


def check_ai_gateway(where: str, filters: Sequence[Filter]) -> Iterator[Finding]:
    """Yield a finding for each of `filters` that is of Envoy AI Gateway.

    In a listener's chain `filters` are those before the sidecar's, in a cluster's upstream chain those after it.
    """
    for each in filters:
        if each.is_ai_gateway:
            yield error(
                f"{where}, filter {each.name}",
                "Envoy AI Gateway keeps the prompt before the sidecar reads it, and sends the model what it kept: "
                "redactions are lost",
                "put the sidecar's filter in front of it, in the listener, as `extproc render envoy-gateway "
                "--ai-gateway LISTENER` does",
            )


def _order(settings: Settings, manager: Manager, processor: Filter) -> Iterator[Finding]:
    position = manager.filters.index(processor)
    before, after = manager.filters[:position], manager.filters[position + 1 :]
    yield from check_ai_gateway(manager.where, before)
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
        if each.type == "AwsRequestSigning":
            yield error(
                f"{manager.where}, filter {each.name}",
                "it signs requests before the sidecar reads them, so no prompt can be redacted",
                "put it between the ext_proc filter and the router",
            )
        if each.type == "Decompressor" and not _is_switched_off(path(each.config, "response_direction_config")):
            yield error(
                f"{manager.where}, filter {each.name}",
                "a decompressor of responses hangs together with full-duplex ext_proc",
                "set its response_direction_config.common_config.enabled.default_value: false, or remove it",
            )
    trusted = (manager.config.get("early_header_mutation_extensions", ()), [each.config for each in before])
    yield from _callers(settings, manager, trusted)
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


def _callers(settings: Settings, manager: Manager, trusted: object) -> Iterator[Finding]:
    """Yield a finding for each header from which a client can name another person as the caller.

    `trusted` is the configuration that may remove or set headers first. An app that sends requests knows its users.
    """
    if manager.is_outbound:
        return
    readers: dict[str, list[str]] = {}
    for name, profile in settings.profiles.items():
        for source in profile.user_email:
            if source.kind == "header" and not mentions(trusted, source.name):
                readers.setdefault(source.name, []).append(name)
    for header, names in readers.items():
        what = f"profile{'' if len(names) == 1 else 's'} {', '.join(names)} read{'s' if len(names) == 1 else ''}"
        yield warning(
            manager.where,
            f"a client can name another person as the caller: {what} user_email from {header}, which no filter removes "
            "or sets first",
            "read the metadata of a verified JWT, remove the header in early_header_mutation_extensions, or set "
            "user_email: []",
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


def _paths(mesh: Mesh, manager: Manager) -> Iterator[Finding]:
    if manager.config.get("path_with_escaped_slashes_action") == "UNESCAPE_AND_REDIRECT":
        usual = "set path_with_escaped_slashes_action: KEEP_UNCHANGED"
        yield from actionable(
            warning,
            manager.where,
            "a request whose path has %2F is answered with a redirect: Bedrock's ARNs, names of projects and files",
            mesh.advice(Setting.ESCAPED_SLASHES, usual),
        )
    if manager.is_app:
        return  # what an app sends elsewhere has to arrive as it was sent
    for name in ("normalize_path", "merge_slashes"):
        if not manager.config.get(name):
            yield warning(
                manager.where,
                f"the sidecar, the routes and the model may see different paths ({name})",
                f"set {name}: true",
            )


def _times(mesh: Mesh, manager: Manager) -> Iterator[Finding]:
    idle = seconds(manager.config.get("stream_idle_timeout"), _DEFAULT_IDLE_SECONDS)
    own = [path(route.node, "route", "idle_timeout") for route in manager.routes]
    if 0 < idle < IDLE_SECONDS and (None in own or not own):  # a route's own replaces it
        yield from actionable(
            warning,
            manager.where,
            f"an answer is cut off when the model is silent for {idle:g} s",
            mesh.advice(Setting.IDLE, f"set stream_idle_timeout: {IDLE_SECONDS}s", IDLE_SECONDS),
        )
    longest = seconds(path(manager.config, "common_http_protocol_options", "max_stream_duration"), 0)
    if longest > 0:
        make = error if longest < SHORT_SECONDS else warning
        advice = mesh.advice(Setting.STREAM_DURATION, "remove max_stream_duration")
        what = f"answers that take longer than {longest:g} s are cut off"
        yield from actionable(make, manager.where, what, advice)


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
