"""What Istio generates for a gateway, an app's pod and a waypoint, with the patches of `extproc render istio` applied.

From Istio's main branch (1.32, commit 86c9f01): `pilot/pkg/networking/core/listener_builder.go` (connection manager and
filters), `connection_settings.go` (edge profile), `route/retry/retry.go`, `cluster_builder_test.go` (circuit breakers),
`listener_waypoint.go`, and `envoyfilter/` (how patches are applied). Filters that only Istio's own Envoy has are left
out. A waypoint's listener `main_internal` gets its requests from the network here, without the tunnel that
`connect_terminate` ends, and its routes are those of an HTTPRoute, which Istio does not patch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from extproc.render.commented import Tree
from tests.fakes.controllers import ANY_PORT, FILTERS, HTTP_OPTIONS, MANAGER, Cluster, bootstrap, discovered, router

FILTER = "aim.ext_proc"
Context = Literal["GATEWAY", "SIDECAR_OUTBOUND", "SIDECAR_INBOUND"]
_MODEL = "outbound|80||models.default.svc.cluster.local"
_MODEL_OF_WAYPOINT = "inbound-vip|80|http|models.default.svc.cluster.local"
_MOST = 4_294_967_295


def generated(
    documents: Sequence[Tree], cluster: Cluster, *, profile: Literal["", "EDGE"] = "", context: Context = "GATEWAY"
) -> Tree:
    """Return the bootstrap of a gateway's Envoy, of the one beside an app, or of a waypoint.

    They are for an HTTPRoute or Service `models`.
    """
    (document,) = documents
    patches = document["spec"]["configPatches"]
    is_waypoint = context == "SIDECAR_INBOUND"
    name = _MODEL_OF_WAYPOINT if is_waypoint else _MODEL
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
            "route": {"cluster": name, "timeout": "0s", "retry_policy": retry},
        }
        for number, path in enumerate(cluster.paths)
    ]
    manager: Tree = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound_0.0.0.0_80",
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "normalize_path": True,
        "use_remote_address": context == "GATEWAY",
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
        "name": "main_internal" if is_waypoint else "0.0.0.0_80",
        "address": ANY_PORT,
        "traffic_direction": "INBOUND" if is_waypoint else "OUTBOUND",
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
        "name": name,
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
        **discovered(cluster.folder, name, [cluster.model]),
    }
    tree = bootstrap(listener, [model])
    if is_waypoint:
        tree["static_resources"]["listeners"].append(_tunnels())
        tree["static_resources"]["clusters"].append({"name": "main_internal", "type": "STATIC"})
    for patch in patches:
        _apply(tree, [] if is_waypoint else routes, patch)
    _place(tree, cluster)
    if context == "SIDECAR_OUTBOUND":
        black_hole = {"name": "BlackHoleCluster", "type": "STATIC"}
        tree["static_resources"]["clusters"].append(black_hole)
        tree["static_resources"]["listeners"].append(_virtual_outbound())
    return tree


def _apply(tree: Tree, routes: list[Tree], patch: Tree) -> None:
    operation, value = patch["patch"]["operation"], json.loads(json.dumps(patch["patch"]["value"]))
    wanted = patch["match"].get("listener", {}).get("name")
    listeners = [each for each in tree["static_resources"]["listeners"] if wanted in (None, each["name"])]
    managers = [each["filter_chains"][0]["filters"][0]["typed_config"] for each in listeners]
    match (patch["applyTo"], operation):
        case ("CLUSTER", "ADD"):
            tree["static_resources"]["clusters"].insert(0, value)
        case ("HTTP_FILTER", "INSERT_BEFORE"):
            for manager in managers:
                manager["http_filters"].insert(-1, value)
        case ("NETWORK_FILTER", "MERGE"):
            for manager in managers:
                _merge(manager, value["typed_config"])
        case ("LISTENER", "MERGE"):
            for listener in listeners:
                _merge(listener, value)
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


def _tunnels() -> Tree:
    """Return the listener of a waypoint that ends tunnels."""
    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    route = {"match": {"connect_matcher": {}}, "route": {"cluster": "main_internal", "upgrade_configs": [upgrade]}}
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "connect_terminate",
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http2_protocol_options": {"allow_connect": True, "max_concurrent_streams": 100},
        "route_config": {
            "name": "default",
            "virtual_hosts": [{"name": "default", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [router()],
    }
    return {
        "name": "connect_terminate",
        "address": ANY_PORT,
        "filter_chains": [{"name": "default", "filters": [{"name": MANAGER, "typed_config": manager}]}],
    }


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
