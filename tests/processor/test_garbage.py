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

import brotli
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
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

REQUEST = json.dumps(chat_request("Hello")).encode()
STREAMED = json.dumps(chat_request("Hello", stream=True)).encode()
SSE = ("content-type", "text/event-stream")
JSON = ("content-type", "application/json")
GZIP = ("content-encoding", "gzip")
SEVERAL = chat_answer("SECRET", "silence", "silence")

PROFILES: tuple[dict[str, Any], ...] = ({}, {"enforce": False}, {"failure_mode_allow": True})
PROFILES_IDS = ("on", "dry", "open")

_TIMES = 4
"""How often each exchange is run."""

Play = Callable[[EnvoyStream], Awaitable[None]]


async def ask(stream: EnvoyStream, body: bytes = REQUEST, path: str = "/v1/chat/completions") -> Any:
    """Send a request; return the reply to its body, None if the exchange is over."""
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


def stream_from(path: str, request: Any, kind: str, *pieces: bytes, leaves: bool = False) -> Play:
    """Return the exchange with another API, whose streams have the content type `kind`."""

    async def play(stream: EnvoyStream) -> None:
        await ask(stream, json.dumps(request).encode(), path)
        await stream.response_headers(("content-type", kind))
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
BROTLI = (brotli.compress(b"".join(EVENTS))[:9], brotli.compress(b"".join(EVENTS))[9:])
MUCH = gzip.compress(20_000 * chat_event("a"))
CONVERSE = (
    "/model/some/converse-stream",
    {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]},
    "application/vnd.amazon.eventstream",
)
FRAMES = (
    aws_event("messageStart", {"role": "assistant"}),
    aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}}),
)

PAYLOADS = (
    "/endpoints/some/invocations-response-stream",
    {"messages": [{"role": "user", "content": "Hello"}], "stream": True},
    "application/vnd.amazon.eventstream",
)
OLLAMA = ("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}, "application/x-ndjson")
LINES = (
    b'{"message": {"role": "assistant", "content": "a"}, "done": false}\n',
    b'{"message": {"role": "assistant", "content": "b"}, "done": true}\n',
)
GEMINI = (
    "/v1beta/models/m:streamGenerateContent",
    {"contents": [{"parts": [{"text": "Hello"}]}]},
    "application/json",
)
ELEMENTS = (
    b'[{"candidates": [{"content": {"parts": [{"text": "a"}]}}]}',
    b',{"candidates": [{"content": {"parts": [{"text": "b"}]}}]}]',
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
    "brotli": stream_of(*BROTLI, headers=(SSE, ("content-encoding", "br"))),
    "frames": stream_from(*CONVERSE, *FRAMES),
    "frames left": stream_from(*CONVERSE, *FRAMES, leaves=True),
    "payloads": stream_from(*PAYLOADS, *(aws_event("PayloadPart", each) for each in EVENTS)),
    "payloads left": stream_from(*PAYLOADS, *(aws_event("PayloadPart", each) for each in EVENTS[:2]), leaves=True),
    "lines": stream_from(*OLLAMA, *LINES),
    "lines left": stream_from(*OLLAMA, LINES[0], leaves=True),
    "array": stream_from(*GEMINI, *ELEMENTS),
    "array left": stream_from(*GEMINI, ELEMENTS[0], leaves=True),
}

OUTCOMES = {"several": "blocked", "out of order": "aborted"} | dict.fromkeys(
    ("unreadable", "cut", "gzip cut", "gzip broken"), "refused"
)
"""How an exchange ends that is neither allowed nor left."""

OPEN_OUTCOMES = {**OUTCOMES, "unreadable": "aborted", "cut": "failed_open"}
"""The same under a policy that fails open. After an unreadable request Envoy sends nothing."""


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


async def check(
    aim: ScriptedAim, play: Play, outcome: str, *, aim_settings: dict[str, Any] | None = None, **profile: Any
) -> None:
    """Run an exchange a few times; fail if only Python's collector frees objects of the sidecar.

    Each exchange must end with `outcome`.
    """
    settings = settings_for(
        aim.base,
        aim={"breaker": {"failures": 1000}, **(aim_settings or {})},
        # A dry run whose client has left waits for a stream without text as long as it may hold its head.
        profiles={"default": {"stream_head_seconds": 0.2, **profile}},
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
            for _ in range(_TIMES - 1):
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
        assert outcomes(guard) == {outcome: _TIMES}


def outcomes(guard: Sidecar) -> dict[str, int]:
    """Return how many exchanges have ended with each outcome."""
    (counts,) = (each for each in guard.service.telemetry.registry.collect() if each.name == "extproc_exchanges")
    return {sample.labels["outcome"]: int(sample.value) for sample in counts.samples}


def outcome_of(name: str, profile: dict[str, Any]) -> str:
    """Return how the exchange `name` ends under `profile`."""
    if not profile.get("enforce", True):
        return "dry_run"
    known = OPEN_OUTCOMES if profile.get("failure_mode_allow") else OUTCOMES
    return known.get(name, "aborted" if "left" in name else "allowed")


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


@pytest.mark.parametrize("profile", PROFILES, ids=PROFILES_IDS)
@pytest.mark.parametrize("name", ENDS)
async def test_exchange_leaves_no_cycles(aim: ScriptedAim, name: str, profile: dict[str, Any]) -> None:
    aim.judge = judge
    # Where Aim never answers, that must end, too. Otherwise it must not depend on time how an exchange ends.
    aim_settings = {"timeout_seconds": 0.3} if name in ("several", "left while judged") else {}
    await check(aim, ENDS[name], outcome_of(name, profile), aim_settings=aim_settings, **profile)


@pytest.mark.parametrize("profile", PROFILES, ids=PROFILES_IDS)
async def test_session_that_never_opens_leaves_no_cycles(aim: ScriptedAim, profile: dict[str, Any]) -> None:
    opening = asyncio.Event()

    async def handshake() -> int | None:
        opening.set()
        await asyncio.Event().wait()
        return None

    async def leave_meanwhile(stream: EnvoyStream) -> None:
        await ask(stream, STREAMED)
        await opening.wait()
        opening.clear()

    aim.handshake = handshake
    await check(aim, leave_meanwhile, outcome_of("left", profile), **profile)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("hooks", [["pre_call", "output"], ["moderation", "output"]], ids=["pre", "parallel"])
@pytest.mark.parametrize("name", JUDGES)
async def test_answer_of_aim_leaves_no_cycles(aim: ScriptedAim, name: str, hooks: list[str], opens: bool) -> None:
    aim.judge = JUDGES[name]
    outcome = "blocked" if name == "block" else "failed_open" if opens else "refused"
    aim_settings = {"timeout_seconds": 0.1} if name == "never" else {}
    await check(aim, ENDS["streamed"], outcome, aim_settings=aim_settings, hooks=hooks, failure_mode_allow=opens)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("end", ["streamed", "gzip", "frames"])
@pytest.mark.parametrize("name", SESSIONS)
async def test_end_of_a_session_leaves_no_cycles(aim: ScriptedAim, name: str, end: str, opens: bool) -> None:
    aim.script = SESSIONS[name]
    outcome = "blocked" if name == "block" else "failed_open" if opens else "refused"
    aim_settings = {"verdict_timeout_seconds": 0.1} if name == "silent" else {}
    await check(aim, ENDS[end], outcome, aim_settings=aim_settings, failure_mode_allow=opens)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("status", [401, 429, 503])
async def test_refused_session_leaves_no_cycles(aim: ScriptedAim, status: int, opens: bool) -> None:
    async def handshake() -> int | None:
        return status

    aim.handshake = handshake
    outcome = "failed_open" if opens and status != 401 else "refused"  # `true` does not include a refused key
    await check(aim, ENDS["streamed"], outcome, failure_mode_allow=opens)
