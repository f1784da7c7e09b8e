"""`extproc render envoy-gateway`: Envoy Gateway's policies for a Gateway that the sidecar guards."""

from __future__ import annotations

from extproc.config.settings import Settings
from extproc.render.cluster import most_requests
from extproc.render.commented import Tree, because
from extproc.render.ext_proc import JWT_NAMESPACE, METADATA_NAMESPACE, REQUEST_ATTRIBUTES, message_timeout
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

GROUP = "gateway.envoyproxy.io"
API = f"{GROUP}/v1alpha1"

_MOST_BACKENDS = 16

_NOTES = """\
Envoy Gateway cannot name a profile for a route: name the route in the sidecar's settings, as in \
profiles.NAME.routes: ["httproute/NAMESPACE/HTTPROUTE/rule/*"]. It lets websockets through; the sidecar refuses them \
on the paths that it guards. A policy that targets an HTTPRoute takes the place of these there: repeat what it needs."""

_IDENTITY = """\
The sidecar reads the user from x-aim-user-email and the conversation from x-aim-session-id, and removes both. \
Where clients must not name themselves, take their headers away before anything reads them, here:
  headers:
    earlyRequestHeaders:
      remove: [x-aim-user-email, x-aim-session-id]
and name what was verified in the sidecar's profile, as in user_email: ["metadata:NAMESPACE/path"].
"""


def render_envoy_gateway(settings: Settings, place: Place) -> str:
    """Return Envoy Gateway's resources, as commented YAML.

    Raises ValueError, with a sentence for the operator, for settings that do not fit.
    """
    if settings.workers > _MOST_BACKENDS:
        raise ValueError(f"workers: Envoy Gateway takes at most {_MOST_BACKENDS} servers; use replicas")
    namespace = place.namespace
    resources = [
        *([_backend(settings, place)] if place.sidecar else []),
        *([backend_tls_policy(place)] if place.tls else []),
        *reference_grants(place, GROUP, "EnvoyExtensionPolicy"),
        resource(API, "EnvoyExtensionPolicy", _extension(settings, place), namespace=namespace),
        resource(API, "ClientTrafficPolicy", _client_traffic(settings, place), namespace=namespace),
        resource(API, "BackendTrafficPolicy", _backend_traffic(place), namespace=namespace),
    ]
    return print_resources(resources, mesh="envoy-gateway", place=place, settings=settings, notes=_NOTES)


def _backend(settings: Settings, place: Place) -> Tree:
    spec = {"endpoints": [{"unix": {"path": address.path}} for address in place.sockets(settings)]}
    why = (
        "Needs extensionApis.enableBackend: true in Envoy Gateway's own configuration, and the sidecar in Envoy's "
        "pods with a volume for the socket: an EnvoyProxy's provider.kubernetes.envoyDeployment."
    )
    return resource(API, "Backend", spec, namespace=place.namespace, why=why)


def _extension(settings: Settings, place: Place) -> Tree:
    if place.sidecar:
        backends = [{"group": GROUP, "kind": "Backend", "name": NAME}]
    else:
        backends = [place.backend_ref(port) for port in place.ports(settings)]
    ext_proc = {
        "backendRefs": backends,
        "backendSettings": _backend_settings(settings, place),
        **because("A sidecar that is missing or fails must not open the way to the model.", failOpen=False),
        **because("What the client gets then; the default is 500.", statusOnError=503),
        **because(
            "For the buffered request, held while Aim judges it: aim.timeout_seconds and a margin. The default is "
            "200 ms. A full-duplex response knows no timeout here; the sidecar has its own.",
            messageTimeout=message_timeout(settings),
        ),
        "processingMode": {
            "request": {
                **because("A prompt is judged, and redacted, as a whole.", body="Buffered"),
                **because(
                    "For `attribute:NAME` and for profiles by route.",
                    attributes=[*REQUEST_ATTRIBUTES],
                ),
            },
            "response": because(
                "An answer is released as Aim verifies it. Envoy Gateway sends the trailers too, as this demands.",
                body="FullDuplexStreamed",
            ),
            **because("Those modes are the guard: nothing may change them.", allowModeOverride=False),
        },
        "metadata": {
            **because(
                "The claims of a verified JWT, for `metadata:NAMESPACE/path`.",
                accessibleNamespaces=[JWT_NAMESPACE],
            ),
            **because(
                "What the sidecar found, for the access log: %DYNAMIC_METADATA(aim)%.",
                writableNamespaces=[METADATA_NAMESPACE],
            ),
        },
    }
    return {
        "targetRefs": [gateway_ref(place)],
        **because(
            "Envoy Gateway puts it after authentication, but before authorization and rate limiting: requests that "
            "those refuse have been judged by then. EnvoyProxy's filterOrder moves it (name: "
            "envoy.filters.http.ext_proc, after: envoy.filters.http.ratelimit).",
            extProc=[ext_proc],
        ),
    }


def _backend_settings(settings: Settings, place: Place) -> Tree:
    most = most_requests(settings.workers * settings.limits.streams * 2)
    several = not place.sidecar or settings.workers > 1
    return {
        **because(
            "Every live exchange counts as one request; the default of 1024 would end the rest with 503. What bounds "
            "them is the sidecar's limits.streams, which refuses in the client's dialect.",
            circuitBreaker=_circuit_breaker(most),
        ),
        **because(
            "Finds a sidecar that hangs without closing its socket.",
            http2={"connectionKeepalive": {"interval": "30s", "timeout": "10s"}},
        ),
        **(_several() if several else {}),
    }


def _several() -> Tree:
    return {
        **because("Exchanges last as long as their answers.", loadBalancer={"type": "LeastRequest"}),
        **because(
            "A sidecar that drains or died gets no new exchanges.",
            healthCheck={
                "active": {
                    "type": "GRPC",
                    "grpc": {},
                    "interval": "1s",
                    "timeout": "1s",
                    "unhealthyThreshold": 1,
                    "healthyThreshold": 1,
                },
                **because("Where none is healthy, try them all: the check may be late.", panicThreshold=1),
            },
        ),
        **because(
            "Where a sidecar cannot be reached, another one takes the exchange; nothing of it was sent yet.",
            retry={"numRetries": 2, "retryOn": {"triggers": ["connect-failure", "refused-stream"]}},
        ),
    }


def _client_traffic(settings: Settings, place: Place) -> Tree:
    return {
        "targetRefs": [gateway_ref(place)],
        **because(
            "limits.request_bytes and 1 MiB, so that the sidecar's 413 comes before Envoy's. The default of 32 KiB "
            "refuses normal prompts. It is for each connection: what clients may make Envoy hold.",
            connection={"bufferLimit": body_limit(settings)},
        ),
        **because(
            "The sidecar, the routes and the model have to see the same path.",
            path={"disableMergeSlashes": False, "escapedSlashesAction": "UnescapeAndRedirect"},
        ),
        **because(
            "The default of 300 s cuts a model that reasons in silence.",
            timeout={"http": {"streamIdleTimeout": STREAM_IDLE}},
        ),
        **because(_IDENTITY, headers={"enableEnvoyHeaders": False}),
    }


def _backend_traffic(place: Place) -> Tree:
    return {
        "targetRefs": [gateway_ref(place)],
        **because("The default of 15 s ends live answers.", timeout={"http": {"requestTimeout": "0s"}}),
        **because(
            "A streamed answer counts for as long as it lasts; the default is 1024.",
            circuitBreaker=_circuit_breaker(most_requests()),
        ),
    }


def _circuit_breaker(most: int) -> Tree:
    return {"maxConnections": most, "maxPendingRequests": most, "maxParallelRequests": most}
