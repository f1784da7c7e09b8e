"""The bytes of a session, sent by a scripted peer: however they are cut, and whatever is wrong with them."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from extproc.aim.client import AimClient
from extproc.aim.connection import Patience, Socket
from extproc.aim.opening import Opening
from extproc.core.errors import Reason
from extproc.core.events import ChunkVerified, Event, SessionDone, SessionFailed, StreamBlocked
from tests.fakes.aim import chunk_of
from tests.fakes.aim_client import CALLER, Events
from tests.fakes.cuts import PLACES, bytewise, cut
from tests.fakes.http_peer import Link, Peer, Script, answer
from tests.fakes.sidecar import settings_for

_DONE = b'{"done": true}'
_EVENT_BYTES = 1024
_MOST = 4 * _EVENT_BYTES + 1_048_576
"""The longest message of Aim with this limit of an event."""

_FAILED = SessionFailed(1, Reason.SESSION, opened=True)


def frame(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True, mask: bool = False) -> bytes:
    """Return a frame; those of a server have no mask."""
    return Frame(opcode, data, fin).serialize(mask=mask)


def close(code: int) -> bytes:
    """Return a close frame."""
    return frame(Close(code, "").serialize(), Opcode.CLOSE)


def verifying(text: str) -> bytes:
    """Return the message that verifies a chunk with this text."""
    return json.dumps({"verified_chunk": chunk_of(text)}).encode()


def verified(text: str) -> Event:
    """Return the event of that message."""
    return ChunkVerified(1, ((0, text),), chunk_of(text))


async def accepted(link: Link) -> bytes:
    """Return the answer that accepts the handshake."""
    server = ServerProtocol()
    server.receive_data(await link.head())
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return b"".join(server.data_to_send())


async def received(link: Link) -> list[Frame]:
    """Return the frames that the client sends until it leaves."""
    server = ServerProtocol(state=State.OPEN)
    while data := await link.reader.read(65_536):
        server.receive_data(data)
    return [it for it in server.events_received() if isinstance(it, Frame)]


def whole(data: bytes) -> list[bytes]:
    """Return the bytes as one piece."""
    return [data]


def sends(data: bytes, got: list[Frame], pieces_of: Callable[[bytes], list[bytes]] = whole) -> Script:
    """Accept a session, send `data` in pieces, and put the client's frames into `got` until it leaves."""

    async def script(link: Link) -> None:
        for piece in pieces_of(await accepted(link) + data):
            await link.send(piece)
            await asyncio.sleep(0)  # lets the client read
        got.extend(await received(link))

    return script


async def events_of(script: Script, count: int) -> list[Event]:
    """Return the first events of a session with a peer that follows `script`, which then ends."""
    events = Events()
    async with Peer(script) as peer:
        aim_settings = settings_for(peer.url, limits={"event_bytes": _EVENT_BYTES})
        async with AimClient(aim_settings) as client:
            session = client.open_session(1, CALLER, events)
            found = [await events.next() for _ in range(count)]
            session.close()
        await peer.ended()
    assert events.queue.empty()
    return found


def codes(frames: list[Frame]) -> list[int]:
    """Return the codes of the close frames."""
    return [Close.parse(it.data).code for it in frames if it.opcode is Opcode.CLOSE]


# -- cuts ----------------------------------------------------------------------------------------------------------

_TEXTS = st.lists(st.text(max_size=20), max_size=4)
_FRAGMENTS = st.lists(st.integers(0, 2**16), max_size=3)


async def _cut(texts: list[str], fragments: list[int], pieces_of: Callable[[bytes], list[bytes]]) -> None:
    data = b""
    pings: list[bytes] = []
    for message in [*map(verifying, texts), _DONE]:
        *parts, last = cut(message, fragments)
        for number, part in enumerate([*parts, last]):
            pings.append(b"%d" % len(pings))
            data += frame(pings[-1], Opcode.PING) + frame(b"", Opcode.PONG)
            data += frame(part, Opcode.CONT if number else Opcode.TEXT, fin=number == len(parts))
    got: list[Frame] = []
    events = await events_of(sends(data, got, pieces_of), len(texts) + 1)
    assert events == [*map(verified, texts), SessionDone(1)]
    assert [it.data for it in got if it.opcode is Opcode.PONG] == pings
    assert codes(got) == [CloseCode.NORMAL_CLOSURE]


@given(_TEXTS, _FRAGMENTS, PLACES)
@settings(max_examples=30)
async def test_cuts_do_not_change_the_messages(texts: list[str], fragments: list[int], places: list[int]) -> None:
    """Frames arrive whole and in pieces, some with the answer to the handshake; messages come in one frame or more."""
    await _cut(texts, fragments, lambda data: cut(data, places))


@pytest.mark.parametrize("pieces_of", [whole, bytewise])
async def test_messages_are_the_same_whole_and_byte_by_byte(pieces_of: Callable[[bytes], list[bytes]]) -> None:
    await _cut(["Hello", "", "Grüße"], [3, 3, 20], pieces_of)


# -- violations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(_DONE, mask=True), CloseCode.PROTOCOL_ERROR, id="masked"),
        pytest.param(b"\xc1" + frame(_DONE)[1:], CloseCode.PROTOCOL_ERROR, id="reserved bit"),
        pytest.param(b"\x83" + frame(_DONE)[1:], CloseCode.PROTOCOL_ERROR, id="reserved opcode"),
        pytest.param(frame(_DONE, Opcode.CONT), CloseCode.PROTOCOL_ERROR, id="end without a beginning"),
        pytest.param(frame(b"{", fin=False) + frame(_DONE), CloseCode.PROTOCOL_ERROR, id="two beginnings"),
        pytest.param(b"\x09\x00", CloseCode.PROTOCOL_ERROR, id="ping in pieces"),
        pytest.param(b"\x89\x7e\x00\x7e" + b"x" * 126, CloseCode.PROTOCOL_ERROR, id="long ping"),
        pytest.param(b"\x81\x7f" + (_MOST + 1).to_bytes(8), CloseCode.MESSAGE_TOO_BIG, id="long message"),
        pytest.param(
            frame(b" " * (_MOST // 2), fin=False) + frame(b" " * (_MOST // 2 + 2), Opcode.CONT)[:100],
            CloseCode.MESSAGE_TOO_BIG,
            id="long message in pieces",
        ),
        pytest.param(close(1000), CloseCode.NORMAL_CLOSURE, id="close"),
        pytest.param(close(1011), CloseCode.INTERNAL_ERROR, id="close for an error"),
        pytest.param(close(4000), 4000, id="close for a reason of Aim's own"),
        pytest.param(frame(b"", Opcode.CLOSE), CloseCode.NO_STATUS_RCVD, id="close without a code"),
        pytest.param(b"\x88\x02\x03\xed", CloseCode.PROTOCOL_ERROR, id="close with a code that is never sent"),
        pytest.param(frame(b"{", fin=False) + close(1000), CloseCode.PROTOCOL_ERROR, id="close within a message"),
    ],
)
async def test_session_fails_at_once_and_the_websocket_closes(data: bytes, code: int) -> None:
    """What came before counts. The peer keeps the connection open, so the session cannot wait for its end."""
    got: list[Frame] = []
    data = frame(verifying("a")) + data + frame(verifying("b"))
    assert await events_of(sends(data, got), 2) == [verified("a"), _FAILED]
    assert codes(got) == [code]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(frame(b'{"blocking_message": "\xff"}'), id="not UTF-8"),
        pytest.param(frame(b'{"blocking_message": "\xff"}', Opcode.BINARY), id="not UTF-8, binary"),
        pytest.param(frame(b""), id="empty"),
        pytest.param(frame(b"", fin=False) + frame(b"", Opcode.CONT), id="empty, in pieces"),
    ],
)
async def test_message_that_is_not_json_fails_the_session(message: bytes) -> None:
    assert await events_of(sends(message, []), 1) == [_FAILED]


async def test_message_may_be_binary() -> None:
    assert await events_of(sends(frame(_DONE, Opcode.BINARY), []), 1) == [SessionDone(1)]


async def test_longest_message_is_taken() -> None:
    message = _DONE + b" " * (_MOST - len(_DONE))
    assert await events_of(sends(frame(message), []), 1) == [SessionDone(1)]


async def test_nothing_counts_after_the_end() -> None:
    data = frame(b'{"blocking_message": "No."}') + frame(verifying("a")) + frame(_DONE) + close(1000)
    assert await events_of(sends(data, []), 1) == [StreamBlocked(1, "No.")]


# -- ends ----------------------------------------------------------------------------------------------------------


async def _leaves(link: Link) -> None:
    link.writer.close()


async def _half_closes(link: Link) -> None:
    link.writer.write_eof()
    await link.end()


async def _resets(link: Link) -> None:
    link.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.writer.transport.abort()


@pytest.mark.parametrize(
    "begun", [b"", frame(_DONE)[:5], frame(_DONE, fin=False)], ids=["", "in a frame", "in a message"]
)
@pytest.mark.parametrize("end", [_leaves, _half_closes, _resets])
async def test_end_without_a_close_frame_fails_the_session(
    end: Callable[[Link], Awaitable[None]], begun: bytes
) -> None:
    async def script(link: Link) -> None:
        await link.send(await accepted(link) + frame(verifying("a")))
        await link.send(begun)
        await reads.wait()
        await end(link)

    reads = asyncio.Event()
    events = Events()
    async with Peer(script) as peer, AimClient(settings_for(peer.url)) as client:
        session = client.open_session(1, CALLER, events)
        assert await events.next() == verified("a")
        reads.set()
        assert await events.next() == _FAILED
        session.close()
        await peer.ended()


# -- the opening ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        pytest.param(answer("401 Unauthorized", "content-length: 0"), Reason.KEY_REFUSED, id="401"),
        pytest.param(answer("403 Forbidden", "content-length: 2", body=b"no"), Reason.KEY_REFUSED, id="403"),
        pytest.param(answer("404 Not Found", "content-length: 0"), Reason.REJECTED, id="404"),
        pytest.param(answer("429 Too Many Requests", "content-length: 0"), Reason.RATE_LIMITED, id="429"),
        pytest.param(
            answer("503 Service Unavailable", "transfer-encoding: chunked", body=b"0\r\n\r\n"),
            Reason.SERVER_ERROR,
            id="503",
        ),
        pytest.param(answer("301 Moved", "location: /", "content-length: 0"), Reason.UNREADABLE_ANSWER, id="301"),
        pytest.param(answer("200 OK", "content-length: 0"), Reason.REJECTED, id="200"),
        pytest.param(answer("101 Switching Protocols"), Reason.UNREACHABLE, id="101 without its fields"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", Reason.UNREACHABLE, id="another protocol"),
        pytest.param(b"\x00" * 10_000, Reason.UNREACHABLE, id="no line"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n", Reason.UNREACHABLE, id="half an answer"),
        pytest.param(b"", Reason.UNREACHABLE, id="no answer"),
    ],
)
@pytest.mark.parametrize("pieces_of", [whole, bytewise])
async def test_reason_for_a_handshake_that_fails(
    head: bytes, reason: Reason, pieces_of: Callable[[bytes], list[bytes]]
) -> None:
    async def script(link: Link) -> None:
        await link.head()
        for piece in [*pieces_of(head[:300]), head[300:]]:
            await link.send(piece)
            await asyncio.sleep(0)

    assert await events_of(script, 1) == [SessionFailed(1, reason, opened=False)]


class Wire(asyncio.Transport):
    """A transport that sends nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop the bytes."""

    def is_closing(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Drop the protocol: the test calls it."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set no limits."""

    def pause_reading(self) -> None:
        """Do nothing: the test is what reads."""


async def test_connection_that_is_lost_before_it_is_handed_over_has_failed() -> None:
    frames = ClientProtocol(parse_uri("ws://aim.example/"))
    opening = Opening(frames)
    opening.connection_made(Wire())
    frames.send_request(frames.connect())
    server = ServerProtocol()
    server.receive_data(b"".join(frames.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    opening.data_received(b"".join(server.data_to_send()))
    opening.connection_lost(None)
    failures: list[Reason] = []
    socket_ = Socket(
        frames,
        Patience(20, 15),
        on_message=lambda _: None,
        on_caught_up=lambda: None,
        on_failure=lambda error: failures.append(error.reason),
    )
    opening.hand_over(socket_)
    assert failures == [Reason.SESSION]
