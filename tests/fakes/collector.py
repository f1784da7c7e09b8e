"""An OTLP collector: it receives spans and metrics by gRPC and HTTP, and lets tests wait for them."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvicorn
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass(frozen=True)
class Span:
    """A span as received."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    status: int
    seconds: float
    attributes: dict[str, Any]


@dataclass
class Collector:
    """The received spans and metrics, and the addresses of the collector."""

    grpc: str = ""
    http: str = ""
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    resources: list[dict[str, Any]] = field(default_factory=list)
    is_holding: bool = False
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, is_so: Callable[[], Any]) -> Any:
        """Wait until `is_so` returns a true value; return that value."""
        async with asyncio.timeout(60), self._changed:
            return await self._changed.wait_for(is_so)

    def named(self, name: str) -> list[Span]:
        """Return the spans with this name."""
        return [span for span in self.spans if span.name == name]

    async def take_spans(self, request: Any) -> None:
        if self.is_holding:
            await asyncio.Event().wait()
        for resource in request.resource_spans:
            about = _plain(resource.resource.attributes)
            self.resources.append(about)
            self.spans += [
                Span(
                    span.name,
                    about.get("service.name", ""),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.trace_state,
                    span.kind,
                    span.status.code,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    _plain(span.attributes),
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        await self._tell()

    async def take_metrics(self, request: Any) -> None:
        if self.is_holding:
            await asyncio.Event().wait()
        for resource in request.resource_metrics:
            self.resources.append(_plain(resource.resource.attributes))
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _plain(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Run a collector within the context."""
    here = Collector()
    traces, metrics = trace_service_pb2, metrics_service_pb2

    async def take_spans(request: Any, _: Any) -> Any:
        await here.take_spans(request)
        return traces.ExportTraceServiceResponse()

    async def take_metrics(request: Any, _: Any) -> Any:
        await here.take_metrics(request)
        return metrics.ExportMetricsServiceResponse()

    async def post_spans(request: Request) -> Response:
        await here.take_spans(traces.ExportTraceServiceRequest.FromString(await _body(request)))
        return Response()

    async def post_metrics(request: Request) -> Response:
        await here.take_metrics(metrics.ExportMetricsServiceRequest.FromString(await _body(request)))
        return Response()

    server = grpc.aio.server()
    for name, method, request in (
        ("trace.v1.TraceService", take_spans, traces.ExportTraceServiceRequest),
        ("metrics.v1.MetricsService", take_metrics, metrics.ExportMetricsServiceRequest),
    ):
        handler = grpc.unary_unary_rpc_method_handler(
            method, request.FromString, lambda answer: answer.SerializeToString()
        )
        service = grpc.method_handlers_generic_handler(f"opentelemetry.proto.collector.{name}", {"Export": handler})
        server.add_generic_rpc_handlers((service,))
    here.grpc = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    routes = [
        Route("/v1/traces", post_spans, methods=["POST"]),
        Route("/v1/metrics", post_metrics, methods=["POST"]),
    ]
    try:
        async with _listening(Starlette(routes=routes)) as port:
            here.http = f"http://127.0.0.1:{port}"
            yield here
    finally:
        await server.stop(0)


@asynccontextmanager
async def _listening(app: Starlette) -> AsyncIterator[int]:
    """Serve `app` on a port of loopback, which is yielded, while the context lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=0
    )
    # The steps of `Server.serve`, without its signal handlers.
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield listener.getsockname()[1]
    finally:
        await server.shutdown(sockets=[listener])


async def _body(request: Request) -> bytes:
    body = await request.body()
    return gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
