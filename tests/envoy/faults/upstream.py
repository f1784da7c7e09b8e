"""The upstream fails, or sends unreadable answers."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable
from typing import Any

import brotli
import zstandard

from extproc.core.errors import Reason
from tests.envoy.apis import CHAT
from tests.envoy.faults.chain import LIMITS
from tests.envoy.faults.fault import (
    FINE,
    RELAYED,
    UNREADABLE,
    Arrange,
    ByEnvoy,
    Cut,
    Ended,
    Fault,
    Leg,
    Outcome,
    Outcomes,
    Whole,
    always,
    by_policy,
    on,
)
from tests.envoy.faults.trial import EVENT_STREAM, TEXTS, Trial
from tests.fakes.aim import AimSession, text_of
from tests.fakes.upstream import Received, pieces, whole

_UNREADABLE_LATE = Ended("guardrail_unreadable_response")


def refused(trial: Trial) -> Awaitable[None]:
    """Stop listening."""
    return trial.chain.to_model.refuse()


def does(answer: object) -> Arrange:
    """Let the upstream perform `answer` for every request."""

    def arrange(trial: Trial) -> None:
        trial.chain.upstream.answer = answer  # type: ignore[assignment]

    return arrange


def _kind(request: Received) -> str:
    return "text/event-stream" if b'"stream"' in request.body else "application/json"


async def reset_at_once(request: Received) -> None:
    request.writer.transport.abort()


async def garbage(request: Received) -> None:
    request.writer.write(b"\x16\x03\x01 garbage\r\n\r\n")
    await request.writer.drain()
    request.writer.close()


def breaks_off(*, cleanly: bool) -> Arrange:
    """End the connection before the body's end. In a stream the client has the first text by then."""

    def arrange(trial: Trial) -> None:
        said = trial.said

        async def answer(request: Received) -> None:
            if trial.leg is Leg.STREAM:
                await request.head(headers=EVENT_STREAM)
                for event in trial.events[:2]:
                    await request.chunk(event)
                await trial.heard.wait()
            else:
                await request.head(headers=[("content-type", "application/json"), ("content-length", "4000")])
                request.writer.write(said)
                await request.writer.drain()
            if cleanly:
                request.writer.close()
            else:
                request.writer.transport.abort()

        trial.chain.upstream.answer = answer

    return arrange


def breaks_off_unverified(trial: Trial) -> None:
    """Reset the connection after Aim has received text, but has verified none."""
    received = asyncio.Event()

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if text_of(chunk) == TEXTS[1]:
                received.set()

    async def answer(request: Received) -> None:
        await request.head(headers=EVENT_STREAM)
        for event in trial.events[:3]:
            await request.chunk(event)
        await received.wait()
        request.writer.transport.abort()

    trial.chain.aim.script, trial.chain.upstream.answer = script, answer


def says(body: bytes | None, *, status: int = 200, kind: str = "", **headers: Any) -> Arrange:
    """Answer with `body` and its length; streams are chunked. None means the default body."""

    def arrange(trial: Trial) -> None:
        if body is not None:
            trial.said = body
        if trial.leg is Leg.STREAM:
            answer = pieces([trial.said], status, kind or "text/event-stream", **headers)
        else:
            answer = whole(trial.said, status, kind or "application/json", **headers)
        trial.chain.upstream.answer = answer

    return arrange


def encoded(coding: str, *, spoil: bool = False) -> Arrange:
    """Answer in a content-encoding; with `spoil` the middle of the body is corrupt."""
    encode = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}

    def arrange(trial: Trial) -> None:
        body = encode[coding](trial.said)
        middle = len(body) // 2
        said = body[:middle] + bytes(255 - byte for byte in body[middle : middle + 16]) + body[middle + 16 :]
        says(said if spoil else body[:middle], content_encoding=coding)(trial)

    return arrange


def bomb(trial: Trial) -> None:
    """Answer with a body that inflates to a thousand times its size."""
    text = "x" * 10_000_000
    body = CHAT.stream(text) if trial.leg is Leg.STREAM else CHAT.answer(text)
    says(gzip.compress(body), content_encoding="gzip")(trial)


def length(difference: int) -> Arrange:
    """Answer with a content-length that is wrong by `difference`, then close."""

    def arrange(trial: Trial) -> None:
        said = trial.said
        trial.said = said[:difference]

        async def answer(request: Received) -> None:
            size = str(len(said) + difference)
            await request.head(headers=[("content-type", _kind(request)), ("content-length", size)])
            request.writer.write(said)
            await request.writer.drain()
            request.writer.close()

        trial.chain.upstream.answer = answer

    return arrange


def events(*more: bytes, count: int = 2) -> Arrange:
    """Stream the first events, then `more`, then the end. The client has the first text by then."""

    def arrange(trial: Trial) -> None:
        before = tuple(trial.events[:count])
        trial.said = b"".join((*before, *more))

        async def answer(request: Received) -> None:
            await request.head(headers=EVENT_STREAM)
            for event in before:
                await request.chunk(event)
            await trial.heard.wait()
            for event in more:
                await request.chunk(event)
            await request.end()

        trial.chain.upstream.answer = answer

    return arrange


def goes_on(trial: Trial) -> None:
    """Send text after the mark of the end, when Aim was told already that no text follows."""
    more = (b"data: [DONE]\n\n", CHAT.event(content=TEXTS[1]))
    told = asyncio.Event()

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            await session.verify(chunk)
        told.set()

    async def answer(request: Received) -> None:
        await request.head(headers=EVENT_STREAM)
        for event in (*trial.events[:2], more[0]):
            await request.chunk(event)
        await told.wait()
        await request.chunk(more[1])
        await request.end()

    trial.said = b"".join((*trial.events[:2], *more))
    trial.chain.aim.script, trial.chain.upstream.answer = script, answer


def slow(trial: Trial) -> None:
    """Answer in pieces of a few bytes, with pauses."""
    said = trial.said

    async def answer(request: Received) -> None:
        await request.head(headers=[("content-type", _kind(request)), ("transfer-encoding", "chunked")])
        for start in range(0, len(said), 100):
            await request.chunk(said[start : start + 100])
            await asyncio.sleep(0.01)
        await request.end()

    trial.chain.upstream.answer = answer


async def silent(request: Received) -> None:
    """Never answer."""
    await request.gone.wait()


def falls_silent(trial: Trial) -> None:
    """Send only the first text of a stream, or half of an answer."""

    async def answer(request: Received) -> None:
        if trial.leg is Leg.STREAM:
            await request.head(headers=EVENT_STREAM)
            for event in trial.events[:2]:
                await request.chunk(event)
        else:
            await request.head(headers=[("content-type", "application/json"), ("content-length", "4000")])
            request.writer.write(trial.said)
            await request.writer.drain()
        await request.gone.wait()

    trial.chain.upstream.answer = answer


def _both(answer: Outcomes, stream: Outcomes) -> dict[Leg, Outcomes]:
    return {Leg.ANSWER: answer, Leg.STREAM: stream}


def _unread(stream: Outcome = UNREADABLE) -> dict[Leg, Outcomes]:
    return _both(by_policy(UNREADABLE), by_policy(stream))


_HEADERS: dict[str, Any] = {f"x_{number}": "y" for number in range(LIMITS["headers"])}
_OTHER_STATUS = b'{"error": {"message": "Overloaded."}}'

ROWS = [
    Fault("it refuses connections", refused, _both(always(ByEnvoy(503, "allowed")), always(ByEnvoy(503, "allowed")))),
    Fault(
        "it resets before its headers",
        does(reset_at_once),
        _both(always(ByEnvoy(503, "allowed")), always(ByEnvoy(503, "allowed"))),
    ),
    Fault(
        "it does not speak HTTP", does(garbage), _both(always(ByEnvoy(502, "allowed")), always(ByEnvoy(502, "allowed")))
    ),
    Fault("it resets in mid-body", breaks_off(cleanly=False), _both(always(ByEnvoy(502)), always(Cut()))),
    Fault("it closes in mid-body", breaks_off(cleanly=True), _both(always(ByEnvoy(502)), always(Cut()))),
    Fault("it resets before anything is verified", breaks_off_unverified, on(stream=always(ByEnvoy(502)))),
    Fault(
        "it never answers",
        does(silent),
        _both(always(ByEnvoy(504, "allowed")), always(ByEnvoy(504, "allowed"))),
        chain="hasty Envoy",
    ),
    Fault("it falls silent in mid-body", falls_silent, _both(always(ByEnvoy(504)), always(Cut())), chain="hasty Envoy"),
    Fault("it is slow", slow, _both(always(FINE), always(FINE))),
    *(
        Fault(
            f"it answers {status}",
            says(_OTHER_STATUS, status=status),
            _both(always(Whole(status, RELAYED)), always(Whole(status, RELAYED))),
        )
        for status in (429, 500)
    ),
    Fault("its body is empty", says(b""), _both(always(FINE), always(FINE))),
    Fault("its body is HTML", says(b"<html>", kind="text/html"), _unread(), Reason.BODY_UNREADABLE),
    Fault(
        "it sends another content type",
        says(None, kind="text/plain"),
        _both(always(FINE), always(FINE)),
    ),
    Fault(
        "its JSON is truncated", says(CHAT.answer("Hi")[:-3]), on(answer=by_policy(UNREADABLE)), Reason.BODY_UNREADABLE
    ),
    Fault("its body is not UTF-8", says(b'data: {"x": "\xff"}\n\n'), _unread(), Reason.BODY_UNREADABLE),
    Fault("its encodings are stacked", says(None, content_encoding="gzip, br"), _unread(), Reason.UNSUPPORTED_ENCODING),
    Fault("its encoding is unknown", says(None, content_encoding="rot13"), _unread(), Reason.UNSUPPORTED_ENCODING),
    *(
        Fault(
            f"its {coding} is corrupt",
            encoded(coding, spoil=True),
            _both(by_policy(UNREADABLE), always(UNREADABLE)),
            Reason.BODY_UNREADABLE,
        )
        for coding in ("gzip", "deflate", "br", "zstd")
    ),
    *(
        Fault(
            f"its {coding} is truncated",
            encoded(coding),
            _both(by_policy(UNREADABLE), always(UNREADABLE)),
            Reason.BODY_UNREADABLE,
        )
        for coding in ("gzip", "br", "zstd")
    ),
    Fault(
        "its gzip is a compression bomb", bomb, _both(by_policy(UNREADABLE), always(UNREADABLE)), Reason.BODY_TOO_LARGE
    ),
    Fault("its content-length is too small", length(-10), on(answer=by_policy(UNREADABLE)), Reason.BODY_UNREADABLE),
    Fault("its content-length is too large", length(10), on(answer=always(ByEnvoy(502)))),
    Fault(
        "its stream ends within an event",
        events(b'data: {"choices": [{"ind'),
        on(stream=by_policy(_UNREADABLE_LATE)),
        Reason.BODY_UNREADABLE,
    ),
    Fault("its stream ends without an end mark", events(count=3), on(stream=always(FINE))),
    Fault(
        "its stream continues after the end mark",
        goes_on,
        on(stream=by_policy(_UNREADABLE_LATE)),
        Reason.BODY_UNREADABLE,
    ),
    Fault(
        "an event is not JSON",
        events(b"data: <html>\n\n"),
        on(stream=by_policy(_UNREADABLE_LATE)),
        Reason.BODY_UNREADABLE,
    ),
    Fault(
        "an event is nested too deeply",
        events(b"data: " + b"[" * 3_000 + b"\n\n"),
        on(stream=by_policy(_UNREADABLE_LATE)),
        Reason.BODY_UNREADABLE,
    ),
    Fault(
        "an event is too large",
        events(CHAT.event(content="x" * LIMITS["event_bytes"])),
        on(stream=by_policy(_UNREADABLE_LATE)),
        Reason.BODY_TOO_LARGE,
    ),
    Fault(
        "an event never ends",
        events(b"data: " + b"x" * LIMITS["event_bytes"]),
        on(stream=by_policy(_UNREADABLE_LATE)),
        Reason.BODY_TOO_LARGE,
    ),
    Fault(
        "its answer is too large",
        says(CHAT.answer("x" * LIMITS["response_bytes"])),
        on(answer=by_policy(UNREADABLE)),
        Reason.BODY_TOO_LARGE,
    ),
    Fault("it sends too many headers", says(None, **_HEADERS), _both(always(UNREADABLE), always(UNREADABLE))),
]
