"""One client of a soak: it sends one request, on a connection of its own, and records what it got."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field

import h11

from tests.bench.process import LOOPBACK
from tests.soak.model import NUMBER
from tests.soak.script import MARK, Script, decoded

_READ_BYTES = 65_536
_SLOW_BYTES = 4096


@dataclass(slots=True)
class Transcript:
    """What a client got; `body` has no framing. Times are those of the event loop."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False
    """Whether the response is complete for HTTP."""
    has_left: bool = False
    """Whether the client left before the end."""
    is_stuck: bool = False
    """Whether the exchange did not end in time."""
    began: float = 0.0
    ended: float = 0.0

    @property
    def text(self) -> bytes:
        """The body without its content-encoding."""
        return decoded(self.body, self.headers.get("content-encoding", ""))


def email(number: int) -> str:
    """Return the user of exchange `number`: the audit log names the exchange by it."""
    return f"{number}@soak"


async def perform(port: int, script: Script, bound: float) -> Transcript:
    """Perform the client's part of `script`; give up `bound` seconds after it should have ended."""
    clock = asyncio.get_running_loop().time
    got = Transcript(began=clock())
    try:
        async with asyncio.timeout(script.seconds + bound):
            with suppress(OSError):  # whatever breaks, the bytes received until then count
                await _talk(port, script, got)
    except TimeoutError:
        got.is_stuck = True
    got.ended = clock()
    return got


async def _talk(port: int, script: Script, got: Transcript) -> None:
    wire = h11.Connection(h11.CLIENT)
    fields = [
        ("host", "soak"),
        ("content-type", script.content_type),
        (NUMBER, str(script.number)),
        ("x-aim-user-email", email(script.number)),
    ]
    body = script.request
    request = h11.Request(method="POST", target=script.path, headers=[*fields, ("content-length", str(len(body)))])
    data = (wire.send(request) or b"") + (wire.send(h11.Data(data=body)) or b"")
    wire.send(h11.EndOfMessage())
    reader, writer = await _connect(port, is_slow=script.pause > 0)
    try:
        writer.write(data)
        with suppress(ConnectionError):  # after an early answer the peer may not read further
            await writer.drain()
        if script.leaves_after == 0:
            await asyncio.sleep(script.interval / 2)
            got.has_left = True
            return
        await asyncio.sleep(script.pause)
        await _read(reader, wire, script, got)
    finally:
        writer.transport.abort()


async def _connect(port: int, *, is_slow: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not is_slow:
        return await asyncio.open_connection(LOOPBACK, port)
    connection = socket.socket()
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BYTES)
        await asyncio.get_running_loop().sock_connect(connection, (LOOPBACK, port))
        return await asyncio.open_connection(sock=connection, limit=_SLOW_BYTES)
    except BaseException:
        connection.close()
        raise


async def _read(reader: asyncio.StreamReader, wire: h11.Connection, script: Script, got: Transcript) -> None:
    pieces: list[bytes] = []
    marks = 0
    try:
        while True:
            match wire.next_event():
                case h11.NEED_DATA:
                    wire.receive_data(await reader.read(_READ_BYTES))
                case h11.Response() as head:
                    got.status = head.status_code
                    got.headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                case h11.Data() as data:
                    pieces.append(bytes(data.data))
                    marks += len(MARK.findall(data.data))
                    if script.leaves_after is not None and marks >= script.leaves_after:
                        got.has_left = True
                        return
                case h11.EndOfMessage():
                    got.is_whole = True
                    return
                case _:
                    return
    except h11.RemoteProtocolError:  # the connection ended before the response did
        pass
    finally:
        got.body = b"".join(pieces)
