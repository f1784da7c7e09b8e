"""Every limit at its exact value: the limit passes, one more is refused with a clear error, and nothing stays held."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from extproc.core.content.document import MAX_DEPTH
from extproc.core.vocabulary import size_of
from tests.fakes.aim import AimSession, Question, ScriptedAim, allow
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.http_peer import Link, Peer
from tests.fakes.rig import chat_answer, chat_event, chat_request
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

JSON = ("content-type", "application/json")
SSE = ("content-type", "text/event-stream")
GZIP = ("content-encoding", "gzip")
REQUEST = json.dumps(chat_request("Hello")).encode()
STREAMED = json.dumps(chat_request("Hello", stream=True)).encode()


@asynccontextmanager
async def one_exchange(guard: Sidecar) -> AsyncIterator[EnvoyStream]:
    async with envoy_stream(f"127.0.0.1:{guard.port}") as stream:
        yield stream


def refusal(message: Any) -> str:
    """Return the status and code of an immediate response; "" for any other message."""
    if not message.HasField("immediate_response"):
        return ""
    reply = message.immediate_response
    error = json.loads(reply.body)["error"]
    assert error["message"]
    assert reply.details == f"aim_{error['code']}"
    return f"{reply.status.code} {error['code']}"


async def asked(stream: EnvoyStream, body: bytes, *headers: tuple[str, str]) -> str:
    """Send a request; return its refusal."""
    await stream.request_headers(*headers)
    first = await stream.read()
    if refusal(first):
        return refusal(first)
    await stream.body("request", body)
    return refusal(await stream.read())


async def answered(
    stream: EnvoyStream, body: bytes, *headers: tuple[str, str], request: bytes = REQUEST, end: bool = True
) -> str:
    """Send a request that passes and a response; return the refusal of the response."""
    assert await asked(stream, request) == ""
    await stream.response_headers(*headers)
    await stream.body("response", body, end=end)
    return refusal(await stream.read())


# -- what has a size ---------------------------------------------------------------------------------------------------


def sized(size: int) -> bytes:
    """Return a chat request of `size` bytes."""
    return json.dumps(chat_request("x" * (size - len(json.dumps(chat_request("")))))).encode()


def held_for(body: bytes) -> int:
    """Return what counts as held while Aim judges a chat request: the body, its text, the messages and the call."""
    return len(body) + sys.getsizeof(body.decode()) + 2 * size_of(json.loads(body)["messages"])


def nested(depth: int) -> bytes:
    """Return a document with `depth` nested arrays and objects."""
    return b'{"messages": [{"role": "user", "content": "Hi"}], "x": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def many(values: int) -> bytes:
    """Return a document of `values` arrays, objects, keys and strings."""
    head, unit = b'{"messages": [{"role": "user", "content": "Hi"}], "x": [', [b'"a"', b"[]"]
    return head + b",".join((unit * values)[: values - 10]) + b"]}"


def headers(count: int, own: int) -> list[tuple[str, str]]:
    """Return header fields; with the test's `own` fields there are `count`."""
    return [(f"x-{number}", "1") for number in range(count - own)]


def event(size: int) -> bytes:
    """Return an event of `size` bytes."""
    return chat_event(text(size))


def text(size: int) -> str:
    """Return the text of an event of `size` bytes."""
    return "x" * (size - len(chat_event("")))


def waiting(raw: bytes, said: str) -> int:
    """Return what counts as held for a chat event that waits: its bytes, its data, its text, and what these take."""
    data = raw.removeprefix(b"data: ").strip().decode()
    return len(raw) + sys.getsizeof(data) + 640 + (len(said) + 640 if said else 0)


def inflating(size: int) -> bytes:
    """Return a compressed chat request of `size` bytes."""
    return gzip.compress(sized(size))


@dataclass(frozen=True)
class Row:
    """A limit: how to set it, how to send an amount, and the refusal for one more."""

    name: str
    limit: int
    attempt: Callable[[EnvoyStream, int], Awaitable[str]]
    refused: str
    limits: dict[str, int] = field(default_factory=dict)


# The size at which a compressed body of one letter reaches the ratio.
RATIO_BYTES = next(size for size in range(65_537, 200_000) if size > 100 * len(inflating(size)))

ROWS = [
    Row("request_bytes", 4096, lambda it, n: asked(it, sized(n)), "413 request_too_large", {"request_bytes": 4096}),
    Row(
        "request_bytes, declared",
        4096,
        lambda it, n: asked(it, REQUEST, ("content-length", str(n))),
        "413 request_too_large",
        {"request_bytes": 4096},
    ),
    Row(
        "request_bytes, inflated",
        4096,
        lambda it, n: asked(it, inflating(n), GZIP),
        "413 request_too_large",
        {"request_bytes": 4096},
    ),
    Row(
        "response_bytes",
        4096,
        lambda it, n: answered(it, chat_answer("x" * (n - len(chat_answer("")))), JSON),
        "502 guardrail_unreadable_response",
        {"response_bytes": 4096},
    ),
    Row(
        "response_bytes, inflated",
        4096,
        lambda it, n: answered(it, gzip.compress(chat_answer("x" * (n - len(chat_answer(""))))), JSON, GZIP),
        "502 guardrail_unreadable_response",
        {"response_bytes": 4096},
    ),
    Row(
        "event_bytes",
        4096,
        lambda it, n: answered(it, event(n), SSE, request=STREAMED),
        "502 guardrail_unreadable_response",
        {"event_bytes": 4096},
    ),
    Row(
        "event_bytes beyond held_bytes",
        4096,
        lambda it, n: answered(it, event(n), SSE, request=STREAMED),
        "502 guardrail_unreadable_response",
        {"event_bytes": 4096, "held_bytes": 1024},
    ),
    Row("JSON depth of a request", MAX_DEPTH, lambda it, n: asked(it, nested(n)), "400 invalid_body"),
    Row(
        "JSON depth of a response",
        MAX_DEPTH,
        lambda it, n: answered(it, nested(n), JSON),
        "502 guardrail_unreadable_response",
    ),
    Row(
        "JSON depth of an event",
        MAX_DEPTH,
        lambda it, n: answered(it, b"data: " + nested(n) + b"\n\n", SSE, request=STREAMED),
        "502 guardrail_unreadable_response",
    ),
    Row("values of a request", 4096, lambda it, n: asked(it, many(n)), "413 request_too_large", {"values": 4096}),
    Row(
        "values of a compressed request",
        4096,
        lambda it, n: asked(it, gzip.compress(many(n)), GZIP),
        "413 request_too_large",
        {"values": 4096, "inflate_ratio": 1000},
    ),
    Row(
        "values of a response",
        4096,
        lambda it, n: answered(it, many(n), JSON),
        "502 guardrail_unreadable_response",
        {"values": 4096},
    ),
    Row(
        "values of an event",
        4096,
        lambda it, n: answered(it, b"data: " + many(n) + b"\n\n", SSE, request=STREAMED),
        "502 guardrail_unreadable_response",
        {"values": 4096},
    ),
    Row(
        "headers of a request",
        64,
        lambda it, n: asked(it, REQUEST, *headers(n, 2)),
        "413 request_too_large",
        {"headers": 64},
    ),
    Row(
        "headers of a response",
        64,
        lambda it, n: answered(it, chat_answer("Hi"), JSON, *headers(n, 2)),
        "502 guardrail_unreadable_response",
        {"headers": 64},
    ),
    Row(
        "headers of a stream",
        64,
        lambda it, n: answered(it, chat_event("Hi"), SSE, *headers(n, 2), request=STREAMED),
        "502 guardrail_unreadable_response",
        {"headers": 64},
    ),
    Row("inflate_ratio", RATIO_BYTES - 1, lambda it, n: asked(it, inflating(n), GZIP), "413 request_too_large"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_size_limit_is_enforced_at_its_exact_value(aim: ScriptedAim, row: Row) -> None:
    async with sidecar(settings_for(aim.base, limits=row.limits)) as guard:
        for size, expected in ((row.limit, ""), (row.limit + 1, row.refused)):
            async with one_exchange(guard) as stream:
                assert await row.attempt(stream, size) == expected
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0


# -- what is counted ---------------------------------------------------------------------------------------------------


async def test_number_of_streams_is_limited(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, limits={"streams": 2})) as guard, AsyncExitStack() as stack:
        found = [await asked(await stack.enter_async_context(one_exchange(guard)), REQUEST) for _ in range(3)]
    assert found == ["", "", "503 guardrail_overloaded"]


async def test_number_of_sessions_is_limited(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, limits={"sessions": 2})) as guard:
        async with AsyncExitStack() as stack:
            found = []
            for _ in range(3):
                stream = await stack.enter_async_context(one_exchange(guard))
                found.append(await answered(stream, chat_event("Hi"), SSE, request=STREAMED, end=False))
            assert found == ["", "", "503 guardrail_overloaded"]
            # A whole answer needs no session, even if a stream was requested.
            stream = await stack.enter_async_context(one_exchange(guard))
            assert await answered(stream, chat_answer("Hi"), JSON, request=STREAMED) == ""
            assert len(aim.sessions) == 2
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        for session in aim.sessions:
            await asyncio.wait_for(session.closed.wait(), 10)
        assert guard.metric("extproc_sessions") == 0
        errors = guard.metric("extproc_detection_errors_total", hook="output", reason="held_bytes")
        assert errors == 1


async def test_stream_without_a_session_may_fail_open(aim: ScriptedAim) -> None:
    opens = {"default": {"failure_mode_allow": {"response": ["held_bytes"]}}}
    async with sidecar(settings_for(aim.base, limits={"sessions": 1}, profiles=opens)) as guard:
        async with one_exchange(guard) as first, one_exchange(guard) as second:
            assert await answered(first, chat_event("Hi"), SSE, request=STREAMED, end=False) == ""
            assert await answered(second, chat_event("Hi"), SSE, request=STREAMED, end=False) == ""
            sent = (await second.read()).response_body.response.body_mutation.streamed_response.body
            assert sent == chat_event("Hi")
        assert guard.metric("extproc_fail_open_total", leg="response", reason="held_bytes") == 1


ROLE = chat_event(role="assistant", text="")


async def test_held_bytes_of_a_stream_are_limited(aim: ScriptedAim) -> None:
    """At the limit a stream waits for Aim's next frame. Over the limit Aim must free something in time."""

    async def script(session: AimSession) -> None:
        role = await session.receive()
        await session.receive()
        assert role is not None
        await session.verify(role)  # this frame frees nothing
        await session.closed.wait()

    aim.script = script
    held = waiting(ROLE, "") + waiting(event(4096), text(4096))
    for limit, expected, reason in (
        (held, "503 guardrail_unavailable", "timeout"),
        (held - 1, "503 guardrail_overloaded", "held_bytes"),
    ):
        settings = settings_for(
            aim.base,
            limits={"held_bytes": limit},
            aim={"verdict_timeout_seconds": 1},
            profiles={"default": {"stream_head_seconds": 300}},
        )
        async with sidecar(settings) as guard:
            async with one_exchange(guard) as stream:
                assert await answered(stream, ROLE + event(4096), SSE, request=STREAMED, end=False) == expected
            await asyncio.wait_for(guard.service.idle.wait(), 10)
            assert guard.metric("extproc_detection_errors_total", hook="output", reason=reason) == 1
            assert guard.service.load.held_bytes == 0


async def test_held_bytes_of_the_process_are_limited(aim: ScriptedAim) -> None:
    """The sum of all held bytes decides whether the next exchange is accepted."""
    arrived: asyncio.Queue[None] = asyncio.Queue()
    judged = asyncio.Event()

    async def judge(_: object) -> Any:
        arrived.put_nowait(None)
        await judged.wait()
        return {"detected": False, "details": {}, "detection_message": None}

    aim.judge = judge
    limit = 2 * held_for(sized(2048))
    async with (
        sidecar(settings_for(aim.base, limits={"total_held_bytes": limit})) as guard,
        AsyncExitStack() as stack,
    ):
        streams = [await stack.enter_async_context(one_exchange(guard)) for _ in range(4)]
        for stream in streams[:2]:
            await stream.request_headers()
            await stream.read()
            await stream.body("request", sized(2048))
            await asyncio.wait_for(arrived.get(), 10)
        assert guard.service.load.held_bytes == limit
        await streams[2].request_headers()
        assert refusal(await streams[2].read()) == ""
        await streams[2].body("request", sized(1024), end=True)
        await asyncio.wait_for(arrived.get(), 10)
        assert await asked(streams[3], REQUEST) == "503 guardrail_overloaded"
        judged.set()
        for stream in streams[:3]:
            assert refusal(await stream.read()) == ""
        context = sum(size_of(json.loads(body)["messages"]) for body in (sized(2048), sized(2048), sized(1024)))
        assert guard.service.load.held_bytes == context  # the answers are judged in the context of the messages
        assert await asked(await stack.enter_async_context(one_exchange(guard)), REQUEST) == ""


@asynccontextmanager
async def streams_that_wait(
    aim: ScriptedAim, limits: dict[str, int], *sizes: int, **profile: Any
) -> AsyncIterator[tuple[Sidecar, list[EnvoyStream]]]:
    """Let event streams with texts of these sizes wait for Aim, one after the other; each has released one event."""
    arrived: asyncio.Queue[None] = asyncio.Queue()

    async def script(session: AimSession) -> None:
        chunk = await session.receive()
        assert chunk is not None
        await session.verify(chunk)
        while await session.receive() is not None:
            arrived.put_nowait(None)

    aim.script = script
    settings = settings_for(aim.base, limits=limits, profiles={"default": profile})
    async with sidecar(settings) as guard, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(one_exchange(guard)) for _ in sizes]
        for stream, size in zip(streams, sizes, strict=True):
            assert await answered(stream, chat_event("Hi"), SSE, request=STREAMED, end=False) == ""
            assert (await stream.read()).HasField("response_body")
            await stream.body("response", event(size), end=False)
            await asyncio.wait_for(arrived.get(), 10)
        yield guard, streams
        for stream in streams:
            await stream.done()
    await asyncio.wait_for(guard.service.idle.wait(), 10)
    assert guard.service.load.held_bytes == guard.service.load.stream_bytes == 0
    assert not guard.service.load.shares


ROOM = 180_000
"""The held bytes of the process that events of nearly 60,000 bytes take: they count with their data and their texts."""


async def body_of(stream: EnvoyStream) -> bytes:
    """Return the next released piece of a response."""
    return bytes((await stream.read()).response_body.response.body_mutation.streamed_response.body)


async def test_fullest_event_streams_end_beyond_the_held_bytes_of_the_process(aim: ScriptedAim) -> None:
    async with streams_that_wait(aim, {"total_held_bytes": ROOM}, 20_000, 30_000, 5_000) as (guard, streams):
        assert guard.service.load.held_bytes < ROOM
        await streams[2].body("response", event(10_000), end=False)
        assert b"guardrail_overloaded" in await body_of(streams[1])  # the fullest, though the last one grew
        assert guard.service.load.held_bytes < ROOM
        assert guard.metric("extproc_detection_errors_total", hook="output", reason="held_bytes") == 1
        await streams[0].body("response", event(40_000), end=False)
        assert b"guardrail_overloaded" in await body_of(streams[0])  # now it is the fullest itself
        assert guard.metric("extproc_detection_errors_total", hook="output", reason="held_bytes") == 2


async def test_event_stream_that_yields_its_room_may_fail_open(aim: ScriptedAim) -> None:
    opens = {"failure_mode_allow": {"response": ["held_bytes"]}}
    async with streams_that_wait(aim, {"total_held_bytes": ROOM}, 20_000, 30_000, **opens) as (guard, streams):
        await streams[0].body("response", event(15_000), end=False)
        assert await body_of(streams[0]) == event(20_000) + event(15_000)
        assert guard.metric("extproc_fail_open_total", leg="response", reason="held_bytes") == 1
        while guard.service.load.held_bytes >= ROOM:  # noqa: ASYNC110 - what was written counts a little longer
            await asyncio.sleep(0)


async def test_dry_run_yields_its_room_before_an_event_stream(aim: ScriptedAim) -> None:
    limits = {"total_held_bytes": ROOM}
    async with streams_that_wait(aim, limits, 10_000, 12_000, enforce=False) as (guard, _):
        guard.service.settings = settings_for(aim.base, limits=limits)
        async with one_exchange(guard) as stream:
            assert await answered(stream, chat_event("Hi"), SSE, request=STREAMED, end=False) == ""
            assert (await stream.read()).HasField("response_body")
            before = guard.service.load.first_bytes
            assert before > waiting(event(10_000), text(10_000)) + waiting(event(12_000), text(12_000))
            await stream.body("response", event(40_000), end=False)
            while guard.service.load.first_bytes == before:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            assert guard.service.load.first_bytes < waiting(
                event(12_000), text(12_000)
            )  # the fullest dry run is enough
            assert guard.service.load.stream_bytes > waiting(event(40_000), text(40_000))


async def test_each_concurrent_call_of_an_answer_counts(aim: ScriptedAim) -> None:
    arrived: asyncio.Queue[None] = asyncio.Queue()
    judged = asyncio.Event()

    async def judge(question: Question) -> Any:
        if question.hook == "output":
            arrived.put_nowait(None)
            await judged.wait()
        return await allow(question)

    aim.judge = judge
    async with sidecar(settings_for(aim.base)) as guard, one_exchange(guard) as stream:
        assert await asked(stream, sized(10_000)) == ""
        await stream.response_headers(JSON)
        await stream.body("response", chat_answer("a", "b", "c"))
        for _ in range(3):
            await asyncio.wait_for(arrived.get(), 10)
        messages = size_of(json.loads(sized(10_000))["messages"])
        assert (
            4 * messages < guard.service.load.held_bytes < 5 * messages
        )  # the context, and three calls that repeat it
        judged.set()
        assert (await stream.read()).HasField("response_headers")
        assert (await stream.read()).HasField("response_body")
        await stream.done()
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0


@pytest.mark.parametrize("ends_well", [True, False])
async def test_an_answer_of_aim_counts_while_it_is_read(ends_well: bool) -> None:
    may_end = asyncio.Event()
    answer = json.dumps({"detected": False, "padding": "x" * 300_000}).encode()

    async def half_first(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer[:200_000])
        await may_end.wait()
        if ends_well:
            await link.send(answer[200_000:])
            await link.end()

    async with Peer(half_first) as aim, sidecar(settings_for(aim.url)) as guard, one_exchange(guard) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", REQUEST)
        while guard.service.load.held_bytes < 200_000:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        assert guard.service.load.held_bytes < 200_000 + 4096 + held_for(REQUEST)
        may_end.set()
        assert refusal(await stream.read()) == ("" if ends_well else "503 guardrail_unavailable")
        assert guard.service.load.held_bytes < 4096
        await stream.done()
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0


async def test_an_answer_of_aim_is_bounded_by_the_size_of_its_call() -> None:
    async def endless(link: Link) -> None:
        body = await link.request()
        size = 12 * len(body) + 1_048_576 + 1
        await link.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * size) + b" " * size)
        await link.end()

    async with Peer(endless) as aim, sidecar(settings_for(aim.url)) as guard, one_exchange(guard) as stream:
        assert await asked(stream, REQUEST) == "503 guardrail_unavailable"
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0


async def test_chunks_that_wait_for_a_session_to_open_count(aim: ScriptedAim) -> None:
    opening, may_open = asyncio.Event(), asyncio.Event()

    async def handshake() -> None:
        opening.set()
        await may_open.wait()

    aim.handshake = handshake
    async with sidecar(settings_for(aim.base)) as guard, one_exchange(guard) as stream:
        assert await asked(stream, STREAMED) == ""
        await stream.response_headers(SSE)
        await stream.body("response", event(10_000), end=False)
        await asyncio.wait_for(opening.wait(), 10)
        while guard.service.load.held_bytes < 20_000:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        may_open.set()
        assert (await stream.read()).HasField("response_headers")
        assert await body_of(stream) == event(10_000)
        await stream.body("response", b"")
        assert await body_of(stream) == b""
        await stream.done()
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0
