"""A client that shows the bytes on the wire: HTTP/1.1, one connection for each request, nothing is normalised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

Fields = Iterable[tuple[str, str]]


@dataclass
class Got:
    """A response as received: header names in lower case; the body without its framing, with its content-encoding."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    is_whole: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def exchange(
    url: str,
    method: str,
    target: str,
    headers: Fields = (),
    body: bytes | Sequence[bytes] | None = None,
    trailers: Fields = (),
    on_data: Callable[[], None] = lambda: None,
) -> Got:
    """Send a request and return the response. A body that is a sequence is sent chunked, one piece per chunk.

    `on_data` is called whenever a piece of the response's body has arrived.
    """
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    wire = h11.Connection(h11.CLIENT)
    # Latin-1, so that each character is one byte on the wire.
    fields = [(name.encode(), value.encode("latin-1")) for name, value in (("host", where.netloc), *headers)]
    if isinstance(body, bytes):
        fields.append((b"content-length", b"%d" % len(body)))
    elif body is not None:
        fields.append((b"transfer-encoding", b"chunked"))
    try:
        with suppress(ConnectionError):  # after an early answer the peer may not read further; the answer is readable
            writer.write(wire.send(h11.Request(method=method, target=target, headers=fields)) or b"")
            for piece in [body] if isinstance(body, bytes) else body or ():
                writer.write(wire.send(h11.Data(data=piece)) or b"")
                await writer.drain()
            writer.write(wire.send(h11.EndOfMessage(headers=list(trailers))) or b"")
            await writer.drain()
        return await _read(reader, wire, on_data)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, wire: h11.Connection, on_data: Callable[[], None]) -> Got:
    got = Got()
    body = bytearray()
    while True:
        try:
            event = wire.next_event()
        except h11.RemoteProtocolError:  # the connection ended before the response did
            event = None
        match event:
            case h11.NEED_DATA:
                try:
                    wire.receive_data(await reader.read(65536))
                except ConnectionError:  # a reset counts as the end
                    wire.receive_data(b"")
            case h11.Response() as head:
                got.status = head.status_code
                got.headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
            case h11.InformationalResponse() as head:
                if head.status_code == 101:
                    got.status = 101
                    return got
            case h11.Data() as data:
                body += data.data
                on_data()
            case h11.EndOfMessage() as end:
                got.trailers = [(name.decode(), value.decode("latin-1")) for name, value in end.headers]
                got.is_whole = True
                got.body = bytes(body)
                return got
            case _:
                got.body = bytes(body)
                return got
