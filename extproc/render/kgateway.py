"""`extproc render kgateway`: kgateway's extension and policies for a Gateway that the sidecar guards."""

from __future__ import annotations

from extproc.config.settings import Settings
from extproc.render.cluster import most_requests
from extproc.render.commented import Tree, because
from extproc.render.ext_proc import JWT_NAMESPACE, message_timeout
from extproc.render.listener import STREAM_IDLE
from extproc.render.mesh import (
    NAME,
    Place,
    backend_tls_policy,
    gateway_ref,
    print_resources,
    reference_grants,
    resource,
)
from extproc.render.route import body_limit

GROUP = "gateway.kgateway.dev"
API = f"{GROUP}/v1alpha1"

_NOTES = """\
Needs kgateway 2.2 or newer: an older one drops failOpen and the timeouts without a word. The port of the Service \
needs appProtocol: kubernetes.io/h2c, or Envoy talks HTTP/1.1 to it.
kgateway can neither name a profile for a route nor tell the sidecar the route, so every exchange has the profile \
`default`: where routes need several, run a sidecar for each, print this for each with --service, and let \
TrafficPolicies that target HTTPRoutes name the extensions. Nor can it keep the sidecar's dynamic metadata: the call \
id is in the response header x-aim-call-id."""

_IDENTITY = """\
The sidecar reads the user from x-aim-user-email and the conversation from x-aim-session-id, and removes both. \
Where clients must not name themselves, take their headers away before anything reads them, here, beside the limit:
  httpSettings:
    earlyRequestHeaderModifier:
      remove: [x-aim-user-email, x-aim-session-id]
and name what was verified in the sidecar's profile, as in user_email: ["metadata:NAMESPACE/path"].
"""


def render_kgateway(settings: Settings, place: Place) -> str:
    """Return kgateway's resources, as commented YAML.

    Raises ValueError, with a sentence for the operator, for settings that do not fit.
    """
    namespace = place.namespace
    resources = [
        *([backend_tls_policy(place)] if place.tls else []),
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
            "Every live exchange counts as one request; the default of 1024 would end the rest with 503. What bounds "
            "them is the sidecar's limits.streams, which refuses in the client's dialect.",
            circuitBreakers={"maxConnections": most, "maxPendingRequests": most, "maxRequests": most},
        ),
        **because("Exchanges last as long as their answers.", loadBalancer={"leastRequest": {}}),
    }


def _extension(settings: Settings, place: Place) -> Tree:
    ext_proc = {
        "grpcService": {"backendRef": place.backend_ref(place.only_port(settings))},
        **because(
            "A sidecar that is missing or fails must not open the way to the model. The default is true.",
            failOpen=False,
        ),
        **because(
            "For the buffered request, held while Aim judges it: aim.timeout_seconds and a margin. The default is "
            "200 ms. A full-duplex response knows no timeout here; the sidecar has its own.",
            messageTimeout=message_timeout(settings),
        ),
        "processingMode": {
            "requestHeaderMode": "SEND",
            **because("A prompt is judged, and redacted, as a whole.", requestBodyMode="BUFFERED"),
            **because("No prompt is in them; the body comes without them too.", requestTrailerMode="SKIP"),
            "responseHeaderMode": "SEND",
            **because("An answer is released as Aim verifies it.", responseBodyMode="FULL_DUPLEX_STREAMED"),
            **because("Full duplex demands it.", responseTrailerMode="SEND"),
        },
        **because("Those modes are the guard: nothing may change them.", allowProcessingModeOverride=False),
        **because("The route was picked for what the client sent, and stays.", routeCacheAction="Retain"),
        **because(
            "The claims of a verified JWT, for `metadata:NAMESPACE/path`.",
            metadataOptions={"forwarding": {"untyped": [JWT_NAMESPACE]}},
        ),
    }
    return {"type": "ExtProc", "extProc": ext_proc}


def _traffic(place: Place) -> Tree:
    return {
        "targetRefs": [gateway_ref(place)],
        "extProc": {"extensionRef": {"name": NAME}},
        "timeouts": {
            **because("Envoy's default of 15 s ends live answers.", request="0s"),
            **because("The default of 300 s cuts a model that reasons in silence.", streamIdle=STREAM_IDLE),
        },
    }


def _listener(settings: Settings, place: Place) -> Tree:
    limit = because(
        "limits.request_bytes and 1 MiB, so that the sidecar's 413 comes before Envoy's. It is for each connection: "
        "what clients may make Envoy hold.",
        perConnectionBufferLimitBytes=body_limit(settings),
    )
    return {"targetRefs": [gateway_ref(place)], **because(_IDENTITY, default=limit)}
