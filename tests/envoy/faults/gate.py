"""A network connection that a test can break: it relays TCP between two peers until then."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_PIECE = 65_536


@dataclass
class Wire:
    """The connecting peer's connection, once a fault has taken it over; `first` are the last bytes that it sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    first: bytes

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait(self) -> None:
        """Read until the peer ends, and answer nothing."""
        while await self.reader.read(_PIECE):
            pass

    def reset(self) -> None:
        """End the connection with RST."""
        _reset(self.writer)


Act = Callable[[Wire], Awaitable[None]]


class Gate:
    """Listens on `port` and relays to `target` within `running`."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        """Relay to 127.0.0.1:`target`. With `tls` the connecting peer uses TLS to the gate."""
        self.target = target
        self.port = 0
        self.tls = self._tls = tls
        self._act: Act | None = None
        self._prefix = b""
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def strike(self, prefix: bytes, act: Act) -> None:
        """Hand a connection to `act` once its peer sends data that begins with `prefix`."""
        self._prefix, self._act = prefix, act

    def cut(self) -> None:
        """Reset every connection; accept new ones."""
        for writer in tuple(self._writers):
            _reset(writer)

    def freeze(self) -> None:
        """Stop relaying, on existing and new connections."""
        self._flows.clear()

    async def refuse(self) -> None:
        """Stop listening, and reset every connection."""
        assert self._server is not None
        self._server.close()
        self._server = None
        self.cut()

    async def mend(self) -> None:
        """Work again; reset the connections from before."""
        if self.tls is not self._tls:
            await self.use(self._tls)
        if self._act is not None or not self._flows.is_set():
            self.cut()
        self._act, self._prefix = None, b""
        self._flows.set()
        if self._server is None:
            await self._listen()

    async def use(self, tls: ssl.SSLContext | None) -> None:
        """Use `tls` from the next connection on."""
        await self.refuse()
        self.tls = tls
        await self._listen()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gate]:
        await self._listen()
        try:
            yield self
        finally:
            if self._server is not None:
                self._server.close()
            self.cut()
            self._flows.set()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            from_behind, behind = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(behind)
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self._back(from_behind, writer))
                if (struck := await self._forth(reader, writer, behind)) is not None:
                    back.cancel()
                    assert self._act is not None
                    await self._act(struck)
        except* (OSError, asyncio.IncompleteReadError):
            _reset(writer)
        finally:
            for one in (writer, behind):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: asyncio.StreamWriter
    ) -> Wire | None:
        while data := await reader.read(_PIECE):
            if self._act is not None and data.startswith(self._prefix):
                return Wire(reader, writer, data)
            if data.startswith(b"CONNECT "):  # the gate is a proxy
                await self._pass(b"HTTP/1.1 200 OK\r\n\r\n", writer)
                continue
            await self._pass(data, behind)
        with suppress(OSError):
            behind.write_eof()
        return None

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            await self._pass(data, writer)
        if not writer.transport.is_closing():
            writer.close()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    if (sock := writer.get_extra_info("socket")) is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# -- what a peer may do that was asked something ---------------------------------------------------------------------


async def blackhole(wire: Wire) -> None:
    """Never answer."""
    await wire.wait()


async def reset(wire: Wire) -> None:
    """Reset the connection."""
    wire.reset()


async def half_close(wire: Wire) -> None:
    """Close the sending half without sending anything; continue to read."""
    wire.writer.write_eof()
    await wire.wait()


def saying(data: bytes, then: Act | None = None) -> Act:
    """Send `data`, then close the connection or perform `then`."""

    async def act(wire: Wire) -> None:
        await wire.say(data)
        if then is not None:
            await then(wire)

    return act


async def drip(wire: Wire) -> None:
    """Answer one byte now and then, without end."""
    await wire.say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{")
    while True:
        await asyncio.sleep(0.05)
        await wire.say(b" ")
