"""Sessions: how they open and end, and what bounds them."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from contextlib import suppress

import pytest
from websockets.utils import accept_key

from extproc.aim.session import Session
from extproc.core.errors import Reason
from extproc.core.events import ChunkVerified, SessionDone, SessionFailed, StreamBlocked
from tests.fakes.aim import AimSession, Script, ScriptedAim, chunk_of, echo
from tests.fakes.aim_client import CALLER, Events, client_of
from tests.fakes.http_peer import Link, Peer, answer, says


async def test_session_verifies_a_whole_stream(aim: ScriptedAim) -> None:
    events = Events()
    async with client_of(aim.base) as client:
        session = client.open_session(3, CALLER, events)
        chunk = chunk_of("x" * 2_000_000)  # larger than the library's default
        session.submit(json.dumps(chunk))
        session.done()
        verified = await events.next()
        assert isinstance(verified, ChunkVerified)
        assert (verified.session, verified.texts) == (3, ((0, "x" * 2_000_000),))
        assert isinstance(await events.next(), SessionDone)
        session.close()
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)
    headers = aim.sessions[0].headers
    assert headers["x-aim-litellm-hook"] == "output"
    assert headers["x-aim-call-id"] == "call-1"
    assert aim.sessions[0].chunks == [chunk]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ('{"blocking_message": "No."}', StreamBlocked),
        ('{"done": true}', SessionDone),
        ("junk", SessionFailed),
        ('{"verified_chunk": null}', SessionFailed),
        ('{"done": true, "done": true}', SessionFailed),
        (None, SessionFailed),
    ],
)
async def test_frame_ends_the_session_with_its_event(aim: ScriptedAim, frame: str | None, expected: type) -> None:
    async def script(session: AimSession) -> None:
        if frame is None:
            await session.socket.close()
        else:
            await session.socket.send_str(frame)

    aim.script = script
    events = Events()
    async with client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events)
        event = await events.next()
        assert isinstance(event, expected)
        if isinstance(event, SessionFailed):
            assert (event.reason, event.opened) == (Reason.SESSION, True)
        session.close()
    assert events.queue.empty()


async def test_unrequested_frames_end_the_session(aim: ScriptedAim) -> None:
    async def script(session: AimSession) -> None:
        while not session.socket.closed:
            await session.verify(chunk_of("x"))

    aim.script = script
    events = Events()
    async with client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events)
        session.submit(json.dumps(chunk_of("x")))
        for _ in range(100):
            if (event := await events.next()) == SessionFailed(1, Reason.SESSION, opened=True):
                break
            assert isinstance(event, ChunkVerified)
        else:
            raise AssertionError("the client accepted a hundred frames for one chunk")
        session.close()
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)


@pytest.mark.parametrize(("status", "reason"), [(401, Reason.KEY_REFUSED), (503, Reason.SERVER_ERROR)])
async def test_reason_for_a_refused_handshake(aim: ScriptedAim, status: int, reason: Reason) -> None:
    async def handshake() -> int:
        return status

    aim.handshake = handshake
    events = Events()
    async with client_of(aim.base) as client:
        client.open_session(1, CALLER, events)
        assert await events.next() == SessionFailed(1, reason, opened=False)


async def test_session_that_is_closed_before_it_begins_is_freed(aim: ScriptedAim) -> None:
    freed = asyncio.Event()
    gc.disable()  # it must leave no cycle
    try:
        async with client_of(aim.base) as client:
            session = client.open_session(1, CALLER, Events())
            weakref.finalize(session, freed.set)
            session.close()
            del session
            await asyncio.wait_for(freed.wait(), 10)
    finally:
        gc.enable()


async def test_handshake_has_a_deadline(aim: ScriptedAim) -> None:
    async def handshake() -> None:
        await asyncio.Event().wait()

    aim.handshake = handshake
    events = Events()
    async with client_of(aim.base, timeout_seconds=0.2) as client:
        client.open_session(1, CALLER, events)
        assert await events.next() == SessionFailed(1, Reason.TIMEOUT, opened=False)


async def test_redirect_is_not_followed(aim: ScriptedAim) -> None:
    elsewhere = answer("302 Found", f"location: {aim.base}/detect/output/ws", "content-length: 0")
    async with Peer(says(elsewhere)) as peer, client_of(peer.url) as client:
        events = Events()
        client.open_session(1, CALLER, events)
        event = await events.next()
        assert isinstance(event, SessionFailed)
        assert not event.opened
    assert aim.sessions == []


async def test_compression_that_was_not_offered_is_refused() -> None:
    async def agrees(link: Link) -> None:
        head = (await link.head()).decode()
        key = next(line for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key:"))
        assert "sec-websocket-extensions" not in head.lower()
        accept = accept_key(key.partition(":")[2].strip())
        fields = ("upgrade: websocket", "connection: upgrade", f"sec-websocket-accept: {accept}")
        extension = "sec-websocket-extensions: permessage-deflate"
        await link.send(answer("101 Switching Protocols", *fields, extension))
        await link.end()

    async with Peer(agrees) as peer, client_of(peer.url) as client:
        events = Events()
        client.open_session(1, CALLER, events)
        assert await events.next() == SessionFailed(1, Reason.UNREACHABLE, opened=False)


async def test_closed_port_is_unreachable(unused_tcp_port: int) -> None:
    events = Events()
    async with client_of(f"http://127.0.0.1:{unused_tcp_port}") as client:
        client.open_session(1, CALLER, events)
        assert await events.next() == SessionFailed(1, Reason.UNREACHABLE, opened=False)


async def test_closing_cancels_the_handshake(aim: ScriptedAim) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def handshake() -> None:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    aim.handshake = handshake
    events = Events()
    async with client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events)
        await asyncio.wait_for(arrived.wait(), 10)
        session.close()
        await asyncio.wait_for(left.wait(), 10)
    assert events.queue.empty()


async def test_answered_pings_keep_a_session(aim: ScriptedAim) -> None:
    """While no text waits, Aim may say nothing but pongs, for as long as it likes."""

    async def script(session: AimSession) -> None:
        for _ in range(12):
            await session.socket.pinged.acquire()
        await session.verify(chunk_of("x"))

    aim.script = script
    events = Events()
    async with client_of(aim.base, ping_seconds=0.05, verdict_timeout_seconds=0.2) as client:
        session = client.open_session(1, CALLER, events)
        assert isinstance(await events.next(), ChunkVerified)
        session.close()


async def test_frames_keep_the_session_of_an_aim_that_is_behind(aim: ScriptedAim) -> None:
    """Aim reads its pings many intervals late, because they wait behind chunks; but it verifies chunk after chunk."""
    size, count = 50_000, 60

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            await asyncio.sleep(0.05)
            await session.verify(chunk)
        await session.done()

    aim.script = script
    events = Events()
    async with client_of(aim.base, ping_seconds=0.02, verdict_timeout_seconds=2) as client:
        session = client.open_session(1, CALLER, events)
        for _ in range(count):
            session.submit(json.dumps(chunk_of("x" * size)))
        session.done()
        for _ in range(count):
            assert isinstance(await events.next(), ChunkVerified)
        assert isinstance(await events.next(), SessionDone)
        session.close()


async def test_aim_that_neither_reads_nor_speaks_is_dead(aim: ScriptedAim) -> None:
    go = asyncio.Event()

    async def script(session: AimSession) -> None:
        await session.be_deaf(go)

    aim.script = script
    events = Events()
    async with client_of(aim.base, ping_seconds=0.05, verdict_timeout_seconds=0.1) as client:
        session = client.open_session(1, CALLER, events)
        assert await events.next() == SessionFailed(1, Reason.SESSION, opened=True)
        session.close()
        go.set()


async def test_aim_that_does_not_read_ends_in_time_although_it_speaks(aim: ScriptedAim) -> None:
    """Chunks without text start no clock of the exchange."""
    go = asyncio.Event()

    async def script(session: AimSession) -> None:
        async def ping() -> None:
            with suppress(ConnectionError):
                while True:
                    await session.socket.ping()
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            group.create_task(ping())
            await session.be_deaf(go)

    aim.script = script
    events = Events()
    async with client_of(aim.base, ping_seconds=0.05, verdict_timeout_seconds=0.2) as client:
        session = client.open_session(1, CALLER, events)
        for _ in range(10):  # more than the connection takes, less than what ends the session
            session.submit(json.dumps(chunk_of("x" * 1_000_000)))
        assert await events.next() == SessionFailed(1, Reason.TIMEOUT, opened=True)
        session.close()
        go.set()


@pytest.mark.parametrize("is_open", [False, True])
async def test_session_is_behind_until_aim_has_read(aim: ScriptedAim, is_open: bool) -> None:
    go, caught_up = asyncio.Event(), asyncio.Event()

    async def script(session: AimSession) -> None:
        await session.be_deaf(go)
        await echo(session)

    async def handshake() -> None:
        await go.wait()

    if is_open:
        aim.script = script
    else:
        aim.handshake = handshake
    events = Events()
    async with asyncio.timeout(30), client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events, caught_up.set)
        if is_open:
            await caught_up.wait()  # nothing waits in a session that has opened
            caught_up.clear()
        session.submit(json.dumps(chunk_of("x")))
        assert not session.is_behind
        for _ in range(10):
            session.submit(json.dumps(chunk_of("x" * 1_000_000)))
        assert session.is_behind
        go.set()
        await caught_up.wait()
        assert not session.is_behind
        for _ in range(11):
            assert isinstance(await events.next(), ChunkVerified)
        session.close()


@pytest.mark.parametrize("is_open", [False, True])
async def test_chunks_that_aim_does_not_read_are_bounded(aim: ScriptedAim, is_open: bool) -> None:
    go = asyncio.Event()
    aim.script = reading_one(go)
    events = Events()
    async with asyncio.timeout(30), client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events)
        if is_open:
            await verified_one(session, events)
        for _ in range(90):
            session.submit(json.dumps(chunk_of("x" * 1_000_000)))
        assert await events.next() == SessionFailed(1, Reason.SESSION, opened=False)
        session.close()
        go.set()


async def test_closing_does_not_wait_for_an_aim_that_does_not_read(aim: ScriptedAim) -> None:
    go = asyncio.Event()
    aim.script = reading_one(go)
    events = Events()
    async with asyncio.timeout(15), client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events)
        await verified_one(session, events)
        for _ in range(10):  # more than the connection takes, less than what ends the session
            session.submit(json.dumps(chunk_of("x" * 1_000_000)))
        session.close()
    # The client has left: its closing handshake is bounded, although Aim answers none. (Without a bound, the
    # keep-alive pings would end it after 20 s.)
    go.set()
    assert events.queue.empty()


def reading_one(go: asyncio.Event) -> Script:
    """Return a script that verifies one chunk and reads nothing more until `go` is set."""

    async def script(session: AimSession) -> None:
        chunk = await session.receive()
        assert chunk is not None
        await session.verify(chunk)
        await go.wait()

    return script


async def verified_one(session: Session, events: Events) -> None:
    """Wait until a chunk is verified: the session is then open at the client's end too."""
    session.submit(json.dumps(chunk_of("Hello")))
    assert isinstance(await events.next(), ChunkVerified)
