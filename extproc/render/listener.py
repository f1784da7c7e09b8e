"""Envoy's listener: the connection manager, the access log and the order of filters."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.cluster import SIDECAR, request_headers, socket_address
from extproc.render.commented import Tree, because
from extproc.render.ext_proc import METADATA_NAMESPACE, processor
from extproc.render.route import routes
from extproc.render.upstream import Upstream

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
MANAGER_TYPE = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER_TYPE = f"{_FILTERS}.http.router.v3.Router"
_STDOUT_TYPE = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
_EARLY_MUTATION = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

STREAM_IDLE = "900s"

ESCAPED_SLASHES = "Models' names in paths contain %2F (Bedrock's ARNs). The sidecar decodes paths itself."

SAME_PATHS = {
    **because("The sidecar, the routes and the model must see the same path.", normalize_path=True, merge_slashes=True),
    **because(ESCAPED_SLASHES, path_with_escaped_slashes_action="KEEP_UNCHANGED"),
}

_WHO_ASKS = "Do not show the client's address to the model's provider."

IDENTITY = f"""\
The sidecar reads the user from x-aim-user-email and the conversation from x-aim-session-id, and removes both. \
To keep clients from setting their own identity, remove their headers here, before any filter reads them:
  early_header_mutation_extensions:
    - name: envoy.http.early_header_mutation.header_mutation
      typed_config:
        "@type": type.googleapis.com/{_EARLY_MUTATION}
        mutations: [{{remove: x-aim-user-email}}, {{remove: x-aim-session-id}}]
and use a verified identity in the sidecar's profile, such as user_email: ["metadata:NAMESPACE/path"].
"""
"""What to add to the connection manager if clients must not set their own identity."""


def listener(
    settings: Settings, *, listen: Address, upstreams: Sequence[Upstream], allow_upgrades: Sequence[str]
) -> Tree:
    """Return the listener on `listen` that routes to `upstreams` through the sidecar; raises as `routes` does."""
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": _manager(settings, upstreams, allow_upgrades),
    }
    return {
        "name": "llm",
        "address": socket_address(listen),
        **because(
            "Envoy's default: how far it reads ahead of a slow peer. A held request has a separate limit.",
            per_connection_buffer_limit_bytes=1_048_576,
        ),
        "filter_chains": [{"filters": [manager]}],
    }


def _manager(settings: Settings, upstreams: Sequence[Upstream], allow_upgrades: Sequence[str]) -> Tree:
    host = {
        "name": "llm",
        "domains": ["*"],
        **because(_WHO_ASKS, request_headers_to_remove=["x-envoy-external-address"]),
        "routes": routes(settings, upstreams, allow_upgrades),
    }
    return {
        "@type": MANAGER_TYPE,
        "stat_prefix": "llm",
        **because(
            "This Envoy is the edge: do not trust a client's x-envoy-* headers and x-request-id.",
            use_remote_address=True,
        ),
        **because(_WHO_ASKS, skip_xff_append=True),
        **because("Keep the model's own server header.", server_header_transformation="PASS_THROUGH"),
        **SAME_PATHS,
        **because(
            "The default of 300 s cuts off a model that reasons without output.", stream_idle_timeout=STREAM_IDLE
        ),
        "common_http_protocol_options": request_headers(settings),
        "access_log": [{"name": "envoy.access_loggers.stdout", "typed_config": _access_log()}],
        "route_config": {"name": "llm", "virtual_hosts": [host]},
        **(_upgrades() if allow_upgrades else {}),
        **because(
            IDENTITY,
            http_filters=[
                {
                    **because(
                        "The last filter before the router, after authentication and rate limiting.",
                        name="envoy.filters.http.ext_proc",
                    ),
                    "typed_config": processor(settings, SIDECAR),
                },
                _router(),
            ],
        ),
    }


def _router() -> Tree:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": _ROUTER_TYPE,
            **because("Send no x-envoy-* headers to the model or the client.", suppress_envoy_headers=True),
        },
    }


def _upgrades() -> Tree:
    return because(
        "WARNING: websockets bypass the sidecar, whatever the profile says, because ext_proc cannot read them. They "
        "are off except on the routes above that turn them on.",
        upgrade_configs=[{"upgrade_type": "websocket", "enabled": False, "filters": [_router()]}],
    )


def _access_log() -> Tree:
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        **because("Without the query, because Gemini's clients put their key there.", path="%PATH(NQ)%"),
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        **because("aim_* if the sidecar answered.", details="%RESPONSE_CODE_DETAILS%"),
        "flags": "%RESPONSE_FLAGS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "route": "%ROUTE_NAME%",
        "upstream": "%UPSTREAM_HOST%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        **because(
            "Identifies the exchange in Aim's reports and in the sidecar's log.",
            call_id=f"%DYNAMIC_METADATA({METADATA_NAMESPACE}:call_id)%",
        ),
        "aim": f"%DYNAMIC_METADATA({METADATA_NAMESPACE})%",
    }
    return {"@type": _STDOUT_TYPE, "log_format": {"json_format": fields}}
