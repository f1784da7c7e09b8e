"""`extproc check --envoy` with a real Envoy: the rendered configuration passes, each misconfiguration is reported."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from extproc.check import Finding, Severity
from extproc.check.envoy import check_envoy
from extproc.config.settings import Settings
from tests.envoy.test_render import render
from tests.fakes.ai_gateway import AIGateway
from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy import run_envoy
from tests.fakes.ports import free_port
from tests.fakes.process import run
from tests.fakes.rig import manager_of, processor_of

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_PER_ROUTE = f"{_FILTERS}.ext_proc.v3.ExtProcPerRoute"
_JWT = "envoy.filters.http.jwt_authn"

Edit = Callable[[Any], Any]


@dataclass(frozen=True)
class Bent:
    """A misconfigured bootstrap and the expected finding."""

    id: str
    edit: Edit
    said: str
    severity: Severity = Severity.ERROR
    settings: dict[str, Any] = field(default_factory=dict)


def processor(**changes: Any) -> Edit:
    """Change the ext_proc filter; None removes a field."""
    return lambda tree: change(processor_of(tree), changes)


def modes(**changes: Any) -> Edit:
    return lambda tree: change(processor_of(tree)["processing_mode"], changes)


def manager(**changes: Any) -> Edit:
    return lambda tree: change(manager_of(tree), changes)


def route(**changes: Any) -> Edit:
    return lambda tree: change(route_of(tree), changes)


def action(**changes: Any) -> Edit:
    return lambda tree: change(route_of(tree)["route"], changes)


def cluster(number: int = 0, **changes: Any) -> Edit:
    """Change a cluster: the sidecar's is the first, the model's the second."""
    return lambda tree: change(tree["static_resources"]["clusters"][number], changes)


def override(**overrides: Any) -> Edit:
    """Override the filter on the only route."""
    return route(typed_per_filter_config={"envoy.filters.http.ext_proc": {"@type": _PER_ROUTE, **overrides}})


def after(name: str, type_: str, **config: Any) -> Edit:
    """Add a filter between the ext_proc filter and the router."""
    return lambda tree: manager_of(tree)["http_filters"].insert(1, http_filter(name, type_, config))


_SIGNING = {
    "service_name": "bedrock",
    "region": "us-east-1",
    "credential_provider": {"inline_credential": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "made-up"}},
}


def before(name: str, type_: str, **config: Any) -> Edit:
    return lambda tree: manager_of(tree)["http_filters"].insert(0, http_filter(name, type_, config))


def http_filter(name: str, type_: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{_FILTERS}.{type_}", **config}}


def change(node: Any, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            node.pop(name, None)
        else:
            node[name] = value


def route_of(tree: Any) -> Any:
    return manager_of(tree)["route_config"]["virtual_hosts"][0]["routes"][0]


def host(**changes: Any) -> Edit:
    """Change the only virtual host."""
    return lambda tree: change(manager_of(tree)["route_config"]["virtual_hosts"][0], changes)


def http_options(number: int, **changes: Any) -> Edit:
    """Change a cluster's HttpProtocolOptions: the sidecar's is the first cluster, the model's the second."""
    return lambda tree: change(options_of(tree, number), changes)


def options_of(tree: Any, number: int) -> Any:
    (found,) = tree["static_resources"]["clusters"][number]["typed_extension_protocol_options"].values()
    return found


def retried_full_duplex(tree: Any) -> None:
    modes(request_body_mode="FULL_DUPLEX_STREAMED", request_trailer_mode="SEND")(tree)
    action(retry_policy={"retry_on": "5xx"})(tree)


def small_on_route(tree: Any) -> None:
    before("buffer", "buffer.v3.Buffer", max_request_bytes=30_000_000)(tree)
    per_route = {"@type": f"{_FILTERS}.buffer.v3.BufferPerRoute", "buffer": {"max_request_bytes": 1000}}
    route(typed_per_filter_config={"envoy.filters.http.buffer": per_route})(tree)


def in_upstream_chain(tree: Any) -> None:
    """Move the filter from the listener's chain to that of the model's cluster."""
    ours = manager_of(tree)["http_filters"].pop(0)
    codec = http_filter("upstream_codec", "upstream_codec.v3.UpstreamCodec", {})
    options_of(tree, 1)["http_filters"] = [ours, codec]


def upstream_before_ai_gateway(tree: Any) -> None:
    in_upstream_chain(tree)
    ours, codec = options_of(tree, 1).pop("http_filters")
    AIGateway().install(tree, position=0)
    theirs, _ = options_of(tree, 1)["http_filters"]
    options_of(tree, 1)["http_filters"] = [ours, theirs, codec]


def checked_over_tls(tree: Any) -> None:
    check = {"interval": "1s", "timeout": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1}
    cluster(transport_socket=_TLS, health_checks=[{**check, "grpc_health_check": {}}])(tree)


def under_matcher(tree: Any) -> None:
    """Let the filter run only for requests with a header."""
    ours = manager_of(tree)["http_filters"][0]
    header = {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": "x-guarded",
    }
    predicate = {"input": {"name": "header", "typed_config": header}, "value_match": {"exact": "yes"}}
    ours["typed_config"] = run_when({"single_predicate": predicate}, ours["typed_config"])


def run_when(predicate: Any, config: Any) -> dict[str, Any]:
    """Wrap a filter's configuration in a matcher that runs it when `predicate` matches."""
    composite = {"@type": f"{_FILTERS}.composite.v3.Composite"}
    run = {
        "@type": f"{_FILTERS}.composite.v3.ExecuteFilterAction",
        "typed_config": {"name": "envoy.filters.http.ext_proc", "typed_config": config},
    }
    matcher = {"predicate": predicate, "on_match": {"action": {"name": "run", "typed_config": run}}}
    return {
        "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {"name": "composite", "typed_config": composite},
        "xds_matcher": {"matcher_list": {"matchers": [matcher]}},
    }


def buffer_of_an_edge(tree: Any) -> None:
    """Limit only the listener's buffer, as a proxy at the edge does."""
    route(request_body_buffer_limit=None)(tree)
    change(tree["static_resources"]["listeners"][0], {"per_connection_buffer_limit_bytes": 32768})


def without_filter(tree: Any) -> None:
    del manager_of(tree)["http_filters"][0]


def twice(tree: Any) -> None:
    filters = manager_of(tree)["http_filters"]
    filters.insert(0, {**filters[0], "name": "aim.again"})


def second_listener(tree: Any) -> None:
    """Add a listener for the same models without the filter."""
    listeners = tree["static_resources"]["listeners"]
    other = yaml.safe_load(yaml.safe_dump(listeners[0]))
    other["name"] = "back-door"
    del other["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]
    listeners.append(other)


def tcp_listener(tree: Any) -> None:
    type_ = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    proxy = {"@type": type_, "stat_prefix": "tcp", "cluster": "http-127.0.0.1-8080"}
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    tree["static_resources"]["listeners"].append({"name": "tcp", "address": address, "filter_chains": [chain]})


def disabled_for_health(tree: Any) -> None:
    """Switch the guard off for a path of another upstream."""
    clusters = tree["static_resources"]["clusters"]
    other = yaml.safe_load(yaml.safe_dump(clusters[1]))
    other["name"] = other["load_assignment"]["cluster_name"] = "health"
    clusters.append(other)
    off = {"envoy.filters.http.ext_proc": {"@type": _PER_ROUTE, "disabled": True}}
    manager_of(tree)["route_config"]["virtual_hosts"][0]["routes"].insert(
        0, {"match": {"path": "/healthz"}, "route": {"cluster": "health"}, "typed_per_filter_config": off}
    )


def other_processor(tree: Any) -> None:
    """Add another ext_proc filter, for another processor."""
    filters = manager_of(tree)["http_filters"]
    config = {**filters[0]["typed_config"], "failure_mode_allow": True}
    config["grpc_service"] = {"envoy_grpc": {"cluster_name": "endpoint-picker"}}
    clusters = tree["static_resources"]["clusters"]
    picker = yaml.safe_load(yaml.safe_dump(clusters[0]).replace("aim-extproc", "endpoint-picker"))
    picker["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"][
        "port_value"
    ] = 9
    clusters.append(picker)
    filters.insert(0, {"name": "envoy.filters.http.ext_proc.picker", "typed_config": config})


def renamed(tree: Any) -> None:
    """Use names that do not mention Aim."""
    text = yaml.safe_dump(tree).replace("aim-extproc", "guard")
    tree.clear()
    tree.update(yaml.safe_load(text))


WARNING = Severity.WARNING
_GUNZIP = {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip"}
_GZIP = {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"}
_KEYS = (
    '{"keys": [{"kty": "oct", "alg": "HS256", "kid": "1", "k": "bm90IGEgc2VjcmV0LCBidXQgbG9uZyBlbm91Z2ggZm9yIGl0"}]}'
)
_PROVIDER = {"p": {"issuer": "i", "local_jwks": {"inline_string": _KEYS}}}
_KEY_BY_HEADER = {"profiles": {"default": {"key_alias": ["header:x-team"]}}}
_USER_BY_JWT = {"profiles": {"default": {"user_email": [f"metadata:{_JWT}/payload/email"]}}}
_TLS = {
    "name": "envoy.transport_sockets.tls",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"},
}

BENT = [
    Bent("no filter", without_filter, "no listener has an ext_proc filter for the sidecar"),
    Bent("two filters", twice, "it has 2 filters for the sidecar"),
    Bent("a listener without it", second_listener, "listener back-door: it leads to http-127.0.0.1-8080 without"),
    Bent("a TCP proxy to the model", tcp_listener, "listener tcp: it leads to http-127.0.0.1-8080 without"),
    Bent("fails open", processor(failure_mode_allow=True), "without a sidecar everything passes unguarded"),
    Bent("only watches", processor(observability_mode=True, processing_mode={}), "it only observes"),
    Bent("cannot refuse", processor(disable_immediate_response=True), "the sidecar cannot refuse anything"),
    Bent("overridable modes", processor(allow_mode_override=True), "the processing modes can be changed", WARNING),
    Bent("no status", processor(status_on_error=None), "without a sidecar clients get 500", WARNING),
    Bent("cleared route", processor(route_cache_action="CLEAR"), "Envoy chooses the route again", WARNING),
    Bent(
        "forward rules",
        processor(forward_rules={"disallowed_headers": {"patterns": [{"exact": "cookie"}]}}),
        "forward_rules keep headers from the sidecar",
        WARNING,
    ),
    Bent(
        "disabled",
        lambda tree: change(manager_of(tree)["http_filters"][0], {"disabled": True}),
        "route /: the ext_proc filter is turned off here: what passes is unguarded; enable envoy.filters.http.ext_proc",
    ),
    Bent("no request headers", modes(request_header_mode="SKIP"), "the request's headers are not sent"),
    Bent("no response headers", modes(response_header_mode="SKIP"), "the response's headers are not sent"),
    Bent("no request body", modes(request_body_mode=None), "the request's body is sent as NONE"),
    Bent("streamed request", modes(request_body_mode="STREAMED"), "the request's body is sent as STREAMED"),
    Bent(
        "buffered response",
        modes(response_body_mode="BUFFERED", response_trailer_mode=None),
        "the response's body is sent as BUFFERED, which the sidecar refuses; set processing_mode.response_body_mode: "
        "FULL_DUPLEX_STREAMED",
    ),
    Bent("default timeout", processor(message_timeout=None), "Envoy waits 0.2 s for a verdict, but Aim may take 5 s"),
    Bent(
        "timeout below Aim's",
        lambda tree: None,
        "Envoy waits 10 s for a verdict, but Aim may take 30 s; set message_timeout: 35s",
        settings={"aim": {"timeout_seconds": 30}},
    ),
    Bent(
        "no attributes",
        processor(request_attributes=None),
        "the attribute xds.route_name, which profile a reads, is not sent",
        settings={"profiles": {"a": {"routes": ["a*"]}}},
    ),
    Bent(
        "an attribute too few",
        lambda tree: None,
        "the attribute connection.subject_peer_certificate, which profile default reads, is not sent",
        settings={"profiles": {"default": {"user_email": ["attribute:connection.subject_peer_certificate"]}}},
    ),
    Bent(
        "metadata that stays",
        processor(metadata_options=None),
        f"the metadata {_JWT}, which profile default reads, is not forwarded",
        settings=_USER_BY_JWT,
    ),
    Bent("no metadata back", processor(metadata_options=None), "the access log cannot show verdicts", WARNING),
    Bent(
        "signing before",
        before("aws_request_signing", "aws_request_signing.v3.AwsRequestSigning", **_SIGNING),
        "it signs requests before the sidecar reads them",
    ),
    Bent("no mutation rules", processor(mutation_rules=None), "the sidecar may change any header", WARNING),
    Bent(
        "narrow mutation rules",
        processor(mutation_rules={"disallow_all": True, "allow_expression": {"regex": "content-.*"}}),
        "the sidecar may not change accept-encoding, digest,",
    ),
    Bent(
        "an unknown profile",
        lambda tree: change(
            processor_of(tree)["grpc_service"], {"initial_metadata": [{"key": "x-extproc-profile", "value": "nobody"}]}
        ),
        "the profile 'nobody' is not in the settings",
    ),
    Bent(
        "an unknown profile of a route",
        override(overrides={"grpc_initial_metadata": [{"key": "x-extproc-profile", "value": "nobody"}]}),
        "route /: the profile 'nobody' is not in the settings",
    ),
    Bent("switched off on a route", override(disabled=True), "route /: the ext_proc filter is turned off here"),
    Bent("switched off elsewhere", disabled_for_health, "route /healthz: the ext_proc filter is turned off here"),
    Bent(
        "another mode on a route",
        override(overrides={"processing_mode": {"request_body_mode": "BUFFERED"}}),
        "route /: the response's body is sent as NONE",
    ),
    Bent("a route that fails open", override(overrides={"failure_mode_allow": True}), "passes unguarded"),
    Bent("default route timeout", action(timeout=None), "longer than 15 s are cut off, by default; set timeout: 0s"),
    Bent("long route timeout", action(timeout="600s"), "longer than 600 s are cut off", WARNING),
    Bent("route idle timeout", action(idle_timeout="60s"), "silent for 60 s; set", WARNING),
    Bent(
        "route stream duration",
        action(max_stream_duration={"max_stream_duration": "60s"}),
        "longer than 60 s are cut off",
    ),
    Bent(
        "model's stream duration",
        http_options(1, common_http_protocol_options={"max_stream_duration": "5s"}),
        "cluster http-127.0.0.1-8080: answers that take longer than 5 s are cut off",
    ),
    Bent(
        "sidecar's stream duration",
        http_options(0, common_http_protocol_options={"max_stream_duration": "5s"}),
        "cluster aim-extproc: exchanges that take longer than 5 s are cut off",
    ),
    Bent(
        "long stream duration of the sidecar",
        http_options(0, common_http_protocol_options={"max_stream_duration": "900s"}),
        "cluster aim-extproc: exchanges that take longer than 900 s are cut off",
        WARNING,
    ),
    Bent(
        "short tries",
        action(retry_policy={"retry_on": "5xx", "per_try_timeout": "5s"}),
        "route /: an answer that takes longer than 5 s is given up (per_try_timeout)",
    ),
    Bent(
        "short tries of the virtual host",
        host(retry_policy={"retry_on": "5xx", "per_try_idle_timeout": "600s"}),
        "route /: an answer that takes longer than 600 s is given up (per_try_idle_timeout)",
        WARNING,
    ),
    Bent("retries in full duplex", retried_full_duplex, "may send its body twice", WARNING),
    Bent("100 Continue", manager(proxy_100_continue=True), "waits for 100 Continue waits for ever", WARNING),
    Bent("default idle timeout", manager(stream_idle_timeout=None), "silent for 300 s; set", WARNING),
    Bent(
        "stream duration",
        manager(common_http_protocol_options={"max_stream_duration": "60s"}),
        "longer than 60 s are cut off",
    ),
    Bent("default buffer", route(request_body_buffer_limit=None), "Envoy refuses requests beyond 1,048,576 bytes"),
    Bent(
        "an edge's buffer",
        buffer_of_an_edge,
        "Envoy refuses requests beyond 32,768 bytes",
    ),
    Bent(
        "a small buffer filter in front",
        before("buffer", "buffer.v3.Buffer", max_request_bytes=32768),
        "route /: the filter envoy.filters.http.buffer refuses requests beyond 32,768 bytes with 413",
    ),
    Bent("a buffer that is small on the route", small_on_route, "refuses requests beyond 1,000 bytes with 413"),
    Bent(
        "escaped slashes",
        manager(path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT"),
        "a request whose path has %2F is answered with a redirect",
        WARNING,
    ),
    Bent(
        "Envoy AI Gateway in front",
        lambda tree: AIGateway().install(tree, position=0),
        "filter envoy.filters.http.ext_proc/aigateway: Envoy AI Gateway keeps the prompt before the sidecar reads it",
    ),
    Bent("Envoy AI Gateway behind it in the upstream chain", upstream_before_ai_gateway, "redactions are lost"),
    Bent("health checks without ALPN", checked_over_tls, "its health checks go over TLS without ALPN"),
    Bent("under a matcher", under_matcher, "a matcher selects the requests that it guards", WARNING),
    Bent("paths as they come", manager(normalize_path=None), "different paths (normalize_path)", WARNING),
    Bent(
        "upgrades",
        manager(
            upgrade_configs=[{"upgrade_type": "websocket", "filters": [http_filter("router", "router.v3.Router", {})]}]
        ),
        "upgrades to websocket pass without the sidecar",
    ),
    Bent(
        "jwt after", after("jwt_authn", "jwt_authn.v3.JwtAuthentication", providers=_PROVIDER), "comes after", WARNING
    ),
    Bent(
        "claims that nobody verified",
        lambda tree: None,
        "profile default reads a JWT's claims, which no earlier filter verifies",
        settings=_USER_BY_JWT,
    ),
    Bent(
        "rate limit after",
        after("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", stat_prefix="x"),
        "rate limiting (local_ratelimit) comes after the ext_proc filter",
        WARNING,
    ),
    Bent(
        "compressor after",
        after("compressor", "compressor.v3.Compressor", compressor_library={"name": "gzip", "typed_config": _GZIP}),
        "it compresses the answer before the sidecar reads it",
        WARNING,
    ),
    Bent(
        "decompressor after",
        after(
            "decompressor", "decompressor.v3.Decompressor", decompressor_library={"name": "g", "typed_config": _GUNZIP}
        ),
        "a decompressor of responses hangs together with full-duplex ext_proc",
    ),
    Bent(
        "decompressor before",
        before(
            "decompressor", "decompressor.v3.Decompressor", decompressor_library={"name": "g", "typed_config": _GUNZIP}
        ),
        "a decompressor of responses hangs together with full-duplex ext_proc",
    ),
    Bent(
        "lua after",
        after("lua", "lua.v3.Lua", default_source_code={"inline_string": "function envoy_on_request(h) end"}),
        "lua may change the request after Aim judged it",
        WARNING,
    ),
    Bent(
        "stripped too late",
        after(
            "header_mutation",
            "header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": [{"remove": "x-aim-user-email"}]},
        ),
        "it changes x-aim-user-email after the sidecar has read it",
    ),
    Bent(
        "a client's own name",
        lambda tree: None,
        "a client can name another person as the caller: profile default reads user_email from x-aim-user-email, which",
        WARNING,
    ),
    Bent(
        "a client's own name in one of three profiles",
        lambda tree: None,
        "profiles default, a read user_email from x-aim-user-email",
        WARNING,
        {"profiles": {"a": {}, "b": {"user_email": ["static:bot"]}}},
    ),
    Bent("a client's own guards", lambda tree: None, "a client can choose its guard", WARNING, _KEY_BY_HEADER),
    Bent(
        "few exchanges",
        cluster(circuit_breakers=None),
        "cluster aim-extproc: its circuit breaker lets 1,024 exchanges live at once, by default; limits.streams allows",
    ),
    Bent("few exchanges with the model", cluster(1, circuit_breakers=None), "cluster http-127.0.0.1-8080: its circuit"),
    Bent("HTTP/1.1", cluster(typed_extension_protocol_options=None), "it does not use HTTP/2"),
    Bent(
        "no keep-alive",
        cluster(http2_protocol_options={}, typed_extension_protocol_options=None),
        "not noticed",
        WARNING,
    ),
    Bent("TLS on one side", cluster(transport_socket=_TLS), "TLS is configured here, which the sidecar does not use"),
    Bent("no endpoint", cluster(load_assignment={"cluster_name": "aim-extproc"}), "it has no endpoint"),
    Bent(
        "another address",
        lambda tree: None,
        "it connects to 127.0.0.1:50051, but the sidecar of these settings listens on 127.0.0.1:50099",
        WARNING,
        {"listen": "127.0.0.1:50099"},
    ),
    Bent(
        "a worker that is not dialled",
        lambda tree: None,
        "listens on 127.0.0.1:50051, 127.0.0.1:50052",
        WARNING,
        {"workers": 2},
    ),
]


@pytest_asyncio.fixture
async def aim() -> AsyncIterator[ScriptedAim]:
    async with ScriptedAim().running() as service:
        yield service


def bent(edit: Edit) -> str:
    """Return the rendered bootstrap, changed by `edit`."""
    tree = yaml.safe_load(render())
    edit(tree)
    return yaml.safe_dump(tree)


def named(findings: list[Finding], severity: Severity) -> list[str]:
    return [str(finding) for finding in findings if finding.severity is severity]


def enabled_by_route(tree: Any) -> None:
    manager_of(tree)["http_filters"][0]["disabled"] = True
    override(overrides={})(tree)


@pytest.mark.parametrize(
    ("edit", "settings"),
    [
        pytest.param(enabled_by_route, {}, id="enabled by every route"),
        pytest.param(lambda tree: None, {}, id="as rendered"),
        pytest.param(other_processor, {}, id="beside another ext_proc filter"),
        pytest.param(renamed, {}, id="under other names"),
        pytest.param(
            manager(path_with_escaped_slashes_action="REJECT_REQUEST"), {}, id="a stricter way with escaped slashes"
        ),
        pytest.param(
            lambda tree: change(processor_of(tree)["grpc_service"], {"timeout": "10s"}),
            {},
            id="a timeout of the gRPC service, which Envoy does not apply to a stream",
        ),
        pytest.param(
            before("buffer", "buffer.v3.Buffer", max_request_bytes=30_000_000), {}, id="a large buffer filter in front"
        ),
        pytest.param(
            lambda tree: AIGateway().install(tree, position=1), {}, id="in front of Envoy AI Gateway's filter"
        ),
        pytest.param(
            before("jwt_authn", "jwt_authn.v3.JwtAuthentication", providers=_PROVIDER), _USER_BY_JWT, id="after a JWT"
        ),
        pytest.param(
            before(
                "header_mutation",
                "header_mutation.v3.HeaderMutation",
                mutations={"request_mutations": [{"remove": "x-team"}]},
            ),
            _KEY_BY_HEADER,
            id="after what strips a header",
        ),
        pytest.param(
            before(
                "header_mutation",
                "header_mutation.v3.HeaderMutation",
                mutations={"request_mutations": [{"remove": "x-user"}]},
            ),
            {"profiles": {"default": {"user_email": ["header:x-user"]}}},
            id="after what strips the header of the caller",
        ),
    ],
)
async def test_guarding_configuration_has_no_findings(edit: Edit, settings: dict[str, Any]) -> None:
    async with run_envoy(bent(edit)) as envoy:
        findings = await check_envoy(without_caller(settings), envoy.admin)
    assert [str(finding) for finding in findings] == [
        f"ok: envoy, {envoy.admin}: version {envoy_version(findings)}, 1 of 1 HTTP filter chains have the filter",
        *old_envoy(findings),
    ]


def without_caller(settings: dict[str, Any]) -> Settings:
    """Return settings that name no caller unless `settings` say how: `check` warns of the default."""
    profiles = {"default": {}, **settings.get("profiles", {})}
    return Settings(**{**settings, "profiles": {name: {"user_email": [], **each} for name, each in profiles.items()}})


async def test_filter_in_upstream_chain_guards() -> None:
    async with run_envoy(bent(in_upstream_chain)) as envoy:
        findings = await check_envoy(without_caller({}), envoy.admin)
    assert [str(finding) for finding in findings[1:]] == old_envoy(findings)
    assert "0 of 1 HTTP filter chains have the filter" in findings[0].what


PATCHED = {"1.37": 6, "1.38": 4, "1.39": 1}


def old_envoy(findings: list[Finding]) -> list[str]:
    """Return the warning that is due for the Envoy of the first finding: some wheels of the matrix are old."""
    version = envoy_version(findings)
    line, _, patch = version.rpartition(".")
    if line == "1.36":
        what = "is out of support; upgrade to one of 1.37.6, 1.38.4, 1.39.1 or newer"
    elif int(patch) < PATCHED.get(line, 0):
        what = f"has faults in ext_proc that later patch releases mend; upgrade to {line}.{PATCHED[line]} or newer"
    else:
        return []
    return [f"warning: {findings[0].where}: Envoy {version} {what}"]


def envoy_version(findings: list[Finding]) -> str:
    return findings[0].what.split()[1].rstrip(",")


@pytest.mark.parametrize("case", BENT, ids=lambda case: case.id)
async def test_each_misconfiguration_is_reported(case: Bent) -> None:
    async with run_envoy(bent(case.edit)) as envoy:
        findings = await check_envoy(Settings(**case.settings), envoy.admin)
    said = named(findings, case.severity)
    assert any(case.said in line for line in said), said
    # There is no more severe finding than the expected one.
    assert case.severity is Severity.ERROR or named(findings, Severity.ERROR) == []


def by_xds(tree: Any, folder: Path) -> None:
    """Provide listeners, clusters, routes and the ext_proc filter from files, as a control plane does."""
    types = "type.googleapis.com/envoy.config."

    def source(name: str, *resources: Any) -> dict[str, Any]:
        (folder / name).write_text(json.dumps({"version_info": "1", "resources": resources}))
        return {"resource_api_version": "V3", "path_config_source": {"path": str(folder / name)}}

    http = manager_of(tree)
    processor = http["http_filters"][0]
    extension = {"@type": f"{types}core.v3.TypedExtensionConfig", **processor}
    http["http_filters"][0] = {
        "name": processor["name"],
        "config_discovery": {
            "config_source": source("ecds.json", extension),
            "type_urls": [processor["typed_config"]["@type"]],
        },
    }
    routes = {"@type": f"{types}route.v3.RouteConfiguration", **http.pop("route_config")}
    http["rds"] = {"route_config_name": routes["name"], "config_source": source("rds.json", routes)}
    static = tree.pop("static_resources")
    listeners = [{"@type": f"{types}listener.v3.Listener", **each} for each in static["listeners"]]
    clusters = [{"@type": f"{types}cluster.v3.Cluster", **each} for each in static["clusters"]]
    tree["node"] = {"id": "test", "cluster": "test"}
    tree["dynamic_resources"] = {
        "lds_config": source("lds.json", *listeners),
        "cds_config": source("cds.json", *clusters),
    }


async def test_configuration_from_a_control_plane_is_read(tmp_path: Path) -> None:
    tree = yaml.safe_load(render())
    by_xds(tree, tmp_path)
    async with run_envoy(yaml.safe_dump(tree)) as envoy:
        findings = await check_envoy(without_caller({}), envoy.admin)
    assert [str(finding) for finding in findings[1:]] == old_envoy(findings)
    tree = yaml.safe_load(render())
    processor(failure_mode_allow=True)(tree)
    action(timeout=None)(tree)
    cluster(circuit_breakers=None)(tree)
    by_xds(tree, tmp_path)
    async with run_envoy(yaml.safe_dump(tree)) as envoy:
        findings = await check_envoy(without_caller({}), envoy.admin)
    said = "\n".join(named(findings, Severity.ERROR))
    assert "everything passes unguarded" in said
    assert "longer than 15 s are cut off" in said
    assert "its circuit breaker lets 1,024" in said
    assert len(findings) == 4 + len(old_envoy(findings))


async def test_command_prints_the_error_and_fails(aim: ScriptedAim) -> None:
    settings = {"AIM_API_KEY": "k", "AIM_API_BASE": aim.base}
    async with run_envoy(bent(processor(failure_mode_allow=True))) as envoy:
        status, out, _ = await run("check", "--envoy", envoy.admin, **settings)
    assert status == 1
    assert "error: listener llm, filter envoy.filters.http.ext_proc: without a sidecar everything passes" in out
    assert "answered 'allow'" in out


async def test_unreachable_envoy_is_reported(aim: ScriptedAim) -> None:
    settings = {"AIM_API_KEY": "k", "AIM_API_BASE": aim.base}
    status, out, err = await run("check", "--envoy", f"http://127.0.0.1:{free_port()}", **settings)
    assert (status, err) == (1, "")
    assert "its admin port cannot be read" in out
    status, out, err = await run("check", "--envoy", aim.base, **settings)
    assert (status, err) == (1, "")
    assert "HTTP 404" in out


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_login_of_the_admin_port_is_not_printed(scheme: str) -> None:
    (finding,) = await check_envoy(Settings(), f"{scheme}user:hunter2@127.0.0.1:{free_port()}")
    assert "envoy, " + scheme + "***@127.0.0.1:" in str(finding)
    assert "hunter2" not in str(finding)


def test_control_characters_in_names_are_escaped() -> None:
    finding = Finding(Severity.OK, "listener \x1b[2J\n\u202eb\ud800", "gr\xfc\xdfe")
    assert str(finding) == "ok: listener \\x1b[2J\\n\\u202eb\\ud800: gr\xfc\xdfe"
