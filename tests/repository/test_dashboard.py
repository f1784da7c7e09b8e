"""Queries of the dashboard and the alerts, run in a real Prometheus that scrapes a real sidecar."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.fakes.aim import Question, ScriptedAim, allow, block
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.process import serving, written
from tests.fakes.prometheus import Prometheus, needs_prometheus, scraping
from tests.fakes.promql import alerts, queries, without_threshold
from tests.fakes.rig import chat_answer, chat_request, chat_stream

pytestmark = needs_prometheus

STREAMS = 3

# Their thresholds would need minutes or a full disk; alerts_test.yaml tests them.
BELOW = {"AimExtprocAimSlow", "AimExtprocAddedLatency", "AimExtprocRestarting", "AimExtprocAuditLost"}


async def exchange(address: str, text: str, answer: bytes = b"", content_type: str = "application/json") -> bool:
    """Run one exchange and return whether the request passed."""
    async with envoy_stream(address) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", json.dumps(chat_request(text, stream="event" in content_type)).encode())
        if not (await stream.read()).HasField("request_body"):
            return False
        await stream.response_headers(("content-type", content_type))
        await stream.body("response", answer or chat_answer("Hi"))
        while not is_last(await stream.read()):
            pass
        await stream.done()
        assert await stream.read() is None
        return True


def is_last(message: Any) -> bool:
    """Return whether `message` ends the answer."""
    end = message.response_body.response.body_mutation.streamed_response.end_of_stream
    return bool(end or message.HasField("immediate_response"))


async def judge(question: Question) -> Any:
    match question.texts[0]:
        case "blocked":
            return block("Not that.")
        case "key":
            return (401, b"")
        case "broken":
            return (500, b"")
    return await allow(question)


async def traffic(address: str) -> None:
    """Cause each kind of verdict, outcome and fault that a query shows."""
    events = b"".join(chat_stream("Hel", "lo"))
    async with asyncio.timeout(30):
        while not await exchange(address, "allowed"):  # the breaker may still be open
            pass
    assert await exchange(address, "streamed", events, "text/event-stream")
    assert not await exchange(address, "blocked")
    assert not await exchange(address, "key")
    assert await exchange(address, "broken")  # server_error fails open
    assert not await exchange(address, "anything")  # the breaker is open, which fails closed


async def hold(address: str, stack: AsyncExitStack) -> list[EnvoyStream]:
    """Begin exchanges until the limit is reached, and send only their first bytes."""
    streams = []
    for _ in range(STREAMS):
        stream = await stack.enter_async_context(envoy_stream(address))
        await stream.request_headers()
        await stream.read()
        streams.append(stream)
    return streams


async def no_series(prometheus: Prometheus, expressions: dict[str, str]) -> list[str]:
    return [name for name, expression in expressions.items() if not await prometheus.query(expression)]


async def test_every_query_returns_data(tmp_path: Path, aim: ScriptedAim) -> None:
    aim.judge = judge
    config, port, admin = written(
        tmp_path,
        aim,
        limits={"streams": STREAMS},
        profiles={"default": {"failure_mode_allow": {"request": ["server_error"]}}},
    )
    address = f"127.0.0.1:{port}"
    rules = {name: rule["expr"] for name, rule in alerts().items()}
    rules |= {name: without_threshold(rules[name]) for name in BELOW}
    async with (
        serving(config, EXTPROC_AIM__BREAKER='{"failures": 1, "open_seconds": 2}') as process,
        scraping([f"127.0.0.1:{admin}"], job="aim-extproc") as prometheus,
        AsyncExitStack() as stack,
    ):
        await prometheus.until("extproc_ready == 1")
        for count in (1, 2):  # a rate needs two samples
            await traffic(address)
            await prometheus.until(f'extproc_exchanges_total{{outcome="blocked"}} == {count}')
        await hold(address, stack)
        await prometheus.until(f"extproc_streams == {STREAMS}")

        assert await no_series(prometheus, queries()) == []
        quiet = {"AimExtprocDrainStuck", "AimExtprocDown", "AimExtprocAbsent"}
        assert set(await no_series(prometheus, rules)) == quiet

        process.signal(signal.SIGTERM)
        await prometheus.until(rules["AimExtprocDrainStuck"])
        await prometheus.until(rules["AimExtprocAbsent"])
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        await prometheus.until(rules["AimExtprocDown"])
