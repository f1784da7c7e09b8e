"""Aim fails in a session: the websocket that verifies a stream."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from extproc.core.errors import Reason
from tests.envoy.apis import CHAT, DONE
from tests.envoy.faults.aim import answers, does
from tests.envoy.faults.fault import (
    FINE,
    LATE,
    UNAVAILABLE,
    Arrange,
    Ended,
    Fault,
    Opened,
    Outcome,
    always,
    by_policy,
    on,
)
from tests.envoy.faults.gate import saying
from tests.envoy.faults.trial import EVENT_STREAM, TEXTS, Trial
from tests.fakes.aim import AimSession, chunk_of, echo, text_of
from tests.fakes.upstream import Received, pieces

Script = Callable[[AimSession], Awaitable[None]]

_HEAD = on(stream=by_policy(UNAVAILABLE))
_LATE = on(stream=by_policy(LATE))


def in_session(script: Script) -> Arrange:
    """Use `script` as Aim's side of every session."""

    def arrange(trial: Trial) -> None:
        trial.chain.aim.script = script

    return arrange


def at(number: int, then: Script) -> Arrange:
    """Verify the texts before text `number`; when that one arrives, perform `then`."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if text_of(chunk) == TEXTS[number]:
                await then(session)
                return
            await session.verify(chunk)

    return in_session(script)


async def close(session: AimSession) -> None:
    await session.socket.close()


async def abort(session: AimSession) -> None:
    session.abort()


async def hold(session: AimSession) -> None:
    """Continue to read, but send nothing."""
    while await session.receive() is not None:
        pass


async def ping(session: AimSession) -> None:
    """Send nothing but pings."""

    async def keep_pinging() -> None:
        while True:
            await session.socket.ping()
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        pinging = group.create_task(keep_pinging())
        await hold(session)
        pinging.cancel()


async def half_a_frame(session: AimSession) -> None:
    """Send the header of a frame of 100 bytes and 9 of the bytes, then drop the connection."""
    session.transport.write(b'\x81\x64{"verifie')
    session.abort()


async def compressed_frame(session: AimSession) -> None:
    """Send a compressed frame, although no compression was negotiated: a verdict that inflates to a megabyte."""
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(b" " * 1_000_000 + b'{"done": true}') + packer.flush(zlib.Z_SYNC_FLUSH)
    data = data.removesuffix(b"\x00\x00\xff\xff")
    session.transport.write(b"\xc1\x7e" + len(data).to_bytes(2) + data)
    await hold(session)


async def broken_frame(session: AimSession) -> None:
    """Send a frame with reserved bits and an opcode that does not exist."""
    session.transport.write(b"\xff\x00")


def say(frame: str | bytes) -> Script:
    """Send one frame, then hold."""

    async def script(session: AimSession) -> None:
        if isinstance(frame, bytes):
            await session.socket.send_bytes(frame)
        else:
            await session.socket.send_str(frame)
        await hold(session)

    return script


def verifying(*chunks: Any) -> Script:
    """Verify these chunks, then hold."""

    async def script(session: AimSession) -> None:
        for chunk in chunks:
            await session.verify(chunk)
        await hold(session)

    return script


def deafened(trial: Trial) -> None:
    """Let Aim read nothing while the upstream sends more than may be held."""

    async def script(session: AimSession) -> None:
        await session.be_deaf(trial.let_go)

    trial.events = [CHAT.event(role="assistant", content=""), *[CHAT.event(content="x" * 4_000)] * 500]
    trial.said = b"".join(trial.events)
    trial.chain.aim.script, trial.chain.upstream.answer = script, pieces(trial.events)


def busy(trial: Trial) -> None:
    """Let Aim take long for each chunk, so that it reads pings only seconds after they were sent."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            await asyncio.sleep(0.02)
            await session.verify(chunk)
        await session.done()

    trial.events = [CHAT.event(role="assistant", content=""), *[CHAT.event(content="x" * 8_000)] * 250, DONE]
    trial.said = b"".join(trial.events)
    trial.chain.aim.script, trial.chain.upstream.answer = script, pieces(trial.events)


def deaf_at_first(trial: Trial) -> None:
    """Let Aim read nothing until the upstream has sent much more than may wait for Aim, and everything then."""
    much = asyncio.Event()

    async def script(session: AimSession) -> None:
        await session.be_deaf(much)
        await echo(session)

    async def answer(request: Received) -> None:
        await request.head(headers=EVENT_STREAM)
        for number, event in enumerate(trial.events):
            if number == len(trial.events) // 2:
                much.set()
            await request.chunk(event)
        await request.end()

    trial.events = [CHAT.event(role="assistant", content=""), *[CHAT.event(content="x" * 8_000)] * 150, DONE]
    trial.said = b"".join(trial.events)
    trial.chain.aim.script, trial.chain.upstream.answer = script, answer


def meanwhile(script: Script, count: int) -> Arrange:
    """Let the upstream send `count` events, and the others once `script` has ended."""

    def arrange(trial: Trial) -> None:
        events, over = tuple(trial.events), asyncio.Event()

        async def aim(session: AimSession) -> None:
            await script(session)
            over.set()

        async def answer(request: Received) -> None:
            await request.head(headers=EVENT_STREAM)
            for event in events[:count]:
                await request.chunk(event)
            await over.wait()
            for event in events[count:]:
                await request.chunk(event)
            await request.end()

        trial.chain.aim.script, trial.chain.upstream.answer = aim, answer

    return arrange


def out_of_order(trial: Trial) -> None:
    """Verify the second text, then the first, which counts as dropped by then, so that no text waits."""

    async def script(session: AimSession) -> None:
        chunks: list[Any] = []
        while len(chunks) < 2 and (chunk := await session.receive()) is not None:
            if text_of(chunk):
                chunks.append(chunk)
        for chunk in reversed(chunks):
            await session.verify(chunk)
        await hold(session)

    meanwhile(script, 3)(trial)
    trial.events[1] = CHAT.event(content="")
    trial.said = b"".join(trial.events)


async def done_too_early(session: AimSession) -> None:
    """Verify the first text, then send done while the model still sends."""
    while (chunk := await session.receive()) is not None and text_of(chunk) != TEXTS[1]:
        await session.verify(chunk)
    await session.done()
    await hold(session)


async def twice(session: AimSession) -> None:
    """Verify all texts, and the last one twice, before done."""
    last = None
    while (chunk := await session.receive()) is not None:
        await session.verify(chunk)
        if text_of(chunk):
            last = chunk
    assert last is not None
    await session.verify(last)
    await session.done()


async def close_at_the_end(session: AimSession) -> None:
    """Verify all texts; answer the sidecar's done by closing."""
    while (chunk := await session.receive()) is not None:
        await session.verify(chunk)
    await session.socket.close()


async def withhold_done(session: AimSession) -> None:
    """Verify all texts; do not answer the sidecar's done."""
    while (chunk := await session.receive()) is not None:
        await session.verify(chunk)


def lost_after_a_redaction(trial: Trial) -> None:
    """Let the text of choice 0 wait, redact that of choice 1 behind it, then close: the redaction must stay."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if text_of(chunk, 1):
                chunk["choices"][0]["delta"]["content"] = "[X]"
                await session.verify(chunk)
                await session.socket.close()
                return

    first, end = CHAT.event(role="assistant", content=""), [CHAT.event(finish="stop"), DONE]
    waiting = CHAT.event(content=TEXTS[0])
    trial.events = [first, waiting, CHAT.event(index=1, content=TEXTS[1]), *end]
    trial.said = b"".join([first, waiting, CHAT.event(index=1, content="[X]"), *end])
    trial.chain.aim.script, trial.chain.upstream.answer = script, pieces(trial.events)


async def join_then_close(session: AimSession) -> None:
    """Verify the first two texts in one chunk, then close. None of them may leave twice."""
    while (chunk := await session.receive()) is not None:
        if text_of(chunk) == TEXTS[1]:
            chunk["choices"][0]["delta"]["content"] = TEXTS[0] + TEXTS[1]
            await session.verify(chunk)
            await session.socket.close()
            return


def split(trial: Trial) -> None:
    """Let Aim verify the first text as two chunks, which take the places of two texts, before the session is lost."""
    pieces = TEXTS[0][:1], TEXTS[0][1:]

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if text_of(chunk) == TEXTS[1]:
                for piece in pieces:
                    await session.verify(chunk_of(piece))
                await session.socket.close()
                return

    trial.chain.aim.script = script
    texts = *pieces, TEXTS[1] + TEXTS[2]
    trial.events = [trial.events[0], *(CHAT.event(content=text) for text in texts), *trial.events[4:]]
    trial.said = b"".join(trial.events)


async def drop_then_close(session: AimSession) -> None:
    """Verify the second text alone, so that the first is dropped, then close."""
    while (chunk := await session.receive()) is not None:
        if text_of(chunk) == TEXTS[1]:
            await session.verify(chunk)
            await session.socket.close()
            return


def dropped(trial: Trial) -> None:
    """Let Aim drop the first text before the session is lost."""
    trial.chain.aim.script = drop_then_close
    trial.events = [trial.events[0], CHAT.event(content=""), *trial.events[2:]]  # what the client gets of them
    trial.said = b"".join(trial.events)


def lost(times: int, *, code: bool) -> Arrange:
    """Lose `times` sessions before any text was submitted; the upstream waits for that."""

    def arrange(trial: Trial) -> None:
        aim = trial.chain.aim
        gone = asyncio.Event()

        async def script(session: AimSession) -> None:
            if len(aim.sessions) > times:
                await echo(session)
                return
            if code:
                await session.socket.close()
            else:
                session.abort()
            if len(aim.sessions) == times:
                gone.set()

        async def answer(request: Received) -> None:
            await request.head(headers=EVENT_STREAM)
            await gone.wait()
            for event in trial.events:
                await request.chunk(event)
            await request.end()

        aim.script, trial.chain.upstream.answer = script, answer

    return arrange


def _fault(
    name: str, arrange: Arrange, outcome: Outcome, reason: Reason = Reason.SESSION, chain: str = "usual"
) -> Fault:
    return Fault(name, arrange, on(stream=by_policy(outcome)), reason, chain=chain)


def _homeless(name: str, arrange: Arrange, events: int) -> Fault:
    """Return a fault that leaves a text of Aim without an event: an open policy would lose the text."""
    outcomes = Ended("guardrail_unavailable", events), Ended("redaction_failed", events)
    return Fault(name, arrange, on(stream=outcomes), Reason.SESSION)


_UNSENT = chunk_of("what nobody said")
_LATE_BY_ONE = Ended("guardrail_unavailable", 3)
_AT_END = Ended("guardrail_unavailable", 5)
_NO_SOCKET = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"

ROWS = [
    _fault("the handshake is answered with 200", answers(200), UNAVAILABLE, Reason.REJECTED),
    _fault(
        "the handshake is answered with garbage",
        does(saying(b"\x00\x01garbage\r\n\r\n")),
        UNAVAILABLE,
        Reason.UNREACHABLE,
    ),
    _fault("the handshake has a wrong accept key", does(saying(_NO_SOCKET)), UNAVAILABLE, Reason.UNREACHABLE),
    Fault("a session is lost once, before there is text", lost(1, code=False), on(stream=always(FINE))),
    _fault("Aim closes before its first verdict", at(0, close), UNAVAILABLE),
    _fault("Aim closes in mid-stream", at(1, close), LATE),
    _fault("Aim closes instead of sending done", in_session(close_at_the_end), _AT_END),
    _fault("the connection drops in mid-stream", at(1, abort), LATE),
    _fault("the connection drops within a frame", at(1, half_a_frame), LATE),
    Fault(
        "the session is lost after a redaction",
        lost_after_a_redaction,
        on(stream=(Ended("guardrail_unavailable", 1), Opened(words="passes, redacted"))),
        Reason.SESSION,
    ),
    _fault("the session is lost after Aim has joined two texts", in_session(join_then_close), _LATE_BY_ONE),
    Fault(
        "the session is lost after Aim has split a text",
        split,
        on(stream=(_LATE_BY_ONE, Opened(words="passes, with that text as Aim split it"))),
        Reason.SESSION,
    ),
    Fault(
        "the session is lost after Aim has dropped a text",
        dropped,
        on(stream=(_LATE_BY_ONE, Opened(words="passes, without that text"))),
        Reason.SESSION,
    ),
    _fault("Aim is silent from the start", in_session(hold), UNAVAILABLE, Reason.TIMEOUT, "impatient"),
    _fault("Aim falls silent while text waits", at(1, hold), LATE, Reason.TIMEOUT, "impatient"),
    _fault("Aim sends nothing but pings", at(1, ping), LATE, Reason.TIMEOUT, "impatient"),
    _fault("Aim answers pings, and verifies nothing", at(1, hold), LATE, Reason.TIMEOUT, "busy Aim"),
    Fault("Aim is behind, and its pongs are late", busy, on(stream=always(FINE)), chain="busy Aim"),
    _fault("Aim does not answer the sidecar's done", in_session(withhold_done), _AT_END, Reason.TIMEOUT, "impatient"),
    Fault(
        "Aim reads nothing while the model speaks, and everything then",
        deaf_at_first,
        on(stream=always(FINE)),
        chain="patient",
    ),
    _fault("Aim reads nothing", deafened, UNAVAILABLE, Reason.TIMEOUT, "impatient"),
    _fault("an unknown frame", at(1, say('{"verified": true}')), LATE),
    _fault("a frame that is not JSON", at(1, say("<html>")), LATE),
    _fault("a frame that is not an object", at(1, say("7")), LATE),
    _fault("a frame with a repeated key", at(1, say('{"verified_chunk": null, "done": true, "done": true}')), LATE),
    _fault("a compressed frame, although none was agreed", at(1, compressed_frame), LATE),
    _fault("a frame with an invalid websocket opcode", at(1, broken_frame), LATE),
    _fault("a binary frame", at(1, say(b"\x00\xff\xfe")), LATE),
    _fault("a frame that is too large", at(1, say(json.dumps({"verified_chunk": "x" * 1_200_000}))), LATE),
    _fault("a verified text although none waits", meanwhile(verifying(_UNSENT), 1), UNAVAILABLE),
    _fault(
        "a verified choice that was not submitted",
        at(1, verifying({"choices": [{"index": 7, "delta": {"content": "x"}}]})),
        LATE,
    ),
    _fault("a verified chunk with an unknown shape", at(1, verifying({"choices": "none"})), LATE),
    _homeless("a verified text twice", in_session(twice), 5),
    _homeless("verified texts out of order", out_of_order, 3),
    _fault("Aim sends done before the sidecar", meanwhile(done_too_early, 3), LATE),
]
