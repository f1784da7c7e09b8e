"""The ext_proc filter's configuration: what has to be set for the sidecar to guard what passes."""

from __future__ import annotations

import math

from extproc.config.settings import PROFILE_METADATA, Settings
from extproc.render.commented import Tree, because

TYPE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
_PREVIOUS_HOSTS_TYPE = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"

METADATA_NAMESPACE = "aim"
JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
REQUEST_ATTRIBUTES = ("request.id", "source.address", "xds.route_name")

CHANGED_HEADERS = "accept-encoding|content-(length|encoding|type|md5|digest)|(repr-)?digest|etag|x-(aim|cato)-.*"
"""Every header that the sidecar sets or removes, as the regular expression that its mutation rules allow.

Envoy up to 1.36 refuses one whose RE2 program is larger than 100.
"""

_PROFILE = "The profile of these exchanges: metadata of the gRPC stream, which no client can forge."
_MARGIN_SECONDS = 5


def message_timeout(settings: Settings) -> str:
    """Return how long Envoy waits for an answer about a buffered request: longer than the sidecar takes."""
    return f"{math.ceil(settings.aim.timeout_seconds) + _MARGIN_SECONDS}s"


def processor(settings: Settings, cluster: str, *, replicas: bool = False, profile: str = "") -> Tree:
    """Return the ExternalProcessor message whose gRPC service is the Envoy cluster `cluster`.

    With `replicas` the cluster has several servers, as it has with several workers. `profile` is the one of an
    exchange whose route names none; empty leaves it to the sidecar.
    """
    return {
        "@type": TYPE,
        "grpc_service": {
            "envoy_grpc": {"cluster_name": cluster},
            **(_retries() if replicas or settings.workers > 1 else {}),
            **(because(_PROFILE, initial_metadata=[_named_profile(profile)]) if profile else {}),
        },
        **because("A sidecar that is missing or fails must not open the way to the model.", failure_mode_allow=False),
        **because("What the client gets then; Envoy's default is 500.", status_on_error={"code": "ServiceUnavailable"}),
        **because(
            "For the buffered request, held while Aim judges it: aim.timeout_seconds and a margin. The default is "
            "200 ms. A full-duplex response knows no timeout here; the sidecar has its own.",
            message_timeout=message_timeout(settings),
        ),
        "processing_mode": {
            "request_header_mode": "SEND",
            **because("A prompt is judged, and redacted, as a whole.", request_body_mode="BUFFERED"),
            **because("No prompt is in them; the body comes without them too.", request_trailer_mode="SKIP"),
            "response_header_mode": "SEND",
            **because("An answer is released as Aim verifies it.", response_body_mode="FULL_DUPLEX_STREAMED"),
            **because("Full duplex demands it.", response_trailer_mode="SEND"),
        },
        **because("Those modes are the guard: nothing may change them.", allow_mode_override=False),
        **because("The route was picked for what the client sent, and stays.", route_cache_action="RETAIN"),
        **because("For `attribute:NAME` and for profiles by route.", request_attributes=[*REQUEST_ATTRIBUTES]),
        "metadata_options": {
            **because(
                "The claims of a verified JWT, for `metadata:NAMESPACE/path`.",
                forwarding_namespaces={"untyped": [JWT_NAMESPACE]},
            ),
            **because(
                "What the sidecar found, for the access log.",
                receiving_namespaces={"untyped": [METADATA_NAMESPACE]},
            ),
        },
        **because(
            "The sidecar changes these headers and no others, credentials least of all.",
            mutation_rules={
                "disallow_all": True,
                "allow_expression": {"regex": CHANGED_HEADERS},
                **because("Loud: an ignored change would leave a wrong length.", disallow_is_error=True),
            },
        ),
    }


def profile_of_route(profile: str) -> Tree:
    """Return the ExtProcPerRoute message of a route whose exchanges have the profile `profile`."""
    named = because(_PROFILE, grpc_initial_metadata=[_named_profile(profile)])
    return {"@type": f"{TYPE.removesuffix('ExternalProcessor')}ExtProcPerRoute", "overrides": named}


def _named_profile(profile: str) -> Tree:
    return {"key": PROFILE_METADATA, "value": profile}


def _retries() -> Tree:
    return because(
        "Where a sidecar cannot be reached, another one takes the exchange; nothing of it was sent yet.",
        retry_policy={
            "retry_on": "connect-failure,refused-stream",
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": _PREVIOUS_HOSTS_TYPE},
                }
            ],
            **because("How often to pick again until it is another one.", host_selection_retry_max_attempts=8),
        },
    )
