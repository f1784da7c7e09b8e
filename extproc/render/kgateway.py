"""`extproc render kgateway`: kgateway's extension and policies for a Gateway that the sidecar guards."""

from __future__ import annotations

from extproc.config.settings import Settings
from extproc.render.cluster import most_requests
from extproc.render.commented import Tree, because
from extproc.render.ext_proc import JWT_NAMESPACE, REQUEST_ATTRIBUTES, message_timeout
from extproc.render.listener import STREAM_IDLE
from extproc.render.mesh import (
    NAME,
    Place,
    gateway_ref,
    print_resources,
    reference_grants,
    resource,
)
from extproc.render.route import body_limit

GROUP = "gateway.kgateway.dev"
API = f"{GROUP}/v1alpha1"

_NOTES = """\
Needs kgateway 2.2 or newer: older versions silently drop failOpen and the timeouts. The port of the Service needs \
appProtocol: kubernetes.io/h2c; otherwise Envoy uses HTTP/1.1.
Profiles by route: profiles.NAME.routes: ["*-httproute-HTTPROUTE-NAMESPACE-*"]. requestAttributes is printed if your \
settings need it; releases up to 2.3 do not have it. There, run a sidecar for each profile, print these resources for \
each with --service, and select the extension with TrafficPolicies that target HTTPRoutes. \
kgateway does not keep the sidecar's dynamic metadata: find the call id in the response header x-aim-call-id."""

_IDENTITY = """\
The sidecar reads the user from x-aim-user-email and the conversation from x-aim-session-id, and removes both. \
To keep clients from setting their own identity, remove their headers before any filter reads them. Add this beside \
the limit:
  httpSettings:
    earlyRequestHeaderModifier:
      remove: [x-aim-user-email, x-aim-session-id]
and use a verified identity in the sidecar's profile, such as user_email: ["metadata:NAMESPACE/path"].
"""


def render_kgateway(settings: Settings, place: Place) -> str:
    """Return kgateway's resources, as commented YAML.

    Raises ValueError, with a sentence for the operator, if the settings do not fit.
    """
    namespace = place.namespace
    resources = [
        *reference_grants(place, GROUP, "GatewayExtension"),
        resource(API, "BackendConfigPolicy", _backend_config(settings, place), namespace=place.service_namespace),
        resource(API, "GatewayExtension", _extension(settings, place), namespace=namespace),
        resource(API, "TrafficPolicy", _traffic(place), namespace=namespace),
        resource(API, "ListenerPolicy", _listener(settings, place), namespace=namespace),
    ]
    return print_resources(resources, mesh="kgateway", place=place, settings=settings, notes=_NOTES)


def _backend_config(settings: Settings, place: Place) -> Tree:
    most = most_requests(settings.limits.streams * 2)
    return {
        "targetRefs": [{"group": "", "kind": "Service", "name": place.service_name}],
        **because(
            "Every live exchange counts as one request; with the default of 1024 the others would get 503. The "
            "sidecar's limits.streams bounds them instead, and refuses in the shape of the client's API.",
            circuitBreakers={"maxConnections": most, "maxPendingRequests": most, "maxRequests": most},
        ),
        **because(
            "Exchanges last as long as their answers, so round robin would load servers unevenly.",
            loadBalancer={
                "leastRequest": {},
                **because("If no sidecar is healthy, try them all: the check may be late.", healthyPanicThreshold=1),
            },
        ),
        **because("A sidecar whose machine is gone; the default is 5 s.", connectTimeout="1s"),
        **because(
            "A sidecar that is draining or dead gets no new exchanges.",
            healthCheck={
                "interval": "1s",
                "timeout": "1s",
                "unhealthyThreshold": 1,
                "healthyThreshold": 1,
                "grpc": {},
            },
        ),
        **(_tls(place) if place.tls else {}),
    }


def _tls(place: Place) -> Tree:
    return because(
        "Not a BackendTLSPolicy: it would replace these fields, and Envoy's health checks would offer no HTTP/2, so "
        "the sidecar would refuse each of them.",
        tls={
            **because(
                "A Secret in the Service's namespace. Its key ca.crt holds the CA of the Service's certificate.",
                secretRef={"name": place.ca},
            ),
            "sni": place.hostname,
            **because(
                "The sidecar's certificate (tls.cert_file) has to be for this name.",
                verifySubjectAltNames=[place.hostname],
            ),
            **because("gRPC is HTTP/2.", alpnProtocols=["h2"]),
        },
    )


def _needs_attributes(settings: Settings) -> bool:
    """Return whether a profile reads an attribute of Envoy's: the route's name, or one that identifies the user."""
    return any(
        profile.routes
        or any(source.kind == "attribute" for source in (*profile.user_email, *profile.session_id, *profile.key_alias))
        for profile in settings.profiles.values()
    )


def _extension(settings: Settings, place: Place) -> Tree:
    ext_proc = {
        "grpcService": {"backendRef": place.backend_ref(place.only_port(settings))},
        **because(
            "Fail closed: without the sidecar no request reaches the model. The default is true.",
            failOpen=False,
        ),
        **because(
            "How long Envoy holds a buffered request while Aim judges it: aim.timeout_seconds plus a margin. The "
            "default is 200 ms. Full-duplex responses have no timeout here; the sidecar has its own.",
            messageTimeout=message_timeout(settings),
        ),
        "processingMode": {
            "requestHeaderMode": "SEND",
            **because("Aim judges, and redacts, a prompt as a whole.", requestBodyMode="BUFFERED"),
            **because("Trailers hold no prompt, and the body arrives without them too.", requestTrailerMode="SKIP"),
            "responseHeaderMode": "SEND",
            **because("The sidecar releases an answer as Aim verifies it.", responseBodyMode="FULL_DUPLEX_STREAMED"),
            **because("Full duplex requires it.", responseTrailerMode="SEND"),
        },
        **because("Other modes would bypass the sidecar: nothing may change them.", allowProcessingModeOverride=False),
        **because("Keep the route that Envoy chose for the original request.", routeCacheAction="Retain"),
        **because(
            "The claims of a verified JWT, for settings of the form `metadata:NAMESPACE/path`.",
            metadataOptions={"forwarding": {"untyped": [JWT_NAMESPACE]}},
        ),
    }
    if _needs_attributes(settings):
        ext_proc |= because(
            "For settings of the form `attribute:NAME`, and for profiles by route.",
            requestAttributes=[*REQUEST_ATTRIBUTES],
        )
    return {"extProc": ext_proc}


def _traffic(place: Place) -> Tree:
    return {
        "targetRefs": [gateway_ref(place)],
        "extProc": {"extensionRef": {"name": NAME}},
        "timeouts": {
            **because("Envoy's default of 15 s cuts off longer answers.", request="0s"),
            **because("The default of 300 s cuts off a model that reasons without output.", streamIdle=STREAM_IDLE),
        },
    }


def _listener(settings: Settings, place: Place) -> Tree:
    limit = because(
        "limits.request_bytes + 1 MiB, so that the sidecar's 413 comes before Envoy's. It bounds Envoy's memory for "
        "each connection.",
        perConnectionBufferLimitBytes=body_limit(settings),
    )
    return {"targetRefs": [gateway_ref(place)], **because(_IDENTITY, default=limit)}
