"""What exchanges cost at Aim: the bytes that are sent, and the detections of each exchange."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.fakes.aim import ScriptedAim, block
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.rig import chat_answer, chat_request, chat_stream
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

JSON = ("content-type", "application/json")
SSE = ("content-type", "text/event-stream")
HELLO = "Grüße"


async def exchange(guard: Sidecar, answer: bytes, kind: tuple[str, str] = JSON, **request: Any) -> None:
    """Send a whole exchange; return once it is recorded."""
    async with envoy_stream(f"127.0.0.1:{guard.port}") as stream:
        await stream.request_headers(path=request.pop("path", "/v1/chat/completions"))
        await stream.read()
        await stream.body("request", json.dumps(chat_request(HELLO, **request)).encode())
        if not (await stream.read()).HasField("immediate_response"):
            await respond(stream, answer, kind)
        await stream.done()
        while await stream.read() is not None:
            pass
    await asyncio.wait_for(guard.service.idle.wait(), 20)


async def respond(stream: EnvoyStream, answer: bytes, kind: tuple[str, str]) -> None:
    """Send an answer and read what is released, to its end."""
    await stream.response_headers(kind)
    await stream.body("response", answer)
    while not (await stream.read()).response_body.response.body_mutation.streamed_response.end_of_stream:
        pass


def asked(aim: ScriptedAim, hook: str) -> int:
    """Return the size of all bodies that Aim got with a hook."""
    return sum(int(question.headers["content-length"]) for question in aim.asked(hook))


class Cost:
    """The metrics of a sidecar."""

    def __init__(self, guard: Sidecar) -> None:
        self.exchanges = guard.metric("extproc_detections_per_exchange_count")
        self.detections = guard.metric("extproc_detections_per_exchange_sum")
        self.pre_call, self.moderation, self.output = (
            guard.metric("extproc_detection_bytes_total", hook=hook) for hook in ("pre_call", "moderation", "output")
        )


async def test_each_text_of_an_answer_is_a_detection(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard:
        await exchange(guard, chat_answer("one", "two", "three"))
        cost = Cost(guard)
        assert guard.metric("extproc_detections_per_exchange_bucket", le="3.0") == 0
        assert guard.metric("extproc_detections_per_exchange_bucket", le="4.0") == 1
    assert (cost.exchanges, cost.detections) == (1, 1 + 3)
    assert cost.pre_call == asked(aim, "pre_call") > len(HELLO)
    assert cost.output == asked(aim, "output") > 3 * len(HELLO)
    assert cost.moderation == 0


async def test_session_is_one_detection_and_its_chunks_are_counted(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, profiles={"default": {"hooks": ["moderation", "output"]}})) as guard:
        await exchange(guard, b"".join(chat_stream("a", HELLO, "b")), SSE, stream=True)
        cost = Cost(guard)
    (session,) = aim.sessions
    assert (cost.exchanges, cost.detections) == (1, 2)
    assert (cost.pre_call, cost.moderation) == (0, asked(aim, "moderation"))
    assert cost.output == session.chunk_bytes > len(HELLO.encode())


async def test_chunks_are_counted_in_bytes_of_utf_8(aim: ScriptedAim) -> None:
    events = b"".join(chat_stream(HELLO)).replace(json.dumps(HELLO)[1:-1].encode(), HELLO.encode())
    async with sidecar(settings_for(aim.base)) as guard:
        await exchange(guard, events, SSE, stream=True)
        cost = Cost(guard)
    assert HELLO.encode() in events
    assert cost.output == aim.sessions[0].chunk_bytes


async def test_session_without_a_chunk_is_no_detection(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard:
        await exchange(guard, chat_answer("one"), stream=True)
        cost = Cost(guard)
    assert (cost.exchanges, cost.detections) == (1, 2)
    assert cost.output == asked(aim, "output")


async def test_repeated_call_is_one_detection_with_the_bytes_of_two(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return (503, {}) if len(aim.questions) == 1 else block("No.")

    aim.judge = judge
    async with sidecar(settings_for(aim.base)) as guard:
        await exchange(guard, b"")
        cost = Cost(guard)
    assert (cost.exchanges, cost.detections) == (1, 1)
    assert cost.pre_call == asked(aim, "pre_call")
    assert len(aim.questions) == 2


async def test_exchange_without_a_detection_is_not_observed(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, profiles={"default": {"hooks": ["output"]}})) as guard:
        await exchange(guard, b"{}")
        cost = Cost(guard)
    assert (cost.exchanges, cost.pre_call, cost.output) == (0, 0, 0)


async def test_dry_run_is_counted_like_any_other(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, profiles={"default": {"enforce": False}})) as guard:
        await exchange(guard, chat_answer("one", "two"))
        cost = Cost(guard)
    assert (cost.exchanges, cost.detections) == (1, 1 + 2)
    assert cost.output == asked(aim, "output")
