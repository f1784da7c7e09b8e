"""The client leaves, is slow, or sends unreadable requests."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from extproc.core.errors import Reason
from tests.envoy.apis import CHAT
from tests.envoy.faults.chain import LIMITS
from tests.envoy.faults.fault import (
    FINE,
    INFLATED,
    INVALID,
    TOO_LARGE,
    Arrange,
    ByEnvoy,
    Fault,
    Gone,
    Leg,
    Outcome,
    always,
    by_policy,
    every,
    on,
)
from tests.envoy.faults.trial import EVENT_STREAM, PROMPT, TEXTS, Trial
from tests.fakes.client import Got, exchange
from tests.fakes.connection import abort
from tests.fakes.upstream import Received, pieces

_MEBIBYTE = 1024 * 1024


@asynccontextmanager
async def connected(
    trial: Trial, sent: bytes, length: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request with a content-length of `length` and the bytes `sent`; reset the connection at the end."""
    where = urlsplit(trial.chain.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head = (
        f"POST {trial.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    writer.write(head.encode() + sent)
    await writer.drain()
    try:
        yield reader, writer
    finally:
        await abort(writer)


def leaves(trial: Trial) -> None:
    """Leave while Aim judges. In a stream, the client has the first text, and the upstream has not ended."""
    trial.hold()

    async def answer(request: Received) -> None:
        await request.head(headers=EVENT_STREAM)
        for event in trial.events[:3]:
            await request.chunk(event)
        await request.gone.wait()

    if trial.leg is Leg.STREAM:
        trial.chain.upstream.answer = answer

    async def client(trial: Trial) -> None:
        async with connected(trial, trial.request, len(trial.request)) as (reader, _):
            if trial.leg is Leg.STREAM:
                got = await reader.readuntil(TEXTS[0].encode())
                assert not any(text.encode() in got for text in TEXTS[1:])
                trial.hear()
            await trial.reached.wait()
        if trial.leg is Leg.STREAM:
            await trial.chain.upstream.requests[0].gone.wait()
        else:
            await trial.given_up.wait()

    trial.client = client


def leaves_during_the_handshake(trial: Trial) -> None:
    """Leave while Aim opens the session of a stream."""

    async def handshake() -> int | None:
        trial.reached.set()
        return await asyncio.Event().wait() or None

    async def answer(request: Received) -> None:
        await request.head(headers=EVENT_STREAM)
        for event in trial.events[:3]:
            await request.chunk(event)
        await request.gone.wait()

    async def client(trial: Trial) -> None:
        async with connected(trial, trial.request, len(trial.request)):
            await trial.reached.wait()
            await trial.chain.upstream.arrived.wait()  # the session opens meanwhile, so either may be first
        await trial.chain.upstream.requests[0].gone.wait()

    trial.chain.aim.handshake, trial.chain.upstream.answer, trial.client = handshake, answer, client


def leaves_politely(trial: Trial) -> None:
    """Close the sending half of the connection while Aim judges, and wait."""
    trial.hold()

    async def client(trial: Trial) -> None:
        async with connected(trial, trial.request, len(trial.request)) as (reader, writer):
            if trial.leg is Leg.STREAM:
                await reader.readuntil(TEXTS[0].encode())
                trial.hear()
            await trial.reached.wait()
            writer.write_eof()
            rest = await reader.read()
            assert not any(text.encode() in rest for text in TEXTS)

    trial.client = client


def leaves_the_upstream(trial: Trial) -> None:
    """Leave while the upstream prepares its answer."""

    async def answer(request: Received) -> None:
        await request.gone.wait()
        trial.reached.set()

    async def client(trial: Trial) -> None:
        async with connected(trial, trial.request, len(trial.request)):
            await trial.chain.upstream.arrived.wait()
        await trial.reached.wait()  # the upstream has noticed

    trial.chain.upstream.answer, trial.client = answer, client


def sends_half(then: Callable[[asyncio.StreamReader], Awaitable[bytes]] | None) -> Arrange:
    """Send half of a request, then leave or do `then`."""

    async def client(trial: Trial) -> Got | None:
        body = trial.request
        async with connected(trial, body[: len(body) // 2], len(body)) as (reader, _):
            if then is None:
                while "streams" not in await trial.chain.held():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                return None
            head = await then(reader)
            return Got(status=int(head.split()[1]), is_whole=True)

    def arrange(trial: Trial) -> None:
        trial.client = client

    return arrange


def writes_slowly(trial: Trial) -> None:
    """Send the request in small pieces."""

    async def client(trial: Trial) -> Got:
        body = trial.request
        async with connected(trial, b"", len(body)) as (reader, writer):
            for start in range(0, len(body), 20):
                writer.write(body[start : start + 20])
                await writer.drain()
                await asyncio.sleep(0.01)
            return await _answer(reader)

    trial.client = client


async def _answer(reader: asyncio.StreamReader, pause: float = 0) -> Got:
    """Read a chunked answer, with a pause after each chunk."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
        await asyncio.sleep(pause)
    return Got(status=int(head.split()[1]), body=body, is_whole=True)


def reads_slowly(trial: Trial) -> None:
    """Read an answer of half a megabyte in small pieces."""
    trial.events = CHAT.events(*["x" * 4_000] * 128)
    trial.said = b"".join(trial.events)
    trial.chain.upstream.answer = pieces(trial.events)

    async def client(trial: Trial) -> Got:
        async with connected(trial, trial.request, len(trial.request)) as (reader, _):
            return await _answer(reader, pause=0.002)

    trial.client = client


def sends(body: bytes, *, chunked: bool = False, **headers: str) -> Arrange:
    """Send `body` instead of the request."""

    async def client(trial: Trial) -> Got:
        pieces_of = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
        sent = pieces_of if chunked else body
        return await exchange(trial.chain.url, "POST", trial.path, trial.headers, sent)

    def arrange(trial: Trial) -> None:
        trial.request = body
        trial.headers += tuple((name.replace("_", "-"), value) for name, value in headers.items())
        trial.client = client

    return arrange


_ASK = CHAT.request(PROMPT)
_REPEATED = b'{"model": "m", "messages": [], "messages": [{"role": "user", "content": "' + PROMPT.encode() + b'"}]}'
_DEEP = b'{"messages": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
_LONG = CHAT.request(PROMPT + "x" * LIMITS["request_bytes"])
_ENDLESS = CHAT.request(PROMPT + "x" * (LIMITS["request_bytes"] + 2 * _MEBIBYTE))
_BOMB = gzip.compress(CHAT.request(PROMPT + "x" * 10_000_000))

_HEADERS: dict[str, Any] = {f"x_{number}": "y" for number in range(LIMITS["headers"])}


def _unread(
    name: str, body: bytes, reason: Reason = Reason.BODY_UNREADABLE, closed: Outcome = INVALID, **how: Any
) -> Fault:
    return Fault(name, sends(body, **how), on(request=by_policy(closed)), reason)


ROWS = [
    Fault("it leaves while Aim judges", leaves, every(always(Gone()))),
    Fault("it closes its sending half while Aim judges", leaves_politely, every(always(Gone()))),
    Fault(
        "it leaves while the upstream prepares its answer",
        leaves_the_upstream,
        on(answer=always(Gone()), stream=always(Gone())),
    ),
    Fault("it sends half a request and leaves", sends_half(None), on(request=always(Gone()))),
    Fault(
        "it sends half a request and then nothing",
        sends_half(lambda reader: reader.readuntil(b"\r\n\r\n")),
        on(request=always(ByEnvoy(408, "allowed"))),
        chain="hasty Envoy",
    ),
    Fault("it sends slowly", writes_slowly, on(request=always(FINE))),
    Fault("it reads slowly", reads_slowly, on(stream=always(FINE))),
    _unread("its body is not JSON", b"Hello " + PROMPT.encode()),
    _unread("its JSON is truncated", _ASK[:-2]),
    _unread("its JSON is a number", b"1"),
    Fault("its JSON is a list of requests", sends(b"[" + _ASK + b"]"), on(request=always(FINE))),
    _unread("its JSON repeats a key", _REPEATED),
    _unread("its JSON is nested too deeply", _DEEP),
    _unread("its body is not UTF-8", _ASK.replace(b"prompt", b"\xff")),
    _unread("its gzip is corrupt", gzip.compress(_ASK)[:-12] + bytes(12), content_encoding="gzip"),
    _unread(
        "its encodings are stacked",
        gzip.compress(gzip.compress(_ASK)),
        Reason.UNSUPPORTED_ENCODING,
        content_encoding="gzip, gzip",
    ),
    _unread("its encoding is unknown", _ASK, Reason.UNSUPPORTED_ENCODING, content_encoding="rot13"),
    _unread("its gzip is a compression bomb", _BOMB, Reason.BODY_TOO_LARGE, INFLATED, content_encoding="gzip"),
    _unread("its body is too large", _LONG, Reason.BODY_TOO_LARGE, TOO_LARGE),
    Fault(
        "its body is too large, without a content-length",
        sends(_LONG, chunked=True),
        on(request=by_policy(TOO_LARGE)),
        Reason.BODY_TOO_LARGE,
    ),
    Fault(
        "its body is larger than Envoy buffers, without a content-length",
        sends(_ENDLESS, chunked=True),
        on(request=always(TOO_LARGE)),
    ),
    Fault("it sends too many headers", sends(_ASK, **_HEADERS), on(request=always(TOO_LARGE))),
]
