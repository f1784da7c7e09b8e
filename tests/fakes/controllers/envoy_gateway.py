"""What Envoy Gateway generates from `extproc render envoy-gateway`.

From Envoy Gateway 1.9.0 (commit d32f282): `internal/xds/translator/testdata/out/xds-ir/ext-proc-with-traffic-settings`,
`ext-proc-with-retries`, `ext-proc-with-health-check-log` and `http-route-dns-cluster` (.listeners, .clusters, .routes);
`internal/xds/translator/extproc.go`, `jsonpatch.go` and `internal/gatewayapi/backendtlspolicy.go`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from extproc.render.commented import Tree
from tests.fakes.controllers import (
    ANY_PORT,
    FILTERS,
    HTTP_OPTIONS,
    MANAGER,
    Cluster,
    bootstrap,
    by_kind,
    discovered,
    endpoints,
    least_request,
    router,
    tls,
)

_BODIES = {
    "Buffered": "BUFFERED",
    "BufferedPartial": "BUFFERED_PARTIAL",
    "Streamed": "STREAMED",
    "FullDuplexStreamed": "FULL_DUPLEX_STREAMED",
}
_ESCAPED = {"KeepUnchanged": "KEEP_UNCHANGED", "UnescapeAndRedirect": "UNESCAPE_AND_REDIRECT"}
_NAME = "envoyextensionpolicy/default/aim-extproc/extproc/0"
FILTER = f"envoy.filters.http.ext_proc/{_NAME}"


def generated(documents: Sequence[Tree], cluster: Cluster) -> Tree:
    """Return the bootstrap with the listener, routes and clusters for a Gateway `llm` with an HTTPRoute `models`."""
    specs = by_kind(documents)
    client, backend = specs["ClientTrafficPolicy"], specs["BackendTrafficPolicy"]
    (ext_proc,) = specs["EnvoyExtensionPolicy"]["extProc"]
    model = "httproute/default/models/rule/0"
    routes = [
        {
            "name": f"{model}/match/{number}/*",
            "match": {"path_separated_prefix": path} if path != "/" else {"prefix": "/"},
            "route": {
                "cluster": model,
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                **_request_timeout(backend),
            },
            "typed_per_filter_config": {
                FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
            },
        }
        for number, path in enumerate(cluster.paths)
    ]
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http-10080",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "http2_protocol_options": {
            "initial_connection_window_size": 1048576,
            "initial_stream_window_size": 65536,
            "max_concurrent_streams": 100,
        },
        "merge_slashes": not client["path"]["disableMergeSlashes"],
        "normalize_path": True,
        "path_with_escaped_slashes_action": _ESCAPED[client["path"]["escapedSlashesAction"]],
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": True,
        "stream_idle_timeout": client["timeout"]["http"]["streamIdleTimeout"],
        "route_config": {
            "name": "default/llm/http",
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [{"name": "default/llm/http/*", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            {"name": FILTER, "disabled": True, "typed_config": _processor(ext_proc)},
            router(suppress_envoy_headers=not client["headers"]["enableEnvoyHeaders"]),
        ],
    }
    listener = {
        "name": "default/llm/http",
        "address": ANY_PORT,
        "per_connection_buffer_limit_bytes": client["connection"]["bufferLimit"],
        "default_filter_chain": {
            "name": "default/llm/http",
            "filters": [{"name": MANAGER, "typed_config": manager}],
        },
    }
    for patch in specs.get("EnvoyPatchPolicy", {}).get("jsonPatches", ()):
        _patch(listener, manager, patch)
    models = {
        "name": model,
        **_common(backend),
        **discovered(cluster.folder, model, [cluster.model]),
    }
    return bootstrap(listener, [models, _sidecars(specs, ext_proc["backendSettings"], cluster)])


def _request_timeout(policy: Tree) -> Tree:
    timeout = policy.get("timeout", {}).get("http", {}).get("requestTimeout")
    return {"timeout": timeout} if timeout else {}


def _processor(ext_proc: Tree) -> Tree:
    modes = ext_proc["processingMode"]
    request, response = (_BODIES[modes[leg]["body"]] for leg in ("request", "response"))
    settings = ext_proc["backendSettings"]
    return {
        "@type": f"{FILTERS}.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": _NAME, "authority": "aim-extproc.default:50051"},
            "timeout": "10s",
            **({"retry_policy": _retry(settings["retry"])} if "retry" in settings else {}),
        },
        "failure_mode_allow": ext_proc["failOpen"],
        "message_timeout": ext_proc["messageTimeout"],
        "allow_mode_override": modes["allowModeOverride"],
        "status_on_error": {"code": ext_proc["statusOnError"]},
        "request_attributes": modes["request"]["attributes"],
        "metadata_options": {
            "forwarding_namespaces": {"untyped": ext_proc["metadata"]["accessibleNamespaces"]},
            "receiving_namespaces": {"untyped": ext_proc["metadata"]["writableNamespaces"]},
        },
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": request,
            "request_trailer_mode": "SEND" if request == "FULL_DUPLEX_STREAMED" else "SKIP",
            "response_header_mode": "SEND",
            "response_body_mode": response,
            "response_trailer_mode": "SEND" if response == "FULL_DUPLEX_STREAMED" else "SKIP",
        },
    }


def _retry(retry: Tree) -> Tree:
    return {"num_retries": retry["numRetries"], "retry_on": ",".join(retry["retryOn"]["triggers"])}


def _patch(listener: Tree, manager: Tree, patch: Tree) -> None:
    """Apply a patch of an EnvoyPatchPolicy: what replaces a field of a filter that its name finds."""
    assert patch["name"] == listener["name"]
    operation = patch["operation"]
    found = re.fullmatch(r"\.\.http_filters\[\?\(@\.name=='([^']+)'\)\]\.(\w+)", operation["jsonPath"])
    assert found, operation
    assert operation["op"] == "replace"
    (target,) = [each for each in manager["http_filters"] if each["name"] == found[1]]
    assert found[2] in target
    target[found[2]] = operation["value"]


def _common(settings: Tree) -> Tree:
    """Return what a policy's settings make of any cluster."""
    breaker = settings.get("circuitBreaker", {})
    names = {"maxConnections": "max_connections", "maxPendingRequests": "max_pending_requests"}
    names["maxParallelRequests"] = "max_requests"
    limits = {name: breaker[field] for field, name in names.items() if field in breaker}
    return {
        "circuit_breakers": {"thresholds": [{**limits, "max_retries": 1024}]},
        "connect_timeout": settings.get("timeout", {}).get("tcp", {}).get("connectTimeout", "10s"),
        "dns_lookup_family": "V4_PREFERRED",
        "ignore_health_on_host_removal": True,
        "per_connection_buffer_limit_bytes": 32768,
        "common_lb_config": {},
        **least_request(),
    }


def _sidecars(specs: dict[str, Tree], settings: Tree, cluster: Cluster) -> Tree:
    backend = specs.get("Backend")
    if backend is None:
        places = discovered(cluster.folder, _NAME, cluster.sidecars)
    else:
        # The Backend's host names stand for the sidecars' addresses.
        assert all("fqdn" in endpoint for endpoint in backend["endpoints"])
        dns = {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
            "dns_lookup_family": "V4_PREFERRED",
            "dns_refresh_rate": "30s",
            "respect_dns_ttl": True,
        }
        places = {
            "cluster_type": {"name": "envoy.cluster.dns", "typed_config": dns},
            "load_assignment": {"cluster_name": _NAME, "endpoints": [{"lb_endpoints": endpoints(cluster.sidecars)}]},
        }
    http2 = {"initial_connection_window_size": 1048576, "initial_stream_window_size": 65536}
    if "http2" in settings:
        http2["connection_keepalive"] = settings["http2"]["connectionKeepalive"]
    found = {
        "name": _NAME,
        **_common(settings),
        **places,
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
    }
    if "healthCheck" in settings:
        active = settings["healthCheck"]["active"]
        assert active["type"] == "GRPC"
        found["health_checks"] = [
            {
                "interval": active["interval"],
                "timeout": active["timeout"],
                "unhealthy_threshold": active["unhealthyThreshold"],
                "healthy_threshold": active["healthyThreshold"],
                "grpc_health_check": {},
            }
        ]
        found["common_lb_config"] = {"healthy_panic_threshold": {"value": settings["healthCheck"]["panicThreshold"]}}
    if "BackendTLSPolicy" in specs:
        found["transport_socket_matches"] = [_tls(specs["BackendTLSPolicy"]["validation"], backend or {}, cluster)]
        for locality in found.get("load_assignment", {}).get("endpoints", ()):
            for endpoint in locality["lb_endpoints"]:
                endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": {"name": f"{_NAME}/tls/0"}}}
    return found


def _tls(validation: Tree, backend: Tree, cluster: Cluster) -> Tree:
    """Return the TLS of the sidecars. It offers protocols only if a Backend names them."""
    alpn = backend.get("tls", {}).get("alpnProtocols")
    sans = [{"san_type": "DNS", "matcher": {"exact": validation["hostname"]}}]
    context = {
        "sni": validation["hostname"],
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            **({"alpn_protocols": alpn} if alpn else {}),
            "validation_context": {"trusted_ca": {"inline_string": cluster.ca}, "match_typed_subject_alt_names": sans},
        },
    }
    name = f"{_NAME}/tls/0"
    return {"name": name, "match": {"name": name}, "transport_socket": tls(context)}
