"""What Istio generates for a gateway and for an app's pod, with the patches of `extproc render istio` applied.

From Istio's main branch (1.32, commit 86c9f01): `pilot/pkg/networking/core/listener_builder.go` (connection manager and
filters), `connection_settings.go` (edge profile), `route/retry/retry.go`, `cluster_builder_test.go` (circuit breakers),
and `envoyfilter/` (how patches are applied). Filters that only Istio's own Envoy has are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from extproc.render.commented import Tree
from tests.fakes.controllers import ANY_PORT, FILTERS, HTTP_OPTIONS, MANAGER, Cluster, bootstrap, discovered, router

FILTER = "aim.ext_proc"
_MODEL = "outbound|80||models.default.svc.cluster.local"
_MOST = 4_294_967_295


def generated(
    documents: Sequence[Tree], cluster: Cluster, *, profile: Literal["", "EDGE"] = "", outbound: bool = False
) -> Tree:
    """Return the bootstrap of a gateway's Envoy, or of the one beside an app, for an HTTPRoute or Service `models`."""
    (document,) = documents
    patches = document["spec"]["configPatches"]
    context = "SIDECAR_OUTBOUND" if outbound else "GATEWAY"
    assert {patch["match"]["context"] for patch in patches} == {context}
    previous_hosts = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    retry = {
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": previous_hosts}}
        ],
    }
    routes = [
        {
            "name": f"default.models.{number}",
            "match": {"prefix": path},
            "route": {"cluster": _MODEL, "timeout": "0s", "retry_policy": retry},
        }
        for number, path in enumerate(cluster.paths)
    ]
    manager: Tree = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound_0.0.0.0_80",
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "normalize_path": True,
        "use_remote_address": not outbound,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "route_config": {
            "name": "80",
            "virtual_hosts": [{"name": "*:80", "domains": ["*"], "routes": routes}],
            "validate_clusters": False,
        },
        "http_filters": [
            {
                "name": "istio_grpc_stats",
                "typed_config": {"@type": f"{FILTERS}.http.grpc_stats.v3.FilterConfig", "emit_filter_state": True},
            },
            {
                "name": "envoy.filters.http.fault",
                "typed_config": {"@type": f"{FILTERS}.http.fault.v3.HTTPFault"},
            },
            {"name": "envoy.filters.http.cors", "typed_config": {"@type": f"{FILTERS}.http.cors.v3.Cors"}},
            router(),
        ],
    }
    listener: Tree = {
        "name": "0.0.0.0_80",
        "address": ANY_PORT,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": manager}]}],
    }
    if profile == "EDGE":
        manager |= {
            "merge_slashes": True,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
            "stream_idle_timeout": "300s",
            "common_http_protocol_options": {
                "headers_with_underscores_action": "REJECT_REQUEST",
                "idle_timeout": "3600s",
            },
        }
        listener["per_connection_buffer_limit_bytes"] = 32768
    model = {
        "name": _MODEL,
        "connect_timeout": "10s",
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _MOST,
                    "max_pending_requests": _MOST,
                    "max_requests": _MOST,
                    "max_retries": _MOST,
                }
            ]
        },
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            }
        },
        **discovered(cluster.folder, _MODEL, [cluster.model]),
    }
    tree = bootstrap(listener, [model])
    for patch in patches:
        _apply(tree, manager, routes, patch)
    _place(tree, cluster)
    if outbound:
        black_hole = {"name": "BlackHoleCluster", "type": "STATIC"}
        tree["static_resources"]["clusters"].append(black_hole)
        tree["static_resources"]["listeners"].append(_virtual_outbound())
    return tree


def _apply(tree: Tree, manager: Tree, routes: list[Tree], patch: Tree) -> None:
    operation, value = patch["patch"]["operation"], json.loads(json.dumps(patch["patch"]["value"]))
    match (patch["applyTo"], operation):
        case ("CLUSTER", "ADD"):
            tree["static_resources"]["clusters"].insert(0, value)
        case ("HTTP_FILTER", "INSERT_BEFORE"):
            manager["http_filters"].insert(-1, value)
        case ("NETWORK_FILTER", "MERGE"):
            _merge(manager, value["typed_config"])
        case ("HTTP_ROUTE", "MERGE"):
            for route in routes:
                named = patch["match"]["routeConfiguration"]["vhost"]["route"].get("name", route["name"])
                if named == route["name"]:
                    _merge(route, value)
        case other:
            raise AssertionError(other)


def _merge(target: Tree, value: Any) -> None:
    for name, item in value.items():
        if isinstance(item, dict) and isinstance(target.get(name), dict):
            _merge(target[name], item)
        else:
            target[name] = item


def _place(tree: Tree, cluster: Cluster) -> None:
    """Let the sidecars' cluster use the sidecars of this machine and their CA, for its name and its secret."""
    ours = tree["static_resources"]["clusters"][0]
    assert ours["name"] == "aim-extproc"
    (places,) = ours["load_assignment"]["endpoints"]
    address = {"address": "127.0.0.1"}
    places["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {**address, "port_value": port}}}} for port in cluster.sidecars
    ]
    if "transport_socket" in ours:
        common = ours["transport_socket"]["typed_config"]["common_tls_context"]
        combined = common.pop("combined_validation_context")
        trusted = {"trusted_ca": {"inline_string": cluster.ca}}
        common["validation_context"] = {**combined["default_validation_context"], **trusted}


def _virtual_outbound() -> Tree:
    proxy = {
        "@type": f"{FILTERS}.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "BlackHoleCluster",
        "cluster": "BlackHoleCluster",
    }
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    return {
        "name": "virtualOutbound",
        "address": ANY_PORT,
        "traffic_direction": "OUTBOUND",
        "use_original_dst": True,
        "filter_chains": [chain],
    }
