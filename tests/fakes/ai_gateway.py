"""A stand-in for the two ext_proc filters of Envoy AI Gateway, which keep a request's body and replay it.

As in release 1.1.0 (`internal/extensionserver/post_translate_modify.go` and `internal/extproc`): the filter in the
listener reads the buffered request, keeps its body, names the model in a header and changes no byte. The filter in the
cluster's upstream chain gets no body: when it translates a request, or sends it again, it replaces the body by what the
first filter kept. Here it does so for every request. The two find each other by `x-request-id`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from extproc.processor import wire

NAME = "envoy.filters.http.ext_proc/aigateway"
"""The name of both filters."""

CLUSTER = "ai-gateway-extproc-uds"

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_STREAMED = 1


class AIGateway:
    """The processor behind both filters; `port` is its gRPC port while it runs."""

    def __init__(self) -> None:
        self.port = 9
        self.kept: dict[str, bytes] = {}

    async def _process(self, messages: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        request_id, is_upstream = "", False
        async for message in messages:
            answer = wire.Response()
            phase = str(message.WhichOneof("request"))
            getattr(answer, phase).SetInParent()
            match phase:
                case "request_headers":
                    fields = {each.key: each.raw_value.decode() for each in message.request_headers.headers.headers}
                    request_id = fields["x-request-id"]
                    is_upstream = message.protocol_config.request_body_mode == 0
                    common = answer.request_headers.response
                    if is_upstream:
                        common.status = wire.CONTINUE_AND_REPLACE
                        common.body_mutation.body = self.kept[request_id]
                case "request_body":
                    self.kept[request_id] = message.request_body.body
                    common = answer.request_body.response
                    model = str(json.loads(message.request_body.body).get("model", ""))
                    common.header_mutation.set_headers.add().header.key = "x-ai-eg-model"
                    common.header_mutation.set_headers[0].header.raw_value = model.encode()
                    common.clear_route_cache = True
                case "response_headers":
                    answer.mode_override.response_body_mode = _STREAMED
            yield answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AIGateway]:
        """Serve on a free port within the context."""
        server = grpc.aio.server()
        method = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=wire.Request.FromString,
            response_serializer=wire.Response.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {"Process": method}),))
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    def install(self, tree: Any, *, position: int) -> None:
        """Add both filters to a parsed bootstrap: at `position` of the listener's chain, and to the model's cluster."""
        static = tree["static_resources"]
        listener = static["listeners"][0]
        (chain,) = listener.get("filter_chains") or [listener["default_filter_chain"]]
        filters = chain["filters"][0]["typed_config"]["http_filters"]
        modes = {
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "request_trailer_mode": "SKIP",
            "response_header_mode": "SEND",
            "response_body_mode": "BUFFERED",
            "response_trailer_mode": "SKIP",
        }
        filters.insert(position, _filter(modes))
        upstream = {"request_header_mode": "SEND", "response_header_mode": "SKIP"}
        codec = {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": f"{_FILTERS}.upstream_codec.v3.UpstreamCodec"},
        }
        (model,) = [each for each in static["clusters"] if "aim" not in each["name"]]
        plain = {
            "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
            "explicit_http_config": {"http_protocol_options": {}},
        }
        options = model.setdefault("typed_extension_protocol_options", {}).setdefault(_HTTP_OPTIONS, plain)
        options["http_filters"] = [*options.get("http_filters", ()), _filter(upstream), codec]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self.port}}
        static["clusters"].append(
            {
                "name": CLUSTER,
                "type": "STATIC",
                "typed_extension_protocol_options": {
                    _HTTP_OPTIONS: {
                        "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    }
                },
                "load_assignment": {
                    "cluster_name": CLUSTER,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
            }
        )


def _filter(modes: dict[str, str]) -> dict[str, Any]:
    return {
        "name": NAME,
        "typed_config": {
            "@type": f"{_FILTERS}.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER}},
            "processing_mode": modes,
            "message_timeout": "10s",
            "allow_mode_override": True,
            "metadata_options": {"receiving_namespaces": {"untyped": ["io.envoy.ai_gateway"]}},
        },
    }
