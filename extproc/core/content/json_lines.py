"""JSON lines (`application/x-ndjson`, `application/jsonl`), cut into lines without losing a byte.

Each line holds one JSON value. Lines end in LF, which CR may precede; the last line may lack its end. A run of blank
lines is one unit without data.

JSON text sequences (`application/json-seq`, RFC 7464) are read as lines, too: a record separator may begin a line. A
text of several lines, or several texts in one, are unreadable.

    decoder = LineDecoder(limit)
    for line in decoder.feed(data): ...    # any split of the bytes gives the same lines with data
    for line in decoder.finish(): ...
    # the lines' raw bytes, joined, equal the input
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from extproc.core.content.server_sent_event import BOM
from extproc.core.errors import BodyTooLarge, MalformedBody

_BLANK = re.compile(rb"(?:[ \t\r]*+\n)++")
_LINE_ENDS = re.compile(rb"[\r\n]+")
_SPACE = b" \t\r\n"
_AROUND = _SPACE + b"\x1e"
"""What may stand around the text of a line: white space and record separators."""


@dataclass(frozen=True, slots=True)
class JSONLine:
    """One line, or a run of blank lines. `raw` are its unchanged bytes, including the line end.

    `data` is the text without what may stand around it, None for blank lines. The first line of a body may begin with a
    byte order mark.
    """

    raw: bytes
    data: str | None = None
    is_first: bool = False
    is_foreign: ClassVar[bool] = False

    def with_data(self, data: str) -> bytes:
        """Return the line's bytes with other data. Line ends within `data`, where JSON may have them, become spaces."""
        prefix = BOM if self.is_first and self.raw.startswith(BOM) else b""
        line = self.raw[len(prefix) :]
        text = line.strip(_AROUND)
        if not text:
            return self.raw
        start = line.index(text)
        return prefix + line[:start] + _LINE_ENDS.sub(b" ", data.encode()) + line[start + len(text) :]


class LineDecoder:
    """Cuts JSON lines."""

    __slots__ = ("_buffer", "_is_first", "_limit", "_scanned")

    def __init__(self, limit: int) -> None:
        """Allow lines of at most `limit` bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0  # the buffer has no line end before this position
        self._is_first = True

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete line."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[JSONLine]:
        """Yield the lines that `data` completes.

        Raises BodyTooLarge for a line over the limit and MalformedBody for a line that is not UTF-8. `take_rest` then
        returns the bytes that were not yielded.
        """
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(b"\n", self._scanned) + 1) > 0:
            blank = _BLANK.match(buffer, 0, self._limit) if buffer[0] in _SPACE else None
            yield self._cut(end if blank is None else blank.end())
        self._scanned = len(buffer)
        if len(buffer) > self._limit:
            raise BodyTooLarge("a line is larger than the limit")

    def finish(self) -> Iterator[JSONLine]:
        """Yield the rest of an ended body as a last line; raises like `feed`."""
        if self._buffer:
            yield self._cut(len(self._buffer))

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest

    def _cut(self, end: int) -> JSONLine:
        if end > self._limit:
            raise BodyTooLarge("a line is larger than the limit")
        raw = bytes(self._buffer[:end])
        text = raw.removeprefix(BOM) if self._is_first else raw
        try:
            data = text.strip(_AROUND).decode()
        except UnicodeDecodeError as error:
            raise MalformedBody("a line is not UTF-8") from error
        del self._buffer[:end]
        self._scanned = 0
        line = JSONLine(raw, data or None, self._is_first)
        self._is_first = False
        return line
