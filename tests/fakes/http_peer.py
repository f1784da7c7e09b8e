"""A scripted HTTP/1.1 peer: a server or a proxy that sends the bytes of the test's script over a real socket."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trustme

from tests.fakes.connection import abort

AUTHORITY = trustme.CA()


class Link:
    """The peer's end of one connection; `number` counts from 1."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self.reader, self.writer = peer, reader, writer
        self.number = peer.connections

    async def head(self) -> bytes:
        """Return the head of the next request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.peer.heads.append(head)
        self.peer.asked.release()
        return head

    async def request(self) -> bytes:
        """Return the body of the next request."""
        size = re.search(rb"content-length: (\d+)", (await self.head()).lower())
        return await self.reader.readexactly(int(size[1])) if size else b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end(self) -> None:
        """Wait for the client to leave."""
        while await self.reader.read(65_536):
            pass


Script = Callable[[Link], Awaitable[None]]


class Peer:
    """A listener that runs a script on each connection. The last script also runs on all further connections."""

    def __init__(
        self, *scripts: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Listen on `port` of `host` once entered; 0 takes a free port."""
        self._scripts, self._tls, self._host = scripts, tls, host
        self._tasks: set[asyncio.Task[Any]] = set()
        self.connections = 0
        self.heads: list[bytes] = []
        self.asked = asyncio.Semaphore(0)
        self._ended = asyncio.Semaphore(0)
        self.port = port

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(EOFError, ConnectionError, ssl.SSLError):
                await self._scripts[min(self.connections, len(self._scripts)) - 1](Link(self, reader, writer))
            self._ended.release()
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            await abort(writer)
        finally:
            self._tasks.discard(task)

    async def ended(self, times: int = 1) -> None:
        """Wait for the scripts of this many connections to end."""
        async with asyncio.timeout(10):
            for _ in range(times):
                await self._ended.acquire()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"


def answer(first: str, *fields: str, body: bytes = b"") -> bytes:
    """Return a response: its status and reason, header fields and body."""
    return "\r\n".join([f"HTTP/1.1 {first}", *fields, "\r\n"]).encode() + body


def reply(body: bytes) -> bytes:
    """Return a 200 with a body."""
    return answer("200 OK", f"content-length: {len(body)}", body=body)


CREATED = answer("200 Connection established")
CHUNKED = answer("200 OK", "transfer-encoding: chunked")


async def echo(link: Link) -> None:
    """Answer each request with its own body."""
    while True:
        await link.send(reply(await link.request()))


async def number(link: Link) -> None:
    """Answer each request with the connection's number."""
    while True:
        await link.request()
        await link.send(reply(b"%d" % link.number))


def says(*answers: bytes, leaves: bool = False) -> Script:
    """Send these answers, one for each request; then leave, or wait until the client leaves."""

    async def script(link: Link) -> None:
        for each in answers:
            await link.request()
            await link.send(each)
        if not leaves:
            await link.end()

    return script


def waits(gate: asyncio.Event) -> Script:
    """Answer each request with its own body once `gate` is set."""

    async def script(link: Link) -> None:
        while True:
            body = await link.request()
            await gate.wait()
            await link.send(reply(body))

    return script


def repeats(start: bytes, piece: bytes) -> Script:
    """Answer a request with `start`, and with `piece` again and again."""

    async def script(link: Link) -> None:
        await link.request()
        await link.send(start)
        while True:
            await link.send(piece * 1000)

    return script


def server_tls(name: str = "127.0.0.1", authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    """Return the TLS context of a server with this name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """Return a TLS context that trusts the servers of `server_tls`."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def tunnel(created: bytes = CREATED, port: int | None = None) -> Script:
    """Connect the client to `port`, or to the port of its request."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, ssl.SSLError):
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    async def script(link: Link) -> None:
        asked = re.match(rb"CONNECT \S+:(\d+) HTTP/1.1\r\n", await link.head())
        assert asked is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", port or int(asked[1]))
        link.writer.write(created)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, link.writer))
            group.create_task(pump(link.reader, writer))

    return script
