"""JSON lines: one JSON document a line, cut without losing a byte."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.core.content.sse import ServerSentEvent
from extproc.core.errors import BodyTooLarge, MalformedBody


class JsonLine(ServerSentEvent):
    """One line. `raw` are its unchanged bytes with the line end."""

    __slots__ = ()

    def with_data(self, data: str) -> bytes:
        """Return the line with other data and the same line end."""
        end = self.raw[len(self.raw.rstrip(b"\r\n")) :]
        return data.replace("\n", " ").encode() + end


class LineDecoder:
    """Cuts JSON lines into lines. It has the interface of `EventDecoder`."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        """Allow lines of at most `limit` bytes."""
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete line."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Yield the lines that `data` completes; raises BodyTooLarge, and MalformedBody for what is not UTF-8."""
        scanned = len(self._buffer)
        self._buffer += data
        while (end := self._buffer.find(b"\n", scanned)) >= 0:
            yield self._cut(end + 1)
            scanned = 0
        if len(self._buffer) > self._limit:
            raise BodyTooLarge("a line is larger than the limit")

    def finish(self) -> Iterator[ServerSentEvent]:
        """Yield the rest of an ended body as a last line; raises like `feed`."""
        if self._buffer:
            yield self._cut(len(self._buffer))

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _cut(self, end: int) -> ServerSentEvent:
        raw = bytes(self._buffer[:end])
        if end > self._limit:
            raise BodyTooLarge("a line is larger than the limit")
        try:
            line = JsonLine(raw, raw.decode().rstrip("\r\n") or None)
        except UnicodeDecodeError as error:
            raise MalformedBody("a line is not UTF-8") from error
        del self._buffer[:end]
        return line
