"""An exchange leaves no reference cycles: its memory is freed at its end.

Otherwise it would wait for Python's collector, which looks for cycles once in some minutes.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from collections.abc import Awaitable, Callable
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

import pytest

from extproc.aim.connection import Socket
from extproc.aim.opening import Opening
from extproc.aim.session import Session
from extproc.core.commands import Reset
from extproc.core.dry_run import DryRun
from extproc.core.exchange import Exchange
from extproc.core.release_queue import ReleaseQueue
from extproc.core.request_leg import RequestLeg
from extproc.core.response_leg import ResponseLeg
from extproc.core.response_stream import ResponseStream
from extproc.core.stream_input import StreamInput
from extproc.processor.driver import Driver
from extproc.processor.effects import Effects
from extproc.processor.load import Share
from extproc.processor.outbox import Outbox
from extproc.processor.servicer import ExternalProcessor
from extproc.processor.stream import Stream
from extproc.telemetry.observation import Observation
from tests.fakes.aim import AimSession, Answer, Question, ScriptedAim, allow, block
from tests.fakes.aws import event as aws_event
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.rig import DONE, chat_answer, chat_event, chat_request
from tests.fakes.sidecar import settings_for, sidecar

REQUEST = json.dumps(chat_request("Hello")).encode()
STREAMED = json.dumps(chat_request("Hello", stream=True)).encode()
CONVERSE = json.dumps({"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}).encode()
SSE = ("content-type", "text/event-stream")
JSON = ("content-type", "application/json")
GZIP = ("content-encoding", "gzip")
SEVERAL = chat_answer("SECRET", "silence", "silence")

Play = Callable[[EnvoyStream], Awaitable[None]]


async def ask(stream: EnvoyStream, body: bytes = REQUEST, path: str = "/v1/chat/completions") -> Any:
    """Send a request; return the reply to its body."""
    await stream.request_headers(path=path)
    assert (await stream.read()).HasField("request_headers")
    await stream.body("request", body)
    return await stream.read()


async def read_all(stream: EnvoyStream) -> None:
    await stream.done()
    while await stream.read() is not None:
        pass


async def whole(stream: EnvoyStream) -> None:
    await ask(stream)
    await stream.response_headers(JSON)
    await stream.body("response", chat_answer("Hi"))
    await read_all(stream)


async def several(stream: EnvoyStream) -> None:
    """Aim blocks one of the answer's texts and never answers for the others."""
    await ask(stream)
    await stream.response_headers(JSON)
    await stream.body("response", SEVERAL)
    await read_all(stream)


async def left_while_judged(stream: EnvoyStream) -> None:
    await ask(stream)
    await stream.response_headers(JSON)
    await stream.body("response", SEVERAL.replace(b"SECRET", b"silence"))


async def out_of_order(stream: EnvoyStream) -> None:
    await stream.request_headers()
    await stream.request_headers()
    await read_all(stream)


async def unreadable(stream: EnvoyStream) -> None:
    await ask(stream, b'{"messages": [')
    await read_all(stream)


def stream_of(*pieces: bytes, headers: tuple[tuple[str, str], ...] = (SSE,), leaves: bool = False) -> Play:
    """Return the exchange with a streamed answer of these pieces; `leaves` ends it before the last one."""

    async def play(stream: EnvoyStream) -> None:
        await ask(stream, STREAMED)
        await stream.response_headers(*headers)
        for piece in pieces[:-1]:
            await stream.body("response", piece, end=False)
        if leaves:
            await stream.read()
        else:
            await stream.body("response", pieces[-1])
            await read_all(stream)

    return play


def converse(*pieces: bytes, leaves: bool) -> Play:
    async def play(stream: EnvoyStream) -> None:
        await ask(stream, CONVERSE, "/model/some/converse-stream")
        await stream.response_headers(("content-type", "application/vnd.amazon.eventstream"))
        for piece in pieces:
            await stream.body("response", piece, end=False)
        if leaves:
            await stream.read()
        else:
            await stream.body("response", b"")
            await read_all(stream)

    return play


EVENTS = (chat_event("a"), chat_event("b"), DONE)
PACKED = gzip.compress(b"".join(EVENTS))
MUCH = gzip.compress(20_000 * chat_event("a"))
FRAMES = (
    aws_event("messageStart", {"role": "assistant"}),
    aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}}),
)

ENDS: dict[str, Play] = {
    "whole": whole,
    "several": several,
    "left while judged": left_while_judged,
    "out of order": out_of_order,
    "unreadable": unreadable,
    "streamed": stream_of(*EVENTS),
    "left": stream_of(*EVENTS, leaves=True),
    "cut": stream_of(*EVENTS, b"data: {"),
    "gzip": stream_of(PACKED[:20], PACKED[20:], headers=(SSE, GZIP)),
    "gzip left": stream_of(PACKED[:-4], PACKED[-4:], headers=(SSE, GZIP), leaves=True),
    "gzip left in a turn": stream_of(MUCH, b"", headers=(SSE, GZIP), leaves=True),
    "gzip cut": stream_of(PACKED[:20], PACKED[20:-9], headers=(SSE, GZIP)),
    "gzip broken": stream_of(PACKED[:20], b"\xff" * 40, headers=(SSE, GZIP)),
    "frames": converse(*FRAMES, leaves=False),
    "frames left": converse(*FRAMES, leaves=True),
}


async def lose(session: AimSession) -> None:
    await session.receive()
    session.abort()


async def be_silent(session: AimSession) -> None:
    await session.receive()


async def block_first(session: AimSession) -> None:
    await session.receive()
    await session.block("no")


async def send_unknown(session: AimSession) -> None:
    await session.receive()
    await session.socket.send_json({"unknown": True})


async def judge(question: Question) -> Answer:
    match question.body.get("output"):
        case "SECRET":
            return block("no")
        case "silence":
            await asyncio.Event().wait()
    return await allow(question)


async def block_all(_: Question) -> Answer:
    return block("no")


async def fail(_: Question) -> Answer:
    return 503, b""


async def answer_unknown(_: Question) -> Answer:
    return {"required_action": {"action_type": "unknown"}}


async def never(_: Question) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


CODE: dict[type, str] = {
    GeneratorType: "gi_code",
    CoroutineType: "cr_code",
    AsyncGeneratorType: "ag_code",
    FrameType: "f_code",
}
"""The attribute with the code that an object runs."""

OF_AN_EXCHANGE = {
    kind.__name__
    for kind in (
        *(Stream, Driver, Exchange, DryRun, Effects, Outbox, Observation, Share),
        *(RequestLeg, ResponseLeg, ResponseStream, StreamInput, ReleaseQueue, Session, Socket),
    )
}
"""What must be gone: nothing may keep it for later, as the records of the last exchanges are kept."""

JUDGES = {"block": block_all, "fail": fail, "unknown": answer_unknown, "never": never}
SESSIONS = {"lose": lose, "silent": be_silent, "block": block_first, "unknown": send_unknown}


async def check(aim: ScriptedAim, play: Play, *, aim_settings: dict[str, Any] | None = None, **profile: Any) -> None:
    """Run an exchange a few times; fail if only Python's collector frees objects of the sidecar."""
    settings = settings_for(
        aim.base,
        aim={"breaker": {"failures": 1000}, **(aim_settings or {})},
        profiles={"default": profile},
    )
    async with sidecar(settings) as guard:

        async def exchange() -> None:
            async with envoy_stream(f"127.0.0.1:{guard.port}") as stream:
                await play(stream)
            await asyncio.wait_for(guard.service.idle.wait(), 10)
            for session in aim.sessions:
                await asyncio.wait_for(session.closed.wait(), 10)

        gc.collect()
        gc.disable()
        try:
            await exchange()
            running = tasks_of_ours()
            for _ in range(3):
                await exchange()
                if last := tasks_of_ours() - running:
                    _, pending = await asyncio.wait(last, timeout=10)
                    assert not pending
            found = {
                id(it): f"{type(it).__name__} {getattr(it, '__qualname__', '')}"
                for it in gc.get_objects()
                if is_ours(it)
            }
            gc.collect()
            alive = {id(it) for it in gc.get_objects()}
            assert not [what for key, what in found.items() if key not in alive]
            assert not [what for what in found.values() if what.split()[0] in OF_AN_EXCHANGE]
        finally:
            gc.enable()


def tasks_of_ours() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if is_ours(task.get_coro())}


def is_ours(it: object) -> bool:
    """Return whether an object is of a class of the sidecar, or runs a function of it."""
    if type(it) is Reset or (type(it) is FrameType and it.f_code is ExternalProcessor.process.__code__):
        return False  # gRPC keeps the error of an abort, and so the last frame, in a cycle
    kind = type(it)  # `isinstance` would ask a weak proxy for its object, which may be gone
    if kind in CODE:
        return "/extproc/" in getattr(it, CODE[kind]).co_filename
    # An opening that is given up is in a cycle of the library's own.
    return str(kind.__module__).startswith("extproc.") and kind is not Opening


@pytest.mark.parametrize("profile", [{}, {"enforce": False}, {"failure_mode_allow": True}], ids=["on", "dry", "open"])
@pytest.mark.parametrize("name", ENDS)
async def test_exchange_leaves_no_cycles(aim: ScriptedAim, name: str, profile: dict[str, Any]) -> None:
    aim.judge = judge
    await check(aim, ENDS[name], aim_settings={"timeout_seconds": 0.1}, **profile)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("hooks", [["pre_call", "output"], ["moderation", "output"]], ids=["pre", "parallel"])
@pytest.mark.parametrize("name", JUDGES)
async def test_answer_of_aim_leaves_no_cycles(aim: ScriptedAim, name: str, hooks: list[str], opens: bool) -> None:
    aim.judge = JUDGES[name]
    await check(aim, ENDS["streamed"], aim_settings={"timeout_seconds": 0.1}, hooks=hooks, failure_mode_allow=opens)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("end", ["streamed", "gzip", "frames"])
@pytest.mark.parametrize("name", SESSIONS)
async def test_end_of_a_session_leaves_no_cycles(aim: ScriptedAim, name: str, end: str, opens: bool) -> None:
    aim.script = SESSIONS[name]
    await check(aim, ENDS[end], aim_settings={"verdict_timeout_seconds": 0.1}, failure_mode_allow=opens)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("status", [401, 429, 503])
async def test_refused_session_leaves_no_cycles(aim: ScriptedAim, status: int, opens: bool) -> None:
    async def handshake() -> int | None:
        return status

    aim.handshake = handshake
    await check(aim, ENDS["streamed"], failure_mode_allow=opens)
