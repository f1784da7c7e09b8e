"""The server's end of a websocket, whose script also reaches the connection below it.

The websockets library's protocol object frames the bytes, asyncio's streams carry them.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from tests.fakes.http_peer import Link

_UNREAD_BYTES = 131_072
"""Reading from the connection pauses while the messages that the script has not received are longer."""


class ServerSocket:
    """An open websocket; `carry` must run for it to receive."""

    def __init__(self, link: Link, head: bytes) -> None:
        """Accept the handshake whose request has this head."""
        self._link = link
        self._protocol = ServerProtocol(max_size=None)
        self._messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._unread = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._ended = asyncio.Event()
        self.is_end_received = False
        self.pinged = asyncio.Semaphore(0)
        """Released once for each ping that arrives; the protocol has answered it then."""
        self._protocol.receive_data(head)
        (request,) = self._protocol.events_received()
        assert isinstance(request, Request)
        self._protocol.send_response(self._protocol.accept(request))
        self._write()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._ended.is_set() or self._protocol.state is not State.OPEN

    async def carry(self) -> None:
        """Read until the connection or the closing handshake ends, then close the connection."""
        link = self._link
        try:
            with suppress(ConnectionError):
                while data := await link.reader.read(65_536):
                    self._protocol.receive_data(data)
                    self._write()
                    if await self._deliver():
                        break
        finally:
            self._messages.put_nowait(None)
            self._ended.set()
            link.writer.close()
        with suppress(OSError):
            await link.writer.wait_closed()

    async def _deliver(self) -> bool:
        """Queue the messages that arrived; return whether the client's close frame is among the frames."""
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                return True
            if frame.opcode is Opcode.PING:
                self.pinged.release()
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                assert frame.fin
                data = bytes(frame.data)
                self._messages.put_nowait(data.decode() if frame.opcode is Opcode.TEXT else data)
                self._unread += len(data)
                if self._unread > _UNREAD_BYTES:
                    self._has_room.clear()
                await self._has_room.wait()
        return False

    async def receive(self) -> str | bytes | None:
        """Return the next message; None at the end."""
        message = await self._messages.get()
        if message is None:
            self.is_end_received = True
            self._messages.put_nowait(None)  # for the next call
            return None
        self._unread -= len(message)
        if self._unread <= _UNREAD_BYTES:
            self._has_room.set()
        return message

    async def send_str(self, text: str) -> None:
        """Send a text frame.

        Raises ConnectionError after the end, as the other senders do.
        """
        await self._send(self._protocol.send_text, text.encode())

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        await self._send(self._protocol.send_binary, data)

    async def send_json(self, value: Any) -> None:
        """Send a JSON value in a text frame."""
        await self.send_str(json.dumps(value))

    async def ping(self) -> None:
        """Send a ping."""
        await self._send(self._protocol.send_ping, b"")

    async def close(self) -> None:
        """Perform the closing handshake, unless the other side has begun it."""
        if not self.closed:
            self._protocol.send_close(1000)
            self._write()
        await self._ended.wait()

    async def _send(self, frame: Any, data: bytes) -> None:
        if self._ended.is_set():
            raise ConnectionResetError("the connection has ended")
        try:
            frame(data)
        except InvalidState as error:
            raise ConnectionResetError("the websocket is closed") from error
        self._write()
        await self._link.writer.drain()
        await asyncio.sleep(0)  # a script that only sends must let the other tasks run

    def _write(self) -> None:
        self._link.writer.write(b"".join(self._protocol.data_to_send()))
