"""`extproc render istio`: an EnvoyFilter that adds the sidecar to Istio's own Envoys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.cluster import SIDECAR, processor_cluster, request_headers
from extproc.render.commented import Tree, because
from extproc.render.ext_proc import processor, profile_of_route
from extproc.render.listener import IDENTITY, MANAGER_TYPE, SAME_PATHS, STREAM_IDLE
from extproc.render.mesh import Place, gateway_ref, print_resources, resource
from extproc.render.route import body_limit
from extproc.render.schema import check

Context = Literal["gateway", "outbound", "inbound", "waypoint"]

FILTER = "aim.ext_proc"
"""The name of the HTTP filter."""

GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
"""The label that Istio puts on the pods of a Gateway."""

# Istio patches a waypoint as it patches what a sidecar receives.
_CONTEXTS = {
    "gateway": "GATEWAY",
    "outbound": "SIDECAR_OUTBOUND",
    "inbound": "SIDECAR_INBOUND",
    "waypoint": "SIDECAR_INBOUND",
}
_MANAGER = "envoy.filters.network.http_connection_manager"

_WAYPOINT_LISTENER = "main_internal"
"""The listener of a waypoint that has the services' requests, taken out of the tunnel in which they arrive."""

_NOTES = """\
Needs Istio 1.30 or newer. It has no effect on a gateway of the class istio-agentgateway, which has no \
Envoy: use `extproc render agentgateway` there. Istio allows websockets; the sidecar refuses them on guarded \
paths. Istio sets no route timeout by default: keep it off (0s), otherwise it cuts off longer answers."""

_OUTBOUND = """\
This changes every HTTP listener of the pods' outbound traffic, not only what goes to models: all of it waits for the \
sidecar, may be silent for 900 s, and may have requests as large as limits.request_bytes. Set unmatched: pass in the \
profile, otherwise the sidecar inspects all JSON that the app sends. Traffic that the app encrypts itself (https) is \
not seen at all: let it use http, and a ServiceEntry with TLS origination."""

_WAYPOINT = """\
For ambient mode: the waypoint's name is --gateway. Only traffic to services that use this waypoint \
(istio.io/use-waypoint) passes the sidecar; ztunnel alone has no HTTP filters."""

_SHARED = """\
The sidecar and istio-proxy share the socket in a volume. Annotate the pod:
  sidecar.istio.io/userVolume: '[{{"name":"aim-extproc","emptyDir":{{}}}}]'
  sidecar.istio.io/userVolumeMount: '[{{"name":"aim-extproc","mountPath":"{folder}"}}]'"""

_SHARED_BY_GATEWAY = """\
The sidecar and istio-proxy share the socket in a volume: an emptyDir at {folder} in both containers. Add it to the \
gateway's Deployment (for a Gateway, in the ConfigMap that its infrastructure.parametersRef names)."""


def render_istio(
    settings: Settings,
    place: Place,
    *,
    context: Context = "gateway",
    labels: Mapping[str, str] | None = None,
    profile: str = "",
    routes: Mapping[str, str] | None = None,
) -> str:
    """Return the EnvoyFilter, as commented YAML, for the pods with `labels`, by default the gateway's.

    `routes` maps names of Envoy's routes to profiles; `profile` is for all others. Raises ValueError, with a sentence
    for the operator, if the settings do not fit.
    """
    if context == "waypoint" and labels:
        raise ValueError("selector: Istio ignores it for a waypoint; name the waypoint with --gateway")
    if context in ("outbound", "inbound") and not labels:
        raise ValueError(f"selector: --context {context} is for an app's pods; name them: --selector app=NAME")
    where = {"context": _CONTEXTS[context]}
    listener = {}
    if context == "waypoint":
        listener = because("Not connect_terminate, which only ends tunnels.", name=_WAYPOINT_LISTENER)
    patches = [
        _cluster_patch(settings, place, where),
        _filter_patch(settings, place, where, listener, profile),
        _manager_patch(settings, where, listener, context),
        _limit_patch(settings, where),
        *([_listener_patch(settings, where, listener)] if context == "waypoint" else []),
        *(_profile_patch(where, route, named) for route, named in (routes or {}).items()),
    ]
    if context == "waypoint":
        target = because("A waypoint ignores an EnvoyFilter that has a selector.", targetRefs=[gateway_ref(place)])
    else:
        target = {"workloadSelector": {"labels": dict(labels or {GATEWAY_LABEL: place.gateway})}}
    spec = {
        **target,
        **because("After other EnvoyFilters, so that this filter comes last.", priority=10),
        "configPatches": patches,
    }
    notes = "\n".join([_NOTES, *({"outbound": [_OUTBOUND], "waypoint": [_WAYPOINT]}.get(context, []))])
    if place.sidecar:
        folder = place.sockets(settings)[0].path.rpartition("/")[0] or "/"
        shared = _SHARED_BY_GATEWAY if context in ("gateway", "waypoint") else _SHARED
        notes = f"{notes}\n{shared.format(folder=folder)}"
    filter_ = resource("networking.istio.io/v1alpha3", "EnvoyFilter", spec, namespace=place.namespace)
    return print_resources([filter_], mesh="istio", place=place, settings=settings, notes=notes)


def _cluster_patch(settings: Settings, place: Place, where: Tree) -> Tree:
    if place.sidecar:
        addresses: Sequence[Address] = place.sockets(settings)
        cluster = processor_cluster(settings, addresses, balanced=len(addresses) > 1)
    else:
        # Our own cluster, not Istio's, which could lose these fields.
        host = f"{place.hostname}.cluster.local"
        addresses = [Address(host=host, port=port) for port in place.ports(settings)]
        cluster = processor_cluster(settings, addresses, balanced=True, tls=_tls(place) if place.tls else None)
    check(cluster, "envoy.config.cluster.v3.Cluster")
    return _patch("CLUSTER", dict(where), "ADD", cluster)


def _tls(place: Place) -> Tree:
    secret = {"name": f"kubernetes://{place.ca}-cacert", "sds_config": {"ads": {}, "resource_api_version": "V3"}}
    names = {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": place.hostname}}]}
    return {
        "sni": place.hostname,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "combined_validation_context": {
                **because(
                    "Without this Envoy would accept any certificate of the CA.", default_validation_context=names
                ),
                **because(
                    f"The Secret {place.ca} in the namespace of these pods. Its key ca.crt holds the CA of the "
                    "sidecar's certificate. The pods' service account must be allowed to list Secrets; a gateway's is.",
                    validation_context_sds_secret_config=secret,
                ),
            },
        },
    }


def _filter_patch(settings: Settings, place: Place, where: Tree, listener: Tree, profile: str) -> Tree:
    filter_ = {
        **because("A name of its own, because an InferencePool adds another ext_proc filter.", name=FILTER),
        "typed_config": processor(settings, SIDECAR, replicas=not place.sidecar, profile=profile),
    }
    check(filter_, "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter")
    router = {"name": _MANAGER, "subFilter": {"name": "envoy.filters.http.router"}}
    match = {**where, **because("Last before the router.", listener={**listener, "filterChain": {"filter": router}})}
    return _patch("HTTP_FILTER", match, "INSERT_BEFORE", filter_)


def _manager_patch(settings: Settings, where: Tree, listener: Tree, context: Context) -> Tree:
    # What an app sends elsewhere has to arrive as it was sent; the sidecar decodes paths itself.
    paths = {} if context == "outbound" else SAME_PATHS
    manager = {
        "name": _MANAGER,
        "typed_config": {
            "@type": MANAGER_TYPE,
            **paths,
            **because(
                "The 300 s of Istio's edge profile cut off a model that reasons without output.",
                stream_idle_timeout=STREAM_IDLE,
            ),
            **because(IDENTITY, common_http_protocol_options=request_headers(settings)),
        },
    }
    check(manager, "envoy.config.listener.v3.Filter")
    match = {**where, "listener": {**listener, "filterChain": {"filter": {"name": _MANAGER}}}}
    return _patch("NETWORK_FILTER", match, "MERGE", manager)


def _limit_patch(settings: Settings, where: Tree) -> Tree:
    value = because(
        "limits.request_bytes + 1 MiB, so that the sidecar's 413 comes before Envoy's. It overrides the listener's "
        "limit, which is 32 KiB in Istio's edge profile and refuses normal prompts.",
        request_body_buffer_limit=body_limit(settings),
    )
    check(value, "envoy.config.route.v3.Route")
    match = {**where, "routeConfiguration": {"vhost": {"route": {"action": "ROUTE"}}}}
    return _patch("HTTP_ROUTE", match, "MERGE", value)


def _listener_patch(settings: Settings, where: Tree, listener: Tree) -> Tree:
    value = because(
        "The same for routes that Istio makes from an HTTPRoute: it does not patch those of a waypoint.",
        per_connection_buffer_limit_bytes=body_limit(settings),
    )
    check(value, "envoy.config.listener.v3.Listener")
    return _patch("LISTENER", {**where, "listener": dict(listener)}, "MERGE", value)


def _profile_patch(where: Tree, route: str, profile: str) -> Tree:
    value = {"typed_per_filter_config": {FILTER: profile_of_route(profile)}}
    check(value, "envoy.config.route.v3.Route")
    named = because(
        "Envoy's name of the route: the name of a VirtualService's http entry or of an HTTPRoute's rule, else "
        "NAMESPACE.HTTPROUTE.INDEX, where the index of the rule begins with 0.",
        name=route,
    )
    match = {**where, "routeConfiguration": {"vhost": {"route": named}}}
    return _patch("HTTP_ROUTE", match, "MERGE", value)


def _patch(apply_to: str, match: Tree, operation: str, value: Tree) -> Tree:
    return {"applyTo": apply_to, "match": match, "patch": {"operation": operation, "value": value}}
