"""Traces through a real Envoy that also traces: there is one trace, with the right parents, and without content."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from extproc.config.load import load
from tests.fakes.aim import ScriptedAim, block
from tests.fakes.collector import Collector, Span, collector
from tests.fakes.envoy import run_envoy
from tests.fakes.process import serving, written
from tests.fakes.rig import CHAT, bootstrap, chat_request, chat_stream, manager_of
from tests.fakes.upstream import ScriptedUpstream, pieces

SECRET = "the plan of the tower"
MAIL = "alice@example.com"


def tracer(port: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration of Envoy's tracing to a collector: that of the connection manager, and a cluster."""
    extension = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    tracing = {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}, "timeout": "5s"},
                "service_name": "envoy",
            },
        }
    }
    cluster = {
        "name": "collector",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "collector", "endpoints": endpoints},
        "typed_extension_protocol_options": {
            extension: {
                "@type": f"type.googleapis.com/{extension}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    return tracing, cluster


class Chain:
    """A sidecar that exports, behind an Envoy that may trace."""

    def __init__(
        self, aim: ScriptedAim, upstream: ScriptedUpstream, spans: Collector, client: httpx.AsyncClient
    ) -> None:
        self.aim = aim
        self.upstream = upstream
        self.collector = spans
        self.client = client

    async def post(self, *, stream: bool = False, **headers: str) -> httpx.Response:
        return await self.client.post(
            CHAT, json=chat_request(SECRET, stream=stream), headers={"x-aim-user-email": MAIL, **headers}
        )


@asynccontextmanager
async def chain(tmp_path: Path, *, envoy_traces: bool = True, protocol: str = "grpc") -> AsyncIterator[Chain]:
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        target = await stack.enter_async_context(collector())
        config, port, _ = written(tmp_path, aim)
        await stack.enter_async_context(
            serving(
                config,
                OTEL_EXPORTER_OTLP_ENDPOINT=target.grpc if protocol == "grpc" else target.http,
                OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
                OTEL_BSP_SCHEDULE_DELAY="50",
            )
        )
        text = bootstrap(load(config), port, upstream.port)
        if envoy_traces:
            tree = yaml.safe_load(text)
            manager_of(tree)["tracing"], cluster = tracer(int(target.grpc.rpartition(":")[2]))
            tree["static_resources"]["clusters"].append(cluster)
            text = yaml.safe_dump(tree)
        envoy = await stack.enter_async_context(run_envoy(text))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=30))
        yield Chain(aim, upstream, target, client)


def whole(spans: Collector) -> dict[str, Span] | None:
    """Return the spans of one exchange by name, Envoy's too, once all are there."""
    found = {span.name.split(" ")[0]: span for span in spans.spans}
    return found if {"ingress", "async", "aim.exchange"} <= found.keys() else None


async def test_a_streamed_exchange_is_one_trace(tmp_path: Path) -> None:
    async with chain(tmp_path) as it:
        it.upstream.answer = pieces(chat_stream("Hello ", "world"))
        answer = await it.post(stream=True)
        assert answer.text.endswith("data: [DONE]\n\n")
        spans = await it.collector.until(lambda: whole(it.collector))
        exchange, analysis, session = (spans[f"aim.{name}"] for name in ("exchange", "analysis", "session"))
        assert {span.trace_id for span in spans.values()} == {spans["ingress"].trace_id}
        assert spans["async"].parent_id == spans["ingress"].span_id
        assert exchange.parent_id == spans["async"].span_id
        assert analysis.parent_id == session.parent_id == exchange.span_id
        assert exchange.attributes == {
            "aim.call_id": answer.headers["x-aim-call-id"],
            "aim.profile": "default",
            "aim.dialect": "openai-chat",
            "aim.outcome": "allowed",
            "aim.code": "",
            "aim.request.action": "allow",
            "aim.request.policies": [],
            "aim.response.action": "allow",
            "aim.response.policies": [],
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
        }
        assert analysis.attributes == {"aim.hook": "pre_call", "aim.action": "allow"}
        assert session.attributes == {"aim.hook": "output", "aim.action": "allow"}
        assert analysis.seconds <= exchange.seconds
        assert {resource["service.name"] for resource in it.collector.resources} == {"envoy", "aim-extproc"}
        ours = json.dumps([span.attributes for span in spans.values() if span.service == "aim-extproc"])
        assert SECRET not in ours
        assert MAIL not in ours


async def test_trace_of_the_client_is_continued_if_envoy_does_not_trace(tmp_path: Path) -> None:
    theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with chain(tmp_path, envoy_traces=False, protocol="http/protobuf") as it:

        async def judge(_: object) -> Any:
            return block("Not that.", pii=True)

        it.aim.judge = judge
        assert (await it.post(traceparent=theirs, tracestate="a=b")).status_code == 400
        (exchange,) = await it.collector.until(lambda: it.collector.named("aim.exchange"))
        assert (exchange.trace_id, exchange.parent_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        assert exchange.state == ""
        assert exchange.attributes["aim.outcome"] == "blocked"
        assert exchange.attributes["aim.request.policies"] == ["pii"]
        assert exchange.status == 0
        it.aim.reset()
        await it.post(traceparent=theirs, tracestate="a=b")
        # The upstream gets the client's header unchanged: the sidecar is not a hop of the request.
        sent = dict(it.upstream.requests[-1].headers)
        assert (sent["traceparent"], sent["tracestate"]) == (theirs, "a=b")


async def test_a_trace_that_envoy_does_not_sample_stays_so(tmp_path: Path) -> None:
    async with chain(tmp_path) as it:
        # Envoy's tracer follows the flag.
        await it.post(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
        await it.post(traceparent="00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        await it.collector.until(lambda: it.collector.named("aim.exchange"))
        assert {span.trace_id for span in it.collector.spans} == {"1af7651916cd43dd8448eb211c80319c"}


async def test_aim_away_is_an_error(tmp_path: Path) -> None:
    async with chain(tmp_path, envoy_traces=False) as it:

        async def judge(_: object) -> Any:
            return 403, {}

        it.aim.judge = judge
        assert (await it.post()).status_code == 503
        (exchange,) = await it.collector.until(lambda: it.collector.named("aim.exchange"))
        (analysis,) = it.collector.named("aim.analysis")
        assert exchange.attributes["error.type"] == "guardrail_unavailable"
        assert analysis.attributes["error.type"] == "key_refused"
        assert exchange.status == analysis.status == 2
        assert not exchange.parent_id
