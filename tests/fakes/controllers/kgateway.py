"""What kgateway generates from `extproc render kgateway`.

From kgateway's main branch: `pkg/kgateway/translator/gateway/testutils/outputs/traffic-policy/extproc.yaml` and
`extproc-full-config.yaml` (commit 157a7cb and later), `timeout-gateway.yaml`, `backendconfigpolicy/healthcheck.yaml`,
`simple-tls.yaml`, `backendtlspolicy/tls.yaml`; `pkg/kgateway/extensions2/plugins/backendconfigpolicy/tls.go`.
"""

from __future__ import annotations

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
    router,
    tls,
)

FILTER = "ext_proc/default/aim-extproc"
OFF = "global_disable/ext_proc"
_OFF_NAMESPACE = "dev.kgateway.disable_ext_proc"
_SIDECARS = "kube_default_aim-extproc_50051"
_MODEL = "kube_default_models_80"


def generated(documents: Sequence[Tree], cluster: Cluster) -> Tree:
    """Return the bootstrap with the listener, routes and clusters for a Gateway `llm` with an HTTPRoute `models`."""
    specs = by_kind(documents)
    traffic, listening = specs["TrafficPolicy"], specs["ListenerPolicy"]["default"]
    routes = [
        {
            "name": f"listener~8080~*-route-{number}-httproute-models-default-{number}-0-matcher-0",
            "match": {"path_separated_prefix": path} if path != "/" else {"prefix": "/"},
            "route": {
                "cluster": _MODEL,
                "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
                "timeout": traffic["timeouts"]["request"],
                "idle_timeout": traffic["timeouts"]["streamIdle"],
            },
        }
        for number, path in enumerate(cluster.paths)
    ]
    per_route = {"@type": f"{FILTERS}.http.ext_proc.v3.ExtProcPerRoute", "overrides": {}}
    off = {
        "@type": f"{FILTERS}.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": _OFF_NAMESPACE, "value": {"disable": True}}],
    }
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "listener~8080",
        "merge_slashes": True,
        "normalize_path": True,
        "use_remote_address": True,
        "route_config": {
            "name": "listener~8080",
            "ignore_port_in_host_matching": True,
            "typed_per_filter_config": {FILTER: per_route},
            "virtual_hosts": [{"name": "listener~8080~*", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            {"name": OFF, "disabled": True, "typed_config": off},
            {
                "name": FILTER,
                "disabled": True,
                "typed_config": _unless_off(_processor(specs["GatewayExtension"]["extProc"])),
            },
            router(),
        ],
    }
    listener = {
        "name": "listener~8080",
        "address": ANY_PORT,
        "per_connection_buffer_limit_bytes": listening["perConnectionBufferLimitBytes"],
        "filter_chains": [{"name": "listener~8080", "filters": [{"name": MANAGER, "typed_config": manager}]}],
    }
    # The model's Service has a BackendConfigPolicy of its own, as the documentation says.
    model = {
        "name": _MODEL,
        "connect_timeout": "5s",
        "ignore_health_on_host_removal": True,
        "circuit_breakers": {"thresholds": [{"max_requests": 1_000_000}]},
        **discovered(cluster.folder, _MODEL, [cluster.model]),
    }
    return bootstrap(listener, [_sidecars(specs["BackendConfigPolicy"], cluster), model])


def _unless_off(config: Tree) -> Tree:
    """Wrap a filter in the matcher by which a policy turns it off: it runs unless the metadata says otherwise."""
    given = {
        "@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        "filter": _OFF_NAMESPACE,
        "path": [{"key": "disable"}],
    }
    compared = {
        "@type": "type.googleapis.com/envoy.extensions.matching.input_matchers.metadata.v3.Metadata",
        "invert": True,
        "value": {"bool_match": True},
    }
    predicate = {
        "single_predicate": {
            "input": {"name": "disable", "typed_config": given},
            "custom_match": {"name": "envoy.matching.matchers.metadata_matcher", "typed_config": compared},
        }
    }
    run = {
        "@type": f"{FILTERS}.http.composite.v3.ExecuteFilterAction",
        "typed_config": {"name": "envoy.filters.http.ext_proc", "typed_config": config},
    }
    matcher = {"predicate": predicate, "on_match": {"action": {"name": "composite-action", "typed_config": run}}}
    return {
        "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {
            "name": "composite_ext_proc",
            "typed_config": {"@type": f"{FILTERS}.http.composite.v3.Composite"},
        },
        "xds_matcher": {"matcher_list": {"matchers": [matcher]}},
    }


def _processor(ext_proc: Tree) -> Tree:
    names = {
        "requestHeaderMode": "request_header_mode",
        "requestBodyMode": "request_body_mode",
        "requestTrailerMode": "request_trailer_mode",
        "responseHeaderMode": "response_header_mode",
        "responseBodyMode": "response_body_mode",
        "responseTrailerMode": "response_trailer_mode",
    }
    attributes = ext_proc.get("requestAttributes")
    return {
        "@type": f"{FILTERS}.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": _SIDECARS}},
        "failure_mode_allow": ext_proc["failOpen"],
        "message_timeout": ext_proc["messageTimeout"],
        "allow_mode_override": ext_proc["allowProcessingModeOverride"],
        "route_cache_action": ext_proc["routeCacheAction"].upper(),
        "metadata_options": {"forwarding_namespaces": ext_proc["metadataOptions"]["forwarding"]},
        "processing_mode": {name: ext_proc["processingMode"][field] for field, name in names.items()},
        **({"request_attributes": attributes} if attributes else {}),
    }


def _sidecars(policy: Tree, cluster: Cluster) -> Tree:
    breakers = policy["circuitBreakers"]
    check = policy["healthCheck"]
    assert "leastRequest" in policy["loadBalancer"]
    found = {
        "name": _SIDECARS,
        "connect_timeout": policy["connectTimeout"],
        "ignore_health_on_host_removal": True,
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": policy["loadBalancer"]["healthyPanicThreshold"]}},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": breakers["maxConnections"],
                    "max_pending_requests": breakers["maxPendingRequests"],
                    "max_requests": breakers["maxRequests"],
                }
            ]
        },
        "health_checks": [
            {
                "interval": check["interval"],
                "timeout": check["timeout"],
                "unhealthy_threshold": check["unhealthyThreshold"],
                "healthy_threshold": check["healthyThreshold"],
                "grpc_health_check": check["grpc"],
            }
        ],
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        **discovered(cluster.folder, _SIDECARS, cluster.sidecars),
    }
    if "tls" in policy:
        sans = [{"san_type": "DNS", "matcher": {"exact": name}} for name in policy["tls"]["verifySubjectAltNames"]]
        alpn = policy["tls"].get("alpnProtocols")
        common = {
            **({"alpn_protocols": alpn} if alpn else {}),
            "validation_context": {"trusted_ca": {"inline_string": cluster.ca}, "match_typed_subject_alt_names": sans},
        }
        found["transport_socket"] = tls({"sni": policy["tls"]["sni"], "common_tls_context": common})
    return found
