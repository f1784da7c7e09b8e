"""The ext_proc filter's configuration: every field that the sidecar depends on."""

from __future__ import annotations

import math

from extproc.config.profile import PROFILE_METADATA
from extproc.config.settings import Settings
from extproc.render.commented import Tree, because

TYPE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
_PREVIOUS_HOSTS_TYPE = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"

METADATA_NAMESPACE = "aim"
JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
REQUEST_ATTRIBUTES = ("request.id", "source.address", "xds.route_name")

CHANGED_HEADERS = (
    "accept-encoding|content-(length|encoding|type|md5|digest)|(repr-)?digest|etag|x-(aim|cato|amzn|should)-[!-~]*"
)
"""The headers that the sidecar sets or removes, as the regular expression of its mutation rules.

Envoy up to 1.36 rejects an expression whose RE2 program is larger than 100.
"""

_PROFILE = "The profile of these exchanges, as metadata of the gRPC stream, which no client can set."
_MARGIN_SECONDS = 5


def message_timeout(settings: Settings) -> str:
    """Return how long Envoy waits for the reply to a buffered request: longer than the sidecar may take."""
    return f"{math.ceil(settings.aim.timeout_seconds) + _MARGIN_SECONDS}s"


def processor(settings: Settings, cluster: str, *, replicas: bool = False, profile: str = "") -> Tree:
    """Return the ExternalProcessor message whose gRPC service is the Envoy cluster `cluster`.

    With `replicas` the cluster has several servers, as with several workers. `profile` is for exchanges whose route
    names none; if it is empty, the sidecar decides.
    """
    return {
        "@type": TYPE,
        "grpc_service": {
            "envoy_grpc": {"cluster_name": cluster},
            **(_retries() if replicas or settings.workers > 1 else {}),
            **(because(_PROFILE, initial_metadata=[_named_profile(profile)]) if profile else {}),
        },
        **because("Fail closed: without the sidecar no request reaches the model.", failure_mode_allow=False),
        **because(
            "The status that the client gets then; Envoy's default is 500.",
            status_on_error={"code": "ServiceUnavailable"},
        ),
        **because(
            "How long Envoy holds a buffered request while Aim judges it: aim.timeout_seconds plus a margin. The "
            "default is 200 ms. Full-duplex responses have no timeout here; the sidecar has its own.",
            message_timeout=message_timeout(settings),
        ),
        "processing_mode": {
            "request_header_mode": "SEND",
            **because("Aim judges, and redacts, a prompt as a whole.", request_body_mode="BUFFERED"),
            **because("Trailers hold no prompt, and the body arrives without them too.", request_trailer_mode="SKIP"),
            "response_header_mode": "SEND",
            **because("The sidecar releases an answer as Aim verifies it.", response_body_mode="FULL_DUPLEX_STREAMED"),
            **because("Full duplex requires it.", response_trailer_mode="SEND"),
        },
        **because("Other modes would bypass the sidecar: nothing may change them.", allow_mode_override=False),
        **because("Keep the route that Envoy chose for the original request.", route_cache_action="RETAIN"),
        **because(
            "For settings of the form `attribute:NAME`, and for profiles by route.",
            request_attributes=[*REQUEST_ATTRIBUTES],
        ),
        "metadata_options": {
            **because(
                "The claims of a verified JWT, for settings of the form `metadata:NAMESPACE/path`.",
                forwarding_namespaces={"untyped": [JWT_NAMESPACE]},
            ),
            **because(
                "The sidecar's results, for the access log.",
                receiving_namespaces={"untyped": [METADATA_NAMESPACE]},
            ),
        },
        **because(
            "The sidecar may change these headers only, and no credentials.",
            mutation_rules={
                "disallow_all": True,
                "allow_expression": {"regex": CHANGED_HEADERS},
                **because(
                    "Report an error: a change that is silently ignored would leave a wrong content-length.",
                    disallow_is_error=True,
                ),
            },
        ),
    }


def profile_of_route(profile: str) -> Tree:
    """Return the ExtProcPerRoute message of a route whose exchanges use the profile `profile`."""
    named = because(_PROFILE, grpc_initial_metadata=[_named_profile(profile)])
    return {"@type": f"{TYPE.removesuffix('ExternalProcessor')}ExtProcPerRoute", "overrides": named}


def _named_profile(profile: str) -> Tree:
    return {"key": PROFILE_METADATA, "value": profile}


def _retries() -> Tree:
    return because(
        "If a sidecar cannot be reached, another one takes the exchange: nothing of it was sent yet.",
        retry_policy={
            "retry_on": "connect-failure,refused-stream",
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": _PREVIOUS_HOSTS_TYPE},
                }
            ],
            **because(
                "How often to choose again until it is a different sidecar.", host_selection_retry_max_attempts=8
            ),
        },
    )
