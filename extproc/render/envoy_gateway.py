"""`extproc render envoy-gateway`: Envoy Gateway's policies for a Gateway that the sidecar guards."""

from __future__ import annotations

import re
from collections.abc import Sequence

from extproc.config.settings import Settings
from extproc.render.cluster import most_requests
from extproc.render.commented import Tree, because
from extproc.render.ext_proc import JWT_NAMESPACE, METADATA_NAMESPACE, REQUEST_ATTRIBUTES, message_timeout
from extproc.render.listener import ESCAPED_SLASHES, STREAM_IDLE
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
_LISTENER = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

FILTER = "aim.ext_proc"
"""The name of the HTTP filter in front of Envoy AI Gateway's."""

_LISTENER_TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"
_BACKEND = {"group": GROUP, "kind": "Backend", "name": NAME}

_NOTES = """\
Needs Envoy Gateway 1.9 or newer: older releases lack statusOnError. \
Envoy Gateway cannot select a profile for a route. Name the route in the sidecar's settings instead: \
profiles.NAME.routes: ["httproute/NAMESPACE/HTTPROUTE/rule/*"]. Such a name contains the number of the rule: a pattern \
for one rule (rule/0/*) means another one as soon as the rules are reordered. Envoy Gateway allows websockets; the \
sidecar refuses them on guarded paths. A policy that targets an HTTPRoute replaces these policies there: repeat the \
fields that it needs."""

_ENABLE_BACKEND = "Needs extensionApis.enableBackend: true in Envoy Gateway's own configuration."

_IDENTITY = """\
The sidecar reads the user from x-aim-user-email and the conversation from x-aim-session-id, and removes both. \
To keep clients from setting their own identity, remove their headers here, before any filter reads them:
  headers:
    earlyRequestHeaders:
      remove: [x-aim-user-email, x-aim-session-id]
and use a verified identity in the sidecar's profile, such as user_email: ["metadata:NAMESPACE/path"].
"""


def render_envoy_gateway(settings: Settings, place: Place, *, ai_gateway: Sequence[str] = ()) -> str:
    """Return Envoy Gateway's resources, as commented YAML.

    `ai_gateway` names the listeners of the Gateway if Envoy AI Gateway runs there. Raises ValueError, with a sentence
    for the operator, if the settings do not fit.
    """
    if settings.workers > _MOST_BACKENDS:
        raise ValueError(f"workers: Envoy Gateway accepts at most {_MOST_BACKENDS} servers; use replicas")
    for listener in ai_gateway:
        if not _LISTENER.fullmatch(listener):
            raise ValueError(f"ai-gateway: {listener!r} is not the name of a Gateway's listener")
    namespace = place.namespace
    has_backend = place.sidecar or place.tls
    resources = [
        *([_backend(settings, place)] if has_backend else []),
        *([backend_tls_policy(place, _BACKEND)] if place.tls else []),
        *reference_grants(place, GROUP, "EnvoyExtensionPolicy", _BACKEND if has_backend else None),
        resource(API, "EnvoyExtensionPolicy", _extension(settings, place), namespace=namespace),
        resource(API, "ClientTrafficPolicy", _client_traffic(settings, place), namespace=namespace),
        resource(API, "BackendTrafficPolicy", _backend_traffic(place), namespace=namespace),
        *([_patch(place, ai_gateway)] if ai_gateway else []),
    ]
    return print_resources(resources, mesh="envoy-gateway", place=place, settings=settings, notes=_NOTES)


def _backend(settings: Settings, place: Place) -> Tree:
    if place.sidecar:
        spec: Tree = {"endpoints": [{"unix": {"path": address.path}} for address in place.sockets(settings)]}
        why = (
            f"{_ENABLE_BACKEND} The sidecar has to run in Envoy's pods, with a volume for the socket: see "
            "provider.kubernetes.envoyDeployment of an EnvoyProxy."
        )
        return resource(API, "Backend", spec, namespace=place.namespace, why=why)
    host = f"{place.hostname}.cluster.local"
    spec = {
        **because(
            "Each address of this name is a sidecar, so the Service has to be headless.",
            endpoints=[{"fqdn": {"hostname": host, "port": port}} for port in place.ports(settings)],
        ),
        **because(
            "Without it Envoy's health checks offer no HTTP/2 over TLS, and the sidecar refuses each of them.",
            tls={"alpnProtocols": ["h2"]},
        ),
    }
    return resource(API, "Backend", spec, namespace=place.service_namespace, why=_ENABLE_BACKEND)


def _patch(place: Place, listeners: Sequence[str]) -> Tree:
    """Return the patch that puts the filter in front of Envoy AI Gateway's.

    Envoy AI Gateway inserts its filter after all patches, before the first filter with one of Envoy Gateway's own names
    (ext_proc, wasm, lua, rbac, ratelimit, ..., router). It does not know the new name, so it inserts behind.
    """
    generated = f"envoy.filters.http.ext_proc/envoyextensionpolicy/{place.namespace}/{NAME}/extproc/0"
    found = f"..http_filters[?(@.name=='{generated}')]"
    patches = []
    for listener in listeners:
        for field, value in (("disabled", False), ("name", FILTER)):
            operation = {"op": "replace", "jsonPath": f"{found}.{field}", "value": value}
            name = f"{place.namespace}/{place.gateway}/{listener}"
            patches.append({"type": _LISTENER_TYPE, "name": name, "operation": operation})
    spec = {
        "targetRef": gateway_ref(place),
        "type": "JSONPatch",
        **because(
            "Enables the filter on all routes, then renames it. The name of Envoy's listener is that of the Gateway's "
            "listener; listeners with the same port share the first one's.",
            jsonPatches=patches,
        ),
    }
    why = (
        "For Envoy AI Gateway, whose filter keeps the prompt and sends the model what it kept. It has to come after "
        "the sidecar's filter, otherwise redactions are lost: `extproc check --envoy` finds a wrong order. Needs "
        "extensionApis.enableEnvoyPatchPolicy: true in Envoy Gateway's own configuration."
    )
    return resource(API, "EnvoyPatchPolicy", spec, namespace=place.namespace, why=why)


def _extension(settings: Settings, place: Place) -> Tree:
    if place.sidecar:
        backends = [_BACKEND]
    elif place.tls:
        elsewhere = place.service_namespace != place.namespace
        backends = [{**_BACKEND, **({"namespace": place.service_namespace} if elsewhere else {})}]
    else:
        backends = [place.backend_ref(port) for port in place.ports(settings)]
    ext_proc = {
        "backendRefs": backends,
        "backendSettings": _backend_settings(settings, place),
        **because("Fail closed: without the sidecar no request reaches the model.", failOpen=False),
        **because("The status that the client gets then; the default is 500.", statusOnError=503),
        **because(
            "How long Envoy holds a buffered request while Aim judges it: aim.timeout_seconds plus a margin. The "
            "default is 200 ms. Full-duplex responses have no timeout here; the sidecar has its own.",
            messageTimeout=message_timeout(settings),
        ),
        "processingMode": {
            "request": {
                **because("Aim judges, and redacts, a prompt as a whole.", body="Buffered"),
                **because(
                    "For settings of the form `attribute:NAME`, and for profiles by route.",
                    attributes=[*REQUEST_ATTRIBUTES],
                ),
            },
            "response": because(
                "The sidecar releases an answer as Aim verifies it. Envoy Gateway then sends the trailers too.",
                body="FullDuplexStreamed",
            ),
            **because("Other modes would bypass the sidecar: nothing may change them.", allowModeOverride=False),
        },
        "metadata": {
            **because(
                "The claims of a verified JWT, for settings of the form `metadata:NAMESPACE/path`.",
                accessibleNamespaces=[JWT_NAMESPACE],
            ),
            **because(
                "The sidecar's results, for the access log: %DYNAMIC_METADATA(aim)%.",
                writableNamespaces=[METADATA_NAMESPACE],
            ),
        },
    }
    return {
        "targetRefs": [gateway_ref(place)],
        **because(
            "Envoy Gateway places this filter after authentication but before authorization and rate limiting, so "
            "Aim also judges requests that those refuse. EnvoyProxy's filterOrder can move it (name: "
            "envoy.filters.http.ext_proc, after: envoy.filters.http.ratelimit).",
            extProc=[ext_proc],
        ),
    }


def _backend_settings(settings: Settings, place: Place) -> Tree:
    most = most_requests(settings.workers * settings.limits.streams * 2)
    several = not place.sidecar or settings.workers > 1
    return {
        **because(
            "Every live exchange counts as one request; with the default of 1024 the others would get 503. The "
            "sidecar's limits.streams bounds them instead, and refuses in the shape of the client's API.",
            circuitBreaker=_circuit_breaker(most),
        ),
        **because(
            "Detects a sidecar that hangs without closing its connection.",
            http2={"connectionKeepalive": {"interval": "30s", "timeout": "10s"}},
        ),
        **because("A sidecar whose machine is gone; the default is 10 s.", timeout={"tcp": {"connectTimeout": "1s"}}),
        **(_several() if several else {}),
    }


def _several() -> Tree:
    return {
        **because(
            "Exchanges last as long as their answers, so round robin would load servers unevenly.",
            loadBalancer={"type": "LeastRequest"},
        ),
        **because(
            "A sidecar that is draining or dead gets no new exchanges.",
            healthCheck={
                "active": {
                    "type": "GRPC",
                    "grpc": {},
                    "interval": "1s",
                    "timeout": "1s",
                    "unhealthyThreshold": 1,
                    "healthyThreshold": 1,
                },
                **because("If none is healthy, try them all: the check may be late.", panicThreshold=1),
            },
        ),
        **because(
            "If a sidecar cannot be reached, another one takes the exchange: nothing of it was sent yet.",
            retry={"numRetries": 2, "retryOn": {"triggers": ["connect-failure", "refused-stream"]}},
        ),
    }


def _client_traffic(settings: Settings, place: Place) -> Tree:
    return {
        "targetRefs": [gateway_ref(place)],
        **because(
            "limits.request_bytes + 1 MiB, so that the sidecar's 413 comes before Envoy's. The default of 32 KiB "
            "refuses normal prompts. It bounds Envoy's memory for each connection.",
            connection={"bufferLimit": body_limit(settings)},
        ),
        **because(
            "The sidecar, the routes and the model must see the same path.",
            path={
                "disableMergeSlashes": False,
                **because(ESCAPED_SLASHES, escapedSlashesAction="KeepUnchanged"),
            },
        ),
        **because(
            "The default of 300 s cuts off a model that reasons without output.",
            timeout={"http": {"streamIdleTimeout": STREAM_IDLE}},
        ),
        **because(_IDENTITY, headers={"enableEnvoyHeaders": False}),
    }


def _backend_traffic(place: Place) -> Tree:
    return {
        "targetRefs": [gateway_ref(place)],
        **because("The default of 15 s cuts off longer answers.", timeout={"http": {"requestTimeout": "0s"}}),
        **because(
            "A streamed answer counts as one request until it ends; the default limit is 1024.",
            circuitBreaker=_circuit_breaker(most_requests()),
        ),
    }


def _circuit_breaker(most: int) -> Tree:
    return {"maxConnections": most, "maxPendingRequests": most, "maxParallelRequests": most}
