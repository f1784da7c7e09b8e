"""`extproc render agentgateway`: agentgateway's policies for a Gateway that the sidecar guards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from extproc.config.profile import PROFILE_METADATA
from extproc.config.settings import Settings
from extproc.render.commented import Tree, because
from extproc.render.mesh import (
    CA_OF_SERVICE,
    GATEWAY_API,
    NAME,
    Place,
    gateway_ref,
    print_resources,
    reference_grants,
    resource,
)

GROUP = "agentgateway.dev"
API = f"{GROUP}/v1alpha1"

_INITIAL_METADATA = "agentgateway.dev.grpc_initial_metadata"
_ROUTE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

_NOTES = """\
agentgateway is not Envoy: it waits for the sidecar without a timeout. Only the sidecar's timeouts end an exchange \
(aim.timeout_seconds, aim.verdict_timeout_seconds)."""

_PROFILE = (
    "The profile of these exchanges, as metadata of the gRPC stream, which no client can set. The namespace is "
    "agentgateway's own; values are CEL expressions, hence the double quotes."
)

_CLAIMS = """\
If a policy verifies JWTs, add their claims here for user_email: ["metadata:jwt/claims/email"]:
  metadataContext: {jwt: {claims: jwt}}"""


def render_agentgateway(
    settings: Settings, place: Place, *, profile: str = "", routes: Mapping[str, str] | None = None
) -> str:
    """Return agentgateway's policies, as commented YAML.

    `routes` maps names of HTTPRoutes to profiles; `profile` is for all others. Raises ValueError, with a sentence
    for the operator, if the settings do not fit.
    """
    guard = {"targetRefs": [gateway_ref(place)], "traffic": {"extProc": _ext_proc(settings, place, profile)}}
    resources = [
        *([_tls(place)] if place.tls else []),
        *reference_grants(place, GROUP, "AgentgatewayPolicy"),
        resource(API, "AgentgatewayPolicy", guard, namespace=place.namespace),
        *(_route(settings, place, route, named) for route, named in (routes or {}).items()),
    ]
    return print_resources(resources, mesh="agentgateway", place=place, settings=settings, notes=_NOTES)


def _tls(place: Place) -> Tree:
    tls = {
        **because(
            CA_OF_SERVICE,
            caCertificateRefs=[{"name": place.ca}],
        ),
        "sni": place.hostname,
        **because(
            "The sidecar's certificate (tls.cert_file) has to be for this name.",
            verifySubjectAltNames=[place.hostname],
        ),
        **because("gRPC is HTTP/2.", alpnProtocols=["h2"]),
    }
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": place.service_name}],
        "backend": {"tls": tls},
    }
    return resource(API, "AgentgatewayPolicy", spec, namespace=place.service_namespace, name=f"{NAME}-tls")


def _route(settings: Settings, place: Place, route: str, profile: str) -> Tree:
    if not _ROUTE_NAME.fullmatch(route):
        raise ValueError(f"route: {route!r} is not the name of an HTTPRoute")
    spec = {
        "targetRefs": [{"group": GATEWAY_API, "kind": "HTTPRoute", "name": route}],
        "traffic": {"extProc": _ext_proc(settings, place, profile)},
    }
    why = "Replaces the Gateway's extProc on this route."
    return resource(API, "AgentgatewayPolicy", spec, namespace=place.namespace, name=f"{NAME}-{route}", why=why)


def _ext_proc(settings: Settings, place: Place, profile: str) -> Tree:
    named = {_INITIAL_METADATA: {PROFILE_METADATA: json.dumps(profile)}}
    return {
        "backendRef": place.backend_ref(place.only_port(settings)),
        **because("Fail closed: without the sidecar no request reaches the model.", failureMode="FailClosed"),
        "processingOptions": {
            "requestHeaderMode": "Send",
            **because(
                "The sidecar holds the prompt itself, up to limits.request_bytes. Not Buffered: agentgateway would "
                "refuse what exceeds its own buffer (2 MiB by default), even if the sidecar does not inspect it.",
                requestBodyMode="FullDuplexStreamed",
            ),
            **because("Full duplex requires it.", requestTrailerMode="Send"),
            "responseHeaderMode": "Send",
            **because("The sidecar releases an answer as Aim verifies it.", responseBodyMode="FullDuplexStreamed"),
            **because("Full duplex requires it.", responseTrailerMode="Send"),
            **because("Other modes would bypass the sidecar: nothing may change them.", allowModeOverride=False),
        },
        **because(
            "For settings of the form `attribute:NAME`, and for profiles by route "
            '(profiles.NAME.routes: ["NAMESPACE/HTTPROUTE"]). The values are CEL expressions. The names are those of '
            "Envoy's attributes, because agentgateway has none.\n" + _CLAIMS,
            requestAttributes={
                "source.address": "source.address",
                "xds.route_name": 'proxy.route.namespace + "/" + proxy.route.name',
            },
        ),
        **(because(_PROFILE, metadataContext=named) if profile else {}),
    }
