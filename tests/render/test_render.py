"""`extproc render envoy`: values that the sidecar depends on, routes, and the YAML writer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.commented import because, dump
from extproc.render.envoy import render_envoy
from extproc.render.schema import check
from extproc.render.upstream import Upstream

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "envoy" / "envoy.yaml"
EXAMPLE_ARGUMENTS = {
    "listen": "0.0.0.0:10000",
    "admin": "127.0.0.1:9901",
    "upstream": "http://127.0.0.1:8080",
}


def render(*upstreams: str, allow_upgrades: tuple[str, ...] = (), **settings: Any) -> str:
    return render_envoy(
        Settings(**settings),
        listen=Address.parse("127.0.0.1:10000"),
        upstreams=[Upstream.parse(text) for text in upstreams or ("http://127.0.0.1:8080",)],
        admin=Address.parse("127.0.0.1:9901"),
        allow_upgrades=allow_upgrades,
    )


def bootstrap(*upstreams: str, allow_upgrades: tuple[str, ...] = (), **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(*upstreams, allow_upgrades=allow_upgrades, **settings))
    return found


def listener(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = tree["static_resources"]["listeners"]
    return found


def manager(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = listener(tree)["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def processor(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manager(tree)["http_filters"][0]["typed_config"]
    return found


def routes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manager(tree)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def clusters(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in tree["static_resources"]["clusters"]}


def sidecar(tree: dict[str, Any]) -> dict[str, Any]:
    return clusters(tree)["aim-extproc"]


def addresses(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    (group,) = cluster["load_assignment"]["endpoints"]
    return [endpoint["endpoint"]["address"] for endpoint in group["lb_endpoints"]]


# The filter


def test_filter_fails_closed_with_503() -> None:
    filter_ = processor(bootstrap())
    assert filter_["failure_mode_allow"] is False
    assert filter_["status_on_error"] == {"code": "ServiceUnavailable"}
    assert filter_["allow_mode_override"] is False
    assert filter_["route_cache_action"] == "RETAIN"


def test_sidecar_accepts_rendered_body_modes() -> None:
    assert processor(bootstrap())["processing_mode"] == {
        "request_header_mode": "SEND",
        "request_body_mode": "BUFFERED",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
        "response_trailer_mode": "SEND",
    }


@pytest.mark.parametrize(("seconds", "expected"), [(5, "10s"), (0.2, "6s"), (299.5, "305s")])
def test_message_timeout_exceeds_aim_timeout(seconds: float, expected: str) -> None:
    assert processor(bootstrap(aim={"timeout_seconds": seconds}))["message_timeout"] == expected


def test_filter_forwards_attributes_and_metadata() -> None:
    filter_ = processor(bootstrap())
    assert filter_["metadata_options"] == {
        "forwarding_namespaces": {"untyped": ["envoy.filters.http.jwt_authn"]},
        "receiving_namespaces": {"untyped": ["aim"]},
    }
    assert filter_["request_attributes"] == ["request.id", "source.address", "xds.route_name"]


def test_filter_is_last_before_the_router() -> None:
    names = [filter_["name"] for filter_ in manager(bootstrap())["http_filters"]]
    assert names == ["envoy.filters.http.ext_proc", "envoy.filters.http.router"]


def test_envoy_body_limit_exceeds_sidecar_limit() -> None:
    (route,) = routes(bootstrap(limits={"request_bytes": 4_000_000}))
    assert route["request_body_buffer_limit"] == 4_000_000 + 1_048_576


@pytest.mark.parametrize(("limit", "expected"), [(256, 320), (100_000, 100_064), (16, 100)])
def test_envoy_header_limit_exceeds_sidecar_limit(limit: int, expected: int) -> None:
    tree = bootstrap(limits={"headers": limit})
    assert manager(tree)["common_http_protocol_options"] == {"max_headers_count": expected}
    (options,) = clusters(tree)["http-127.0.0.1-8080"]["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"] == {"max_headers_count": expected}


def test_long_and_silent_answers_are_not_cut_off() -> None:
    tree = bootstrap()
    assert manager(tree)["stream_idle_timeout"] == "900s"
    assert [route["route"]["timeout"] for route in routes(tree)] == ["0s"]


def test_paths_are_normalised_before_the_filter() -> None:
    found = manager(bootstrap())
    assert found["normalize_path"] is True
    assert found["merge_slashes"] is True
    assert found["path_with_escaped_slashes_action"] == "KEEP_UNCHANGED"


def test_access_log_holds_verdict_and_no_query() -> None:
    (log,) = manager(bootstrap())["access_log"]
    fields = log["typed_config"]["log_format"]["json_format"]
    assert fields["aim"] == "%DYNAMIC_METADATA(aim)%"
    assert fields["details"] == "%RESPONSE_CODE_DETAILS%"
    assert fields["path"] == "%PATH(NQ)%"


# The sidecar's cluster


def test_cluster_has_http2_keepalive_and_high_circuit_breakers() -> None:
    cluster = sidecar(bootstrap(limits={"streams": 1_000_000}))
    (options,) = cluster["typed_extension_protocol_options"].values()
    http2 = options["explicit_http_config"]["http2_protocol_options"]
    assert http2["connection_keepalive"] == {"interval": "30s", "timeout": "10s"}
    (threshold,) = cluster["circuit_breakers"]["thresholds"]
    assert threshold["max_requests"] == 2_000_000


@pytest.mark.parametrize(
    ("listen", "kind", "expected"),
    [
        ("127.0.0.1:50051", "STATIC", {"socket_address": {"address": "127.0.0.1", "port_value": 50051}}),
        ("0.0.0.0:50051", "STATIC", {"socket_address": {"address": "127.0.0.1", "port_value": 50051}}),
        ("[::]:50051", "STATIC", {"socket_address": {"address": "::1", "port_value": 50051}}),
        ("sidecar:50051", "STRICT_DNS", {"socket_address": {"address": "sidecar", "port_value": 50051}}),
        ("unix:/run/extproc.sock", "STATIC", {"pipe": {"path": "/run/extproc.sock"}}),
    ],
)
def test_cluster_endpoint_is_the_listen_address(listen: str, kind: str, expected: dict[str, Any]) -> None:
    cluster = sidecar(bootstrap(listen=listen))
    assert cluster["type"] == kind
    assert addresses(cluster) == [expected]


def test_every_worker_is_an_endpoint_with_health_check_and_retry() -> None:
    tree = bootstrap(workers=3)
    cluster = sidecar(tree)
    assert [address["socket_address"]["port_value"] for address in addresses(cluster)] == [50051, 50052, 50053]
    assert cluster["lb_policy"] == "LEAST_REQUEST"
    assert cluster["health_checks"][0]["grpc_health_check"] == {}
    assert processor(tree)["grpc_service"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream"


def test_one_worker_has_no_health_check_or_retry() -> None:
    tree = bootstrap()
    assert "health_checks" not in sidecar(tree)
    assert "retry_policy" not in processor(tree)["grpc_service"]


def test_tls_trusts_the_sidecars_own_certificate() -> None:
    cluster = sidecar(bootstrap(tls={"cert_file": "/tls/tls.crt", "key_file": "/tls/tls.key"}))
    common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    assert common == {
        "alpn_protocols": ["h2"],
        "validation_context": {"trusted_ca": {"filename": "/tls/tls.crt"}},
    }


def test_mtls_sends_a_client_certificate() -> None:
    tls = {"cert_file": "/tls/tls.crt", "key_file": "/tls/tls.key", "client_ca_file": "/tls/ca.crt"}
    common = sidecar(bootstrap(tls=tls))["transport_socket"]["typed_config"]["common_tls_context"]
    (certificate,) = common["tls_certificates"]
    assert certificate["private_key"] == {"filename": "/tls/tls.key"}


# Upstreams and routes


def test_longest_prefix_is_first_and_servers_share_clusters() -> None:
    tree = bootstrap("http://a", "/v1/messages=https://b", "/v1=http://a")
    assert [(route["match"]["prefix"], route["route"]["cluster"]) for route in routes(tree)] == [
        ("/v1/messages", "https-b-443"),
        ("/v1", "http-a-80"),
        ("/", "http-a-80"),
    ]
    assert [route["name"] for route in routes(tree)] == ["/v1/messages", "/v1", "/"]
    assert list(clusters(tree)) == ["aim-extproc", "http-a-80", "https-b-443"]


def test_https_upstream_has_verification_sni_and_host_rewrite() -> None:
    tree = bootstrap("https://api.example.com")
    cluster = clusters(tree)["https-api.example.com-443"]
    assert cluster["type"] == "LOGICAL_DNS"
    tls = cluster["transport_socket"]["typed_config"]
    assert tls["sni"] == "api.example.com"
    validation = tls["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"filename": "/etc/ssl/certs/ca-certificates.crt"}
    assert validation["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}]
    assert routes(tree)[0]["route"]["host_rewrite_literal"] == "api.example.com"


def test_https_upstream_by_address_has_no_sni() -> None:
    cluster = clusters(bootstrap("https://[fd00::1]:8443"))["https-fd00__1-8443"]
    assert cluster["type"] == "STATIC"
    tls = cluster["transport_socket"]["typed_config"]
    assert "sni" not in tls
    (name,) = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert name == {"san_type": "IP_ADDRESS", "matcher": {"exact": "fd00::1"}}


def test_http_upstream_keeps_client_host_header() -> None:
    tree = bootstrap("http://models.internal:8000")
    assert clusters(tree)["http-models.internal-8000"]["type"] == "STRICT_DNS"
    assert "host_rewrite_literal" not in routes(tree)[0]["route"]


@pytest.mark.parametrize(
    ("upstream", "rewrite"),
    [
        ("/openai=https://a", None),
        ("/openai=https://a/", None),
        ("/openai=https://a/v1", "/v1"),
        ("/openai/=https://a/v1", "/v1/"),
        ("https://a/base/", "/base/"),
    ],
)
def test_url_path_replaces_the_prefix(upstream: str, rewrite: str | None) -> None:
    assert routes(bootstrap(upstream))[0]["route"].get("prefix_rewrite") == rewrite


NO_UPSTREAMS = [
    *("", "api.example.com", "ftp://a", "http://", "http://a b", "http://a?x=1", "http://a#b", 'http://a"b'),
    *(
        "http://u:p@a",
        "http://a:99999",
        "http://a:0",
        "http://[::1",
        "/v1",
        "/v1=",
        "v1=http://a",
        "/a b=http://a",
        "/a?b=http://a",
    ),
]


@pytest.mark.parametrize("text", NO_UPSTREAMS)
def test_invalid_upstream_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^an upstream.{20,}"):
        Upstream.parse(text)


def test_conflicting_upstreams_are_refused() -> None:
    with pytest.raises(ValueError, match="the prefix /v1 has more than one upstream"):
        render("/v1=http://a", "/v1=http://b")
    with pytest.raises(ValueError, match="at least one upstream"):
        render_envoy(Settings(), listen=Address.parse("127.0.0.1:1"), upstreams=[], admin=None)


# Upgrades


def test_upgrades_are_off_by_default() -> None:
    assert "upgrade" not in render()


def test_upgrades_pass_on_allowed_prefixes_only() -> None:
    tree = bootstrap("http://a", "/v1/realtime/x=http://b", "/o=http://c/v9", allow_upgrades=("/v1/realtime", "/o/ws"))
    (upgrade,) = manager(tree)["upgrade_configs"]
    assert upgrade["enabled"] is False
    assert [filter_["name"] for filter_ in upgrade["filters"]] == ["envoy.filters.http.router"]
    found = [(route["match"]["prefix"], route["route"]) for route in routes(tree)]
    assert [(prefix, route["cluster"], "upgrade_configs" in route) for prefix, route in found] == [
        ("/v1/realtime/x", "http-b-80", True),
        ("/v1/realtime", "http-a-80", True),
        ("/o/ws", "http-c-80", True),
        ("/o", "http-c-80", False),
        ("/", "http-a-80", False),
    ]
    assert dict(found)["/o/ws"]["prefix_rewrite"] == "/v9/ws"
    assert "WARNING" in render(allow_upgrades=("/v1",))


@pytest.mark.parametrize("prefix", ["", "v1", "/v2"])
def test_upgrade_prefix_without_upstream_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="no upstream serves it"):
        render("/v1=http://a", allow_upgrades=(prefix,))


# The YAML


def test_admin_is_off_by_default() -> None:
    text = render_envoy(
        Settings(),
        listen=Address.parse("[::1]:10000"),
        upstreams=[Upstream.parse("http://a")],
        admin=None,
    )
    tree = yaml.safe_load(text)
    assert "admin" not in tree
    assert listener(tree)["address"] == {"socket_address": {"address": "::1", "port_value": 10000}}


def test_misspelt_field_is_an_error_at_any_depth() -> None:
    message = "envoy.config.bootstrap.v3.Bootstrap"
    check({"admin": {}}, message)
    with pytest.raises(KeyError, match="adress"):
        check({"admin": {"adress": {}}}, message)
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    with pytest.raises(KeyError, match="dynamic_status"):
        check({"bootstrap_extensions": [{"typed_config": {"@type": router, "dynamic_status": True}}]}, message)


def test_example_equals_the_rendered_output() -> None:
    text = render_envoy(
        Settings(),
        listen=Address.parse(EXAMPLE_ARGUMENTS["listen"]),
        upstreams=[Upstream.parse(EXAMPLE_ARGUMENTS["upstream"])],
        admin=Address.parse(EXAMPLE_ARGUMENTS["admin"]),
    )
    arguments = " ".join(f"--{name} {value}" for name, value in EXAMPLE_ARGUMENTS.items())
    assert EXAMPLE.read_text() == text, f"regenerate it: extproc render envoy {arguments} > envoy/envoy.yaml"


def test_document_equals_its_tree_and_repeats_no_reason() -> None:
    tree = {
        "plain": "a",
        **because("Why.", quoted="0x1", none=[]),
        "list": [because("Why.", on="yes"), {"x": {"y": [1, "a: b", {}]}}, because("Else.\n  as is:   1", z=0.5)],
    }
    assert dump(tree, header="Top.") == (
        "# Top.\n"
        "plain: a\n"
        "# Why.\n"
        'quoted: "0x1"\n'
        "none: []\n"
        "list:\n"
        '  - "on": "yes"\n'
        "  - x:\n"
        "      y:\n"
        "        - 1\n"
        '        - "a: b"\n'
        "        - {}\n"
        "  # Else.\n"
        "  #   as is:   1\n"
        "  - z: 0.5\n"
    )
    assert yaml.safe_load(dump(tree)) == tree


@pytest.mark.parametrize(
    ("listen", "admin", "upstream", "problem"),
    [
        (
            "0.0.0.0:10000",
            "0.0.0.0:10000",
            "http://m",
            "admin: 0.0.0.0:10000 is the address on which Envoy listens for clients",
        ),
        ("0.0.0.0:10000", "127.0.0.1:10000", "http://m", "admin: 127.0.0.1:10000 is the address"),
        ("127.0.0.1:10000", "0.0.0.0:10000", "http://m", "admin: 0.0.0.0:10000 is the address"),
        ("unix:/run/e", "unix:/run/e", "http://m", "admin: unix:/run/e is the address"),
        (
            "0.0.0.0:10000",
            None,
            "http://localhost:10000",
            "upstream: localhost:10000 is this Envoy's own listener",
        ),
        ("127.0.0.1:10000", None, "/v1=http://127.0.0.1:10000", "upstream: 127.0.0.1:10000 is this"),
        ("[::]:80", None, "http://[::1]", "upstream: [::1] is this"),
        ("127.0.0.1:10000", "127.0.0.1:9901", "http://127.0.0.1:8080", None),
        ("127.0.0.1:10000", "[::1]:10000", "http://[::1]:10000", None),
        ("10.0.0.1:10000", "127.0.0.1:10000", "http://10.0.0.2:10000", None),
        ("127.0.0.1:0", "127.0.0.1:0", "http://m", None),
        ("unix:/run/e", "unix:/run/a", "http://m", None),
    ],
)
def test_admin_and_upstream_must_differ_from_listener(
    listen: str, admin: str | None, upstream: str, problem: str | None
) -> None:
    def rendered() -> str:
        return render_envoy(
            Settings(),
            listen=Address.parse(listen),
            upstreams=[Upstream.parse(upstream)],
            admin=Address.parse(admin) if admin else None,
        )

    if problem is None:
        assert rendered()
    else:
        with pytest.raises(ValueError, match=re.escape(problem)):
            rendered()
