"""An HTTP/1.1 server on a bare asyncio protocol: the common base of Aim's and the model's stand-ins.

It supports only what its clients send: whole heads, bodies with a content-length, no
pipelining. Each peer is a process of its own, so that its CPU is counted separately.
"""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable

HEAD_END = b"\r\n\r\n"


class Peer(ABC, asyncio.Protocol):
    """One connection. A subclass answers in `on_request` and may switch the connection to another protocol."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.transport: asyncio.Transport
        self.takes_raw = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while buffer and not self.takes_raw:
            head_end = buffer.find(HEAD_END)
            if head_end < 0:
                return
            head = bytes(buffer[:head_end])
            whole = head_end + len(HEAD_END) + int(header(head, b"content-length") or 0)
            if len(buffer) < whole:
                return
            body = bytes(buffer[head_end + len(HEAD_END) : whole])
            del buffer[:whole]
            self.on_request(head, body)
        if buffer:
            raw = bytes(buffer)
            buffer.clear()
            self.on_raw(raw)

    @abstractmethod
    def on_request(self, head: bytes, body: bytes) -> None:
        """Answer one request; `head` has no blank line at its end."""

    def on_raw(self, data: bytes) -> None:
        """Handle bytes of a connection that is no longer HTTP. By default such bytes are an error."""
        self.transport.abort()

    def answer(self, body: bytes) -> None:
        """Send a JSON answer."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )


def header(head: bytes, name: bytes) -> bytes | None:
    """Return the value of a header field, or None if there is none; `name` is in lower case."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


def serve(kind: Callable[[], Peer], port: int) -> None:
    """Serve connections of `kind` on 127.0.0.1 until SIGTERM."""
    asyncio.run(_serve(kind, port))


async def _serve(kind: Callable[[], Peer], port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", port, backlog=2048)
    await stop.wait()
    server.close()
