"""The client: buffered exchanges, one after the other on each connection, and streams whose chunks have a timestamp."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.bench.peer import HEAD_END, header
from tests.bench.process import LOOPBACK, BenchError
from tests.bench.script import Script

PROMPT: Final = "Please tell me in a few sentences what a service mesh is, and what it is not, for a newcomer. " * 8
WHOLE: Final = Script()
KEY: Final = "sk-not-a-key-not-a-key-not-a-key-not-a-key"
EXCHANGE_SECONDS: Final = 30.0
"""The time limit of an exchange. A longer one is a fault of the rig, unless it is intended."""

_STAMP = re.compile(rb"sent (\d+);")
_STAMP_BYTES = 32
_LAST_CHUNK = b"\r\n0\r\n\r\n"


def request(script: Script = WHOLE, prompt: str = PROMPT) -> bytes:
    """Return a chat request for an answer by `script`."""
    messages = [{"role": "system", "content": f"You are helpful. {script}"}, {"role": "user", "content": prompt}]
    stream = {"stream": True} if script.chunks else {}
    return post(json.dumps({"model": "bench", "messages": messages} | stream).encode())


def post(body: bytes) -> bytes:
    """Return a chat request with this body."""
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: bench",
        "user-agent: bench",
        "accept: */*",
        "accept-encoding: gzip, deflate",
        f"authorization: Bearer {KEY}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + HEAD_END + body


@dataclass(slots=True)
class Timing:
    """The times of an exchange's first and last byte, in seconds after its request was written."""

    first_byte: float
    total: float


@dataclass(slots=True)
class Arrivals:
    """The chunks of one stream: the arrival time of each (`time.monotonic_ns()`), and its delay after it was sent.

    `began` is the time of the stream's request.
    """

    began: int = 0
    at: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._tail = b""
        self._first: float | None = None
        self._whole: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(BenchError(f"the connection was closed after {bytes(self._received[:500])!r}"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        self._received += data
        self._note_stamps(data)
        if self._is_whole() and self._whole is not None and not self._whole.done():
            self._whole.set_result(now)

    def _note_stamps(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._tail + data
        end = 0
        for stamp in _STAMP.finditer(data):
            self.arrivals.at.append(now)
            self.arrivals.delays.append(now - int(stamp[1]))
            end = stamp.end()
        self._tail = data[max(end, len(data) - _STAMP_BYTES) :]  # a timestamp may be cut in two

    def _is_whole(self) -> bool:
        head_end = self._received.find(HEAD_END)
        if head_end < 0:
            return False
        length = header(bytes(self._received[:head_end]), b"content-length")
        if length is None:
            return self._received.endswith(_LAST_CHUNK)
        return len(self._received) >= head_end + len(HEAD_END) + int(length)

    async def exchange(self, data: bytes, seconds: float = EXCHANGE_SECONDS) -> Timing:
        """Send a request and wait for the whole response.

        Raises BenchError for any status except 200, and TimeoutError after `seconds`.
        """
        self.begin(data)
        assert self._whole is not None
        began = time.perf_counter()
        async with asyncio.timeout(seconds):
            ended = await self._whole
        if not self._received.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"not 200 but {bytes(self._received[:500])!r}")
        assert self._first is not None
        return Timing(self._first - began, ended - began)

    def begin(self, data: bytes) -> None:
        """Send a request."""
        self._received.clear()
        self._tail = b""
        self._first = None
        self.arrivals = Arrivals(time.monotonic_ns())
        self._whole = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            raise BenchError("the connection was closed before the request")
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection."""
        self._whole = None
        self._transport.abort()


async def connect(port: int, count: int) -> list[Connection]:
    """Open connections to a port of the loopback."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, LOOPBACK, port))[1] for _ in range(count)]


def close(connections: Sequence[Connection]) -> None:
    """Close connections."""
    for connection in connections:
        connection.close()


async def buffered(connections: Sequence[Connection], count: int, per_second: float | None = None) -> list[Timing]:
    """Perform `count` exchanges in all, one at a time on each connection.

    Each begins when a connection is free; with `per_second`, not before its turn at this rate.
    """
    data = request()
    turns = iter(range(count))
    began = time.monotonic()
    timings: list[Timing] = []

    async def work(connection: Connection) -> None:
        for turn in turns:
            if per_second is not None:
                await asyncio.sleep(began + turn / per_second - time.monotonic())
            timings.append(await connection.exchange(data))

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(work(connection))
    return timings
