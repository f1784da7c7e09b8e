"""A scripted upstream: HTTP/1.1 on a bare socket, so that tests control every byte and every pause."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Received:
    """One request as it reached the upstream. A test sets `heard` when its client has received part of the answer."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def head(self, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> None:
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1"))
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        if data:
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await self.writer.drain()

    async def end(self, trailers: Iterable[tuple[str, str]] = ()) -> None:
        self.writer.write(b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers) + b"\r\n")
        await self.writer.drain()


Answer = Callable[[Received], Awaitable[None]]


def whole(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    """Answer with a body and its length."""

    async def answer(request: Received) -> None:
        fields = [("content-type", content_type), ("content-length", str(len(body)))]
        await request.head(status, [*fields, *((name.replace("_", "-"), value) for name, value in headers.items())])
        request.writer.write(body)
        await request.writer.drain()

    return answer


def pieces(
    data: Iterable[bytes],
    status: int = 200,
    content_type: str = "text/event-stream",
    trailers: Iterable[tuple[str, str]] = (),
    **headers: str,
) -> Answer:
    """Answer with a chunked body, one chunk for each piece."""

    async def answer(request: Received) -> None:
        fields = [("content-type", content_type), ("transfer-encoding", "chunked")]
        if trailers:
            fields.append(("trailer", ",".join(name for name, _ in trailers)))
        await request.head(status, [*fields, *((name.replace("_", "-"), value) for name, value in headers.items())])
        for piece in data:
            await request.chunk(piece)
        await request.end(trailers)

    return answer


class ScriptedUpstream:
    """The service; `answer` may be replaced between exchanges."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.arrived = asyncio.Event()
        self.begun = asyncio.Event()
        self.answer: Answer = whole(b"{}")
        self.port = 0

    def reset(self) -> None:
        self.requests.clear()
        self.arrived.clear()
        self.begun.clear()
        self.answer = whole(b"{}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request: Received | None = None
        try:
            while (line := await reader.readline()).strip():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                headers: list[tuple[str, str]] = []
                while (field_line := await reader.readline()).strip():
                    name, _, value = field_line.decode("latin-1").partition(":")
                    headers.append((name.lower(), value.strip()))
                request = Received(method, path, headers, b"", writer)
                self.begun.set()
                request.body = await self._body(reader, request)
                self.requests.append(request)
                self.arrived.set()
                watcher = asyncio.ensure_future(self._watch(reader, request))  # noqa: TID251
                try:
                    await self.answer(request)
                finally:
                    watcher.cancel()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            if request is not None:
                request.gone.set()
            writer.close()

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, request: Received) -> None:
        # No client pipelines here: during the answer only the end of the connection can arrive.
        while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        request.gone.set()

    @staticmethod
    async def _body(reader: asyncio.StreamReader, request: Received) -> bytes:
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            whole_body = b""
            while size := int((await reader.readline()).split(b";")[0], 16):
                whole_body += await reader.readexactly(size)
                await reader.readline()
            while (field_line := await reader.readline()).strip():
                name, _, value = field_line.decode("latin-1").partition(":")
                request.trailers.append((name.lower(), value.strip()))
            return whole_body
        return await reader.readexactly(int(request.header("content-length") or 0))

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedUpstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
