"""Rendered resources of meshes: values that the sidecar depends on, checked by CRDs and a real Envoy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from extproc.cli.main import app
from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.envoy import render_envoy
from extproc.render.upstream import Upstream
from tests.fakes.envoy import needs_envoy, validate

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT.parent / "shared" / "schemas"
MESHES = ("istio", "envoy-gateway", "kgateway", "agentgateway")
LIMIT = 20_971_520 + 1_048_576

# The stored schema of GatewayExtension is older than these; its README says so.
NEWER = re.compile(
    r"GatewayExtension\.spec\.(type: missing|extProc\."
    r"(failOpen|processingMode|messageTimeout|routeCacheAction|metadataOptions|allowProcessingModeOverride))"
)
WITHOUT_SCHEMA = {"BackendTLSPolicy", "EnvoyPatchPolicy", "ReferenceGrant", "BackendConfigPolicy", "ListenerPolicy"}

VARIANTS = [
    *((mesh,) for mesh in MESHES),
    *((mesh, "--ca", "", "--service", "guard.aim", "--namespace", "edge", "--gateway", "models") for mesh in MESHES),
    ("istio", "--topology", "sidecar", "--context", "outbound", "--selector", "app=chat"),
    ("istio", "--context", "waypoint"),
    ("istio", "--profile", "default", "--route", "edge.llm.0=default"),
    ("envoy-gateway", "--topology", "sidecar"),
    ("envoy-gateway", "--ai-gateway", "http"),
    ("agentgateway", "--profile", "default", "--route", "payments=default"),
]


def run(*arguments: str, settings: str = "", folder: Path | None = None) -> str:
    if settings:
        assert folder is not None
        (folder / "settings.yaml").write_text(settings)
        arguments = (*arguments, "--config", str(folder / "settings.yaml"))
    result = CliRunner().invoke(app, ["render", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def resources(*arguments: str, **settings: Any) -> dict[str, dict[str, Any]]:
    """Return the rendered resources by `Kind/name`."""
    documents = list(yaml.safe_load_all(run(*arguments, **settings)))
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


def spec(kind: str, *arguments: str, **settings: Any) -> Any:
    return resources(*arguments, **settings)[f"{kind}/aim-extproc"]["spec"]


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["render", *arguments])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    return result.stderr


# Istio


def patches(apply_to: str, *arguments: str, **settings: Any) -> list[dict[str, Any]]:
    found = spec("EnvoyFilter", "istio", *arguments, **settings)["configPatches"]
    return [patch for patch in found if patch["applyTo"] == apply_to]


def value(apply_to: str, *arguments: str, **settings: Any) -> Any:
    return patches(apply_to, *arguments, **settings)[0]["patch"]["value"]


def test_istio_filter_equals_that_of_render_envoy() -> None:
    bootstrap = yaml.safe_load(
        render_envoy(
            Settings(),
            listen=Address.parse("127.0.0.1:1"),
            upstreams=[Upstream.parse("http://a")],
            admin=None,
        )
    )
    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    expected = manager["http_filters"][0]["typed_config"]
    (patch,) = patches("HTTP_FILTER", "--topology", "sidecar")
    assert patch["patch"]["operation"] == "INSERT_BEFORE"
    assert patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"] == "envoy.filters.http.router"
    assert patch["patch"]["value"]["typed_config"] == expected
    # An InferencePool's filter has the default name.
    assert patch["patch"]["value"]["name"] == "aim.ext_proc"


def test_istio_patches_listener_and_routes() -> None:
    manager = value("NETWORK_FILTER")["typed_config"]
    assert manager["stream_idle_timeout"] == "900s"
    assert manager["common_http_protocol_options"] == {"max_headers_count": 320}
    assert manager["normalize_path"] is True
    assert manager["merge_slashes"] is True
    assert manager["path_with_escaped_slashes_action"] == "KEEP_UNCHANGED"
    assert value("HTTP_ROUTE") == {"request_body_buffer_limit": LIMIT}


def test_istio_cluster_uses_service_and_its_ca() -> None:
    cluster = value("CLUSTER", "--service", "guard.aim")
    assert cluster["type"] == "STRICT_DNS"
    assert cluster["lb_policy"] == "LEAST_REQUEST"
    assert cluster["health_checks"][0]["grpc_health_check"] == {}
    assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 1_000_000
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": "guard.aim.svc.cluster.local", "port_value": 50051}
    context = cluster["transport_socket"]["typed_config"]
    assert context["sni"] == "guard.aim.svc"
    validation = context["common_tls_context"]["combined_validation_context"]
    assert validation["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "guard.aim.svc"}}
    ]
    assert validation["validation_context_sds_secret_config"]["name"] == "kubernetes://aim-extproc-ca-cacert"
    assert value("HTTP_FILTER")["typed_config"]["grpc_service"]["retry_policy"]["num_retries"] == 2


def test_empty_ca_renders_no_tls_and_a_warning() -> None:
    assert "transport_socket" not in value("CLUSTER", "--ca", "")
    for mesh in MESHES:
        text = run(mesh, "--ca", "")
        assert "WARNING" in text
        assert "tls" not in yaml.safe_dump_all(yaml.safe_load_all(text)).lower()
        assert "WARNING" not in run(mesh)


def test_sidecar_topology_uses_shared_socket(tmp_path: Path) -> None:
    assert "an emptyDir at /run/extproc in both" in " ".join(run("istio", "--topology", "sidecar").split("\n# "))
    text = run("istio", "--topology", "sidecar", "--context", "inbound", "--selector", "app=chat")
    assert 'sidecar.istio.io/userVolumeMount: \'[{"name":"aim-extproc","mountPath":"/run/extproc"}]\'' in text
    settings = "{listen: 'unix:/x/y.sock', workers: 2}"
    cluster = value("CLUSTER", "--topology", "sidecar", settings=settings, folder=tmp_path)
    endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert [endpoint["endpoint"]["address"]["pipe"]["path"] for endpoint in endpoints] == ["/x/y.sock", "/x/y.sock-1"]
    backend = spec("Backend", "envoy-gateway", "--topology", "sidecar", settings=settings, folder=tmp_path)
    assert backend == {"endpoints": [{"unix": {"path": "/x/y.sock"}}, {"unix": {"path": "/x/y.sock-1"}}]}


@pytest.mark.parametrize(
    ("context", "expected"),
    [("gateway", "GATEWAY"), ("outbound", "SIDECAR_OUTBOUND"), ("inbound", "SIDECAR_INBOUND")],
)
def test_all_patches_have_the_same_context(context: str, expected: str) -> None:
    found = spec("EnvoyFilter", "istio", "--context", context, "--selector", "app=chat", "--selector", "v=1")
    assert {patch["match"]["context"] for patch in found["configPatches"]} == {expected}
    assert found["workloadSelector"] == {"labels": {"app": "chat", "v": "1"}}


def test_waypoint_is_named_and_not_selected() -> None:
    found = spec("EnvoyFilter", "istio", "--context", "waypoint", "--gateway", "guarded")
    assert "workloadSelector" not in found
    assert found["targetRefs"] == [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "guarded"}]
    assert {patch["match"]["context"] for patch in found["configPatches"]} == {"SIDECAR_INBOUND"}
    (listener,) = [patch for patch in found["configPatches"] if patch["applyTo"] == "LISTENER"]
    assert listener["patch"] == {"operation": "MERGE", "value": {"per_connection_buffer_limit_bytes": LIMIT}}


def test_waypoint_patches_leave_its_tunnels_alone() -> None:
    """A waypoint gets requests in tunnels. The listener that ends them has a connection manager, too."""
    for kind in ("HTTP_FILTER", "NETWORK_FILTER", "LISTENER"):
        (patch,) = patches(kind, "--context", "waypoint")
        assert patch["match"]["listener"]["name"] == "main_internal"


def test_outbound_traffic_keeps_its_paths() -> None:
    arguments = ("--context", "outbound", "--selector", "app=chat")
    manager = value("NETWORK_FILTER", *arguments)["typed_config"]
    assert not {"normalize_path", "merge_slashes", "path_with_escaped_slashes_action"} & set(manager)
    assert "Set unmatched: pass" in " ".join(run("istio", *arguments).split("\n# "))


def test_istio_output_names_gateways_without_an_envoy() -> None:
    assert "no effect on a gateway of the class istio-agentgateway" in " ".join(run("istio").split("\n# "))


def test_istio_sets_profiles_in_grpc_metadata(tmp_path: Path) -> None:
    arguments = ("--profile", "strict", "--route", "edge.llm.0=loose", "--route", "pay=strict")
    settings = "profiles: {strict: {}, loose: {}}"
    typed = value("HTTP_FILTER", *arguments, settings=settings, folder=tmp_path)["typed_config"]
    assert typed["grpc_service"]["initial_metadata"] == [{"key": "x-extproc-profile", "value": "strict"}]
    assert "initial_metadata" not in value("HTTP_FILTER")["typed_config"]["grpc_service"]
    _, *named = patches("HTTP_ROUTE", *arguments, settings=settings, folder=tmp_path)
    found = {
        patch["match"]["routeConfiguration"]["vhost"]["route"]["name"]: patch["patch"]["value"][
            "typed_per_filter_config"
        ]["aim.ext_proc"]["overrides"]["grpc_initial_metadata"]
        for patch in named
    }
    assert found == {
        "edge.llm.0": [{"key": "x-extproc-profile", "value": "loose"}],
        "pay": [{"key": "x-extproc-profile", "value": "strict"}],
    }


# Envoy Gateway


def test_envoy_gateway_extension_fails_closed() -> None:
    (ext_proc,) = spec("EnvoyExtensionPolicy", "envoy-gateway", "--ca", "")["extProc"]
    assert ext_proc["backendRefs"] == [{"name": "aim-extproc", "port": 50051}]
    assert ext_proc["backendSettings"]["timeout"] == {"tcp": {"connectTimeout": "1s"}}
    assert ext_proc["failOpen"] is False
    assert ext_proc["statusOnError"] == 503
    assert ext_proc["messageTimeout"] == "10s"
    assert ext_proc["processingMode"] == {
        "request": {"body": "Buffered", "attributes": ["request.id", "source.address", "xds.route_name"]},
        "response": {"body": "FullDuplexStreamed"},
        "allowModeOverride": False,
    }
    assert ext_proc["metadata"] == {
        "accessibleNamespaces": ["envoy.filters.http.jwt_authn"],
        "writableNamespaces": ["aim"],
    }
    assert ext_proc["backendSettings"]["circuitBreaker"]["maxParallelRequests"] == 1_000_000


def test_envoy_gateway_sets_listener_and_route_policies() -> None:
    client = spec("ClientTrafficPolicy", "envoy-gateway")
    assert client["connection"] == {"bufferLimit": LIMIT}
    assert client["timeout"]["http"] == {"streamIdleTimeout": "900s"}
    assert client["path"] == {"disableMergeSlashes": False, "escapedSlashesAction": "KeepUnchanged"}
    assert spec("BackendTrafficPolicy", "envoy-gateway")["timeout"]["http"] == {"requestTimeout": "0s"}


def test_meshes_without_profiles_explain_the_alternative() -> None:
    text = " ".join(run("envoy-gateway").split("\n# "))
    assert 'profiles.NAME.routes: ["httproute/NAMESPACE/HTTPROUTE/rule/*"]' in text
    assert "run a sidecar for each" in " ".join(run("kgateway").split("\n# "))


def test_each_worker_is_a_backend(tmp_path: Path) -> None:
    settings = "{listen: '0.0.0.0:6000', workers: 2}"
    clear = ("envoy-gateway", "--ca", "")
    (ext_proc,) = spec("EnvoyExtensionPolicy", *clear, settings=settings, folder=tmp_path)["extProc"]
    assert [backend["port"] for backend in ext_proc["backendRefs"]] == [6000, 6001]
    backend = spec("Backend", "envoy-gateway", settings=settings, folder=tmp_path)
    assert [endpoint["fqdn"]["port"] for endpoint in backend["endpoints"]] == [6000, 6001]


def test_filter_is_renamed_for_ai_gateway() -> None:
    arguments = ("envoy-gateway", "--gateway", "models", "--namespace", "edge", "--ai-gateway", "http")
    found = spec("EnvoyPatchPolicy", *arguments, "--ai-gateway", "https")
    assert found["targetRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "models"}
    filters = "..http_filters[?(@.name=='envoy.filters.http.ext_proc/envoyextensionpolicy/edge/aim-extproc/extproc/0')]"
    expected = [
        {"op": "replace", "jsonPath": f"{filters}.disabled", "value": False},
        {"op": "replace", "jsonPath": f"{filters}.name", "value": "aim.ext_proc"},
    ]
    for name in ("http", "https"):
        named = [patch for patch in found["jsonPatches"] if patch["name"] == f"edge/models/{name}"]
        assert [patch["operation"] for patch in named] == expected
    assert "EnvoyPatchPolicy/aim-extproc" not in resources("envoy-gateway")


# kgateway


def test_kgateway_extension_fails_closed() -> None:
    assert spec("GatewayExtension", "kgateway") == {
        "extProc": {
            "grpcService": {"backendRef": {"name": "aim-extproc", "port": 50051}},
            "failOpen": False,
            "messageTimeout": "10s",
            "processingMode": {
                "requestHeaderMode": "SEND",
                "requestBodyMode": "BUFFERED",
                "requestTrailerMode": "SKIP",
                "responseHeaderMode": "SEND",
                "responseBodyMode": "FULL_DUPLEX_STREAMED",
                "responseTrailerMode": "SEND",
            },
            "allowProcessingModeOverride": False,
            "routeCacheAction": "Retain",
            "metadataOptions": {"forwarding": {"untyped": ["envoy.filters.http.jwt_authn"]}},
        },
    }


def test_kgateway_sends_attributes_to_profiles_that_need_them(tmp_path: Path) -> None:
    expected = ["request.id", "source.address", "xds.route_name"]
    for profile in (
        "{routes: ['*-httproute-pay-default-*']}",
        "{user_email: ['attribute:connection.requested_server_name']}",
    ):
        arguments = {"settings": f"profiles: {{pay: {profile}}}", "folder": tmp_path}
        assert spec("GatewayExtension", "kgateway", **arguments)["extProc"]["requestAttributes"] == expected


def test_kgateway_checks_health_over_tls() -> None:
    found = spec("BackendConfigPolicy", "kgateway", "--service", "guard.aim")
    assert found["connectTimeout"] == "1s"
    assert found["healthCheck"]["grpc"] == {}
    assert found["tls"] == {
        "secretRef": {"name": "aim-extproc-ca"},
        "sni": "guard.aim.svc",
        "verifySubjectAltNames": ["guard.aim.svc"],
        "alpnProtocols": ["h2"],
    }
    assert "BackendTLSPolicy/aim-extproc" not in resources("kgateway")
    assert "tls" not in spec("BackendConfigPolicy", "kgateway", "--ca", "")


def test_kgateway_sets_listener_and_route_policies() -> None:
    traffic = spec("TrafficPolicy", "kgateway")
    assert traffic["extProc"] == {"extensionRef": {"name": "aim-extproc"}}
    assert traffic["timeouts"] == {"request": "0s", "streamIdle": "900s"}
    assert spec("ListenerPolicy", "kgateway")["default"] == {"perConnectionBufferLimitBytes": LIMIT}
    assert spec("BackendConfigPolicy", "kgateway")["circuitBreakers"]["maxRequests"] == 1_000_000


# agentgateway


def test_agentgateway_policy_fails_closed() -> None:
    ext_proc = spec("AgentgatewayPolicy", "agentgateway")["traffic"]["extProc"]
    assert ext_proc["backendRef"] == {"name": "aim-extproc", "port": 50051}
    assert ext_proc["failureMode"] == "FailClosed"
    assert ext_proc["processingOptions"] == {
        "requestHeaderMode": "Send",
        "requestBodyMode": "FullDuplexStreamed",
        "requestTrailerMode": "Send",
        "responseHeaderMode": "Send",
        "responseBodyMode": "FullDuplexStreamed",
        "responseTrailerMode": "Send",
        "allowModeOverride": False,
    }
    assert "metadataContext" not in ext_proc


def test_agentgateway_sets_profiles_in_grpc_metadata(tmp_path: Path) -> None:
    arguments = ("agentgateway", "--profile", "strict", "--route", "pay=loose")
    found = resources(*arguments, settings="profiles: {strict: {}, loose: {}}", folder=tmp_path)
    named = {
        name: document["spec"]["traffic"]["extProc"]["metadataContext"]["agentgateway.dev.grpc_initial_metadata"]
        for name, document in found.items()
        if "traffic" in document["spec"]
    }
    assert named == {
        "AgentgatewayPolicy/aim-extproc": {"x-extproc-profile": '"strict"'},
        "AgentgatewayPolicy/aim-extproc-pay": {"x-extproc-profile": '"loose"'},
    }
    (target,) = found["AgentgatewayPolicy/aim-extproc-pay"]["spec"]["targetRefs"]
    assert target == {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "pay"}


# All of them


def test_envoy_gateway_verifies_service_certificate() -> None:
    every = resources("envoy-gateway", "--service", "guard.aim")
    found = every["BackendTLSPolicy/aim-extproc"]
    assert found["metadata"]["namespace"] == "aim"
    backend = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "aim-extproc"}
    assert found["spec"]["targetRefs"] == [backend]
    assert every["Backend/aim-extproc"]["metadata"]["namespace"] == "aim"
    assert every["Backend/aim-extproc"]["spec"] == {
        "endpoints": [{"fqdn": {"hostname": "guard.aim.svc.cluster.local", "port": 50051}}],
        "tls": {"alpnProtocols": ["h2"]},
    }
    (ext_proc,) = every["EnvoyExtensionPolicy/aim-extproc"]["spec"]["extProc"]
    assert ext_proc["backendRefs"] == [{**backend, "namespace": "aim"}]
    assert every["ReferenceGrant/aim-extproc"]["spec"]["to"] == [backend]
    assert found["spec"]["validation"] == {
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "aim-extproc-ca"}],
        "hostname": "guard.aim.svc",
    }


def test_agentgateway_verifies_service_certificate() -> None:
    found = resources("agentgateway", "--service", "guard.aim")["AgentgatewayPolicy/aim-extproc-tls"]
    assert found["metadata"]["namespace"] == "aim"
    tls = found["spec"]["backend"]["tls"]
    assert tls["verifySubjectAltNames"] == ["guard.aim.svc"]
    assert tls["alpnProtocols"] == ["h2"]


@pytest.mark.parametrize(
    ("mesh", "kind"),
    [
        ("envoy-gateway", "EnvoyExtensionPolicy"),
        ("kgateway", "GatewayExtension"),
        ("agentgateway", "AgentgatewayPolicy"),
    ],
)
def test_service_in_another_namespace_gets_reference_grant(mesh: str, kind: str) -> None:
    arguments = (mesh, "--service", "guard.aim", "--namespace", "edge", "--ca", "")
    grant = resources(*arguments)["ReferenceGrant/aim-extproc"]
    assert grant["metadata"]["namespace"] == "aim"
    ((source,), (target,)) = grant["spec"]["from"], grant["spec"]["to"]
    assert (source["kind"], source["namespace"]) == (kind, "edge")
    assert target == {"group": "", "kind": "Service", "name": "guard"}
    assert "ReferenceGrant/aim-extproc" not in resources(mesh, "--service", "guard.edge", "--namespace", "edge")


@pytest.mark.parametrize("mesh", MESHES)
def test_limits_and_timeouts_follow_the_settings(mesh: str, tmp_path: Path) -> None:
    settings = "{listen: '[::]:6000', aim: {timeout_seconds: 60}, limits: {request_bytes: 4000000, streams: 1000000}}"
    text = run(mesh, settings=settings, folder=tmp_path)
    assert "6000" in text
    assert "50051" not in text
    if mesh != "agentgateway":
        assert "65s" in text
        assert str(4_000_000 + 1_048_576) in text
        assert "2000000" in text


@pytest.mark.parametrize("mesh", MESHES)
def test_header_names_settings_that_the_sidecar_needs(mesh: str, tmp_path: Path) -> None:
    assert "# The sidecar has to listen on 0.0.0.0:50051, with tls.cert_file and tls.key_file.\n" in run(mesh)
    settings = "tls: {cert_file: /a, key_file: /b, client_ca_file: /c}"
    assert "the gateway also needs a client certificate" in run(mesh, settings=settings, folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("istio", "--profile", "unknown"), "the settings have no profile 'unknown', only default"),
        (("istio", "--route", "pay"), "'pay' is not ROUTE=PROFILE"),
        (("istio", "--route", "pay=unknown"), "no profile 'unknown'"),
        (("istio", "--selector", "app"), "'app' is not LABEL=VALUE"),
        (("istio", "--context", "outbound"), "--context outbound is for an app's pods; name them"),
        (("istio", "--context", "inbound"), "--context inbound is for an app's pods; name them"),
        (("istio", "--context", "waypoint", "--selector", "app=chat"), "Istio ignores it for a waypoint"),
        (("agentgateway", "--route", "a b=default"), "'a b' is not the name of an HTTPRoute"),
        (("envoy-gateway", "--ai-gateway", "a b"), "ai-gateway: 'a b' is not the name of a Gateway's listener"),
        (("kgateway", "--service", "a.b.c"), "'a.b.c' is not NAME or NAME.NAMESPACE"),
        (("kgateway", "--gateway", "A"), "gateway: 'A' is not a name"),
        (("kgateway", "--namespace", ""), "namespace: '' is not a name"),
    ],
)
def test_invalid_arguments_are_refused_with_a_sentence(arguments: tuple[str, ...], problem: str) -> None:
    assert problem in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "settings", "problem"),
    [
        (("istio", "--topology", "sidecar"), "tls: {cert_file: /a, key_file: /b}", "has no TLS"),
        (("envoy-gateway", "--topology", "sidecar"), "tls: {cert_file: /a, key_file: /b}", "has no TLS"),
        (("envoy-gateway",), "workers: 17", "at most 16 servers"),
        (("kgateway",), "workers: 2", "use replicas"),
        (("agentgateway",), "workers: 2", "use replicas"),
    ],
)
def test_settings_that_a_mesh_cannot_serve_are_refused(
    arguments: tuple[str, ...], settings: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text(settings)
    assert problem in refused(*arguments, "--config", str(tmp_path / "settings.yaml"))


def test_route_with_two_profiles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("profiles: {a: {}}")
    arguments = ("istio", "--route", "r=a", "--route", "r=default", "--config", str(tmp_path / "settings.yaml"))
    assert "'r' is given more than one profile" in refused(*arguments)


TLS = "tls: {cert_file: /a, key_file: /b}"


@pytest.mark.parametrize(
    ("arguments", "settings", "expected"),
    [
        ((), None, ""),
        (("--ca", ""), None, ""),
        ((), TLS, ""),
        (("--ca", ""), "{}", ""),
        ((), "{}", 'note: the settings have no tls.cert_file; use --ca "", or set it\n'),
        (
            ("--ca", ""),
            TLS,
            'note: the settings have tls.cert_file; with --ca "" every call to the sidecar would fail\n',
        ),
        (
            ("--ca", ""),
            "workers: 3",
            "note: workers: 3 needs the ports 50051 to 50053 on the Service, but the chart's has one: use "
            "replicas, each with one worker\n",
        ),
        (("--topology", "sidecar"), "workers: 3", ""),
        (("--topology", "sidecar", "--ca", ""), None, ""),
        (("--topology", "sidecar", "--ca", "own"), None, "note: --ca own is ignored: a unix socket has no TLS\n"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_notes_name_contradicting_settings_and_options(
    arguments: tuple[str, ...],
    settings: str | None,
    expected: str,
    by_variable: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "settings.yaml"
    if settings is not None:
        file.write_text(settings)
        if by_variable:
            monkeypatch.setenv("EXTPROC_CONFIG", str(file))
        else:
            arguments = (*arguments, "--config", str(file))
    for mesh in ("istio", "envoy-gateway"):
        result = CliRunner().invoke(app, ["render", mesh, *arguments])
        assert (result.exit_code, result.stderr) == (0, expected)


@pytest.mark.parametrize("mesh", MESHES)
def test_examples_equal_the_rendered_output(mesh: str) -> None:
    example = ROOT / "envoy" / f"{mesh}.yaml"
    assert example.read_text() == run(mesh), f"regenerate it: extproc render {mesh} > envoy/{mesh}.yaml"


# By the CRDs


def problems(node: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the errors of `node` under an OpenAPI v3 structural schema; CEL rules are not checked."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(node, int | str) or isinstance(node, bool):
            yield f"{path}: neither an integer nor a string"
        return
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": float}
    kind = schema.get("type", "")
    if kind and (not isinstance(node, kinds[kind]) or (kind == "integer" and isinstance(node, bool))):
        yield f"{path}: not of type {kind}"
        return
    if "enum" in schema and node not in schema["enum"]:
        yield f"{path}: {node!r} is none of {schema['enum']}"
    match node:
        case dict():
            yield from _object_problems(node, schema, path)
        case list():
            if not schema.get("minItems", 0) <= len(node) <= schema.get("maxItems", len(node)):
                yield f"{path}: {len(node)} items"
            for item in node:
                yield from problems(item, schema["items"], f"{path}[]")
        case str():
            if len(node) > schema.get("maxLength", len(node)) or not re.search(schema.get("pattern", ""), node):
                yield f"{path}: {node!r} is not as it has to be"
        case int():
            if not schema.get("minimum", node) <= node <= schema.get("maximum", node):
                yield f"{path}: {node} is out of bounds"


def _object_problems(node: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in node:
            yield f"{path}.{name}: missing"
    properties = schema.get("properties", {})
    for name, item in node.items():
        if name in properties:
            yield from problems(item, properties[name], f"{path}.{name}")
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from problems(item, schema["additionalProperties"], f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown"


def crds() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the stored schemas by (apiVersion, kind)."""
    if not SCHEMAS.is_dir():
        pytest.skip("no CRD schemas beside the checkout (../shared/schemas)")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for path in sorted(SCHEMAS.glob("*.yaml")):
        for crd in yaml.load_all(path.read_text(), loader):
            for version in crd["spec"]["versions"]:
                api = f"{crd['spec']['group']}/{version['name']}"
                found[api, crd["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


@pytest.fixture(scope="module")
def schemas() -> dict[tuple[str, str], dict[str, Any]]:
    return crds()


@pytest.mark.corpus
@pytest.mark.parametrize("arguments", VARIANTS, ids=" ".join)
def test_crds_accept_rendered_resources(
    schemas: dict[tuple[str, str], dict[str, Any]], arguments: tuple[str, ...]
) -> None:
    checked = 0
    for document in resources(*arguments).values():
        kind = document["kind"]
        if kind in WITHOUT_SCHEMA:
            continue
        found = list(problems({"spec": document["spec"]}, schemas[document["apiVersion"], kind], kind))
        assert [problem for problem in found if not NEWER.match(problem)] == []
        checked += 1
    assert checked


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("path", "wrong", "problem"),
    [
        ("failOpen", "no", "failOpen: not of type boolean"),
        ("failOpne", True, "failOpne: unknown"),
        ("statusOnError", 200, "statusOnError: 200 is none of"),
        ("messageTimeout", "10", "messageTimeout: '10' is not as"),
        ("backendRefs", [{"name": "a", "port": 0}], "port: 0 is out of bounds"),
        ("backendRefs", [{"port": 1}], "name: missing"),
        ("backendRefs", [{"name": "a"}] * 17, "backendRefs: 17 items"),
        ("backendSettings", {"connection": {"bufferLimit": True}}, "neither an integer nor a string"),
    ],
)
def test_schema_check_finds_wrong_fields(
    schemas: dict[tuple[str, str], dict[str, Any]], path: str, wrong: Any, problem: str
) -> None:
    document = resources("envoy-gateway")["EnvoyExtensionPolicy/aim-extproc"]
    document["spec"]["extProc"][0][path] = wrong
    schema = schemas[document["apiVersion"], document["kind"]]
    (found,) = problems({"spec": document["spec"]}, schema, "")
    assert problem in found


# By a real Envoy


def patched(*arguments: str) -> str:
    """Return a small bootstrap with Istio's patches applied as istiod applies them."""
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    route: dict[str, Any] = {"name": "edge.llm.0", "match": {"prefix": "/"}, "route": {"cluster": "aim-extproc"}}
    manager = {
        "stat_prefix": "gateway",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [value("HTTP_FILTER", *arguments), router],
        **value("NETWORK_FILTER", *arguments)["typed_config"],
    }
    for patch in patches("HTTP_ROUTE", *arguments):
        route |= patch["patch"]["value"]
    ads = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "d"}}]}
    istiod = {
        "name": "d",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "d", "endpoints": []},
        "typed_extension_protocol_options": value("CLUSTER")["typed_extension_protocol_options"],
    }
    tree = {
        "node": {"id": "gateway", "cluster": "gateway"},
        "dynamic_resources": {"ads_config": ads},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [
                        {"filters": [{"name": value("NETWORK_FILTER")["name"], "typed_config": manager}]}
                    ],
                }
            ],
            "clusters": [value("CLUSTER", *arguments), istiod],
        },
    }
    return yaml.safe_dump(tree)


ENVOYS = [(), ("--ca", ""), ("--topology", "sidecar"), ("--profile", "default", "--route", "edge.llm.0=default")]


@pytest.mark.parametrize(
    "arguments", [pytest.param(arguments, id=" ".join(arguments), marks=needs_envoy) for arguments in ENVOYS]
)
def test_envoy_accepts_bootstrap_with_istio_patches(arguments: tuple[str, ...]) -> None:
    validate(patched(*arguments))
