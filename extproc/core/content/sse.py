"""Event streams (`text/event-stream`), cut into events without losing a byte.

Implements the parsing rules of the WHATWG HTML standard, section 9.2.6, with three differences:
- Each event keeps its bytes, so that an unchanged event is released byte for byte.
- A last event without its blank line counts, because some clients read it.
- Data that is not UTF-8 is an error, because two readers could decode it differently.

    decoder = EventDecoder(limit)
    for event in decoder.feed(data): ...    # any split of the bytes gives the same events
    for event in decoder.finish(): ...
    # the events' raw bytes, joined, equal the input
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from extproc.core.errors import BodyTooLarge, MalformedBody

_LINE_END = re.compile(rb"[\r\n]")
_ONE_LINE = re.compile(rb"[^\r\n]+\n\n").fullmatch
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")
_FIELDS = frozenset({b"", b"data", b"event", b"id", b"retry"})
BOM = b"\xef\xbb\xbf"
"""The byte order mark. It may only precede the first line of a stream."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event, comment block or stray bytes. `raw` are its unchanged bytes, including the blank line.

    `data` is None without a data field (comments, retry); `type` is empty without an event field. The first event of a
    stream may begin with a byte order mark. `is_foreign` means that a line has no field of an event stream: a reader of
    events skips it, but another reader may not.
    """

    raw: bytes
    data: str | None = None
    type: str = ""
    is_first: bool = False
    is_foreign: bool = False

    def with_data(self, data: str) -> bytes:
        """Return the event's bytes with other data; its other lines and its line ends stay."""
        out = bytearray()
        is_written = False
        for line, end in _LINE.findall(self.raw):
            prefix = BOM if self.is_first and line.startswith(BOM) else b""
            name, colon, value = line[len(prefix) :].partition(b":")
            if name != b"data":
                if out.endswith(b"\r") and not line and end == b"\n":
                    out[-1:] = b"\n"  # without the lines in between, CR and LF would become one line end
                out += line + end
            elif not is_written:
                is_written = True
                parts = data.encode().split(b"\n")
                has_space = not colon or value.startswith(b" ") or any(part.startswith(b" ") for part in parts)
                start = b"data: " if has_space else b"data:"
                out += prefix + (end or b"\n").join(start + part for part in parts) + end
        return bytes(out)


class EventDecoder:
    """Cuts an event stream into events."""

    __slots__ = (
        "_after_cr",
        "_buffer",
        "_data",
        "_is_first",
        "_is_foreign",
        "_limit",
        "_line",
        "_scanned",
        "_started",
        "_type",
    )

    def __init__(self, limit: int) -> None:
        """Allow events of at most `limit` bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._line = 0  # where the current line begins in the buffer
        self._scanned = 0  # the buffer has no unread line end before this position
        self._after_cr = False  # the last line ended in CR: a LF right after it belongs to that line end
        self._is_first = True
        self._is_foreign = False
        self._started = False  # the first line, which may begin with a BOM, was read
        self._data: list[bytes] = []
        self._type = b""

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete event."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that `data` completes.

        Raises BodyTooLarge for an event over the limit and MalformedBody for an event that is not UTF-8. `take_rest`
        then returns the bytes that were not yielded.
        """
        buffer = self._buffer
        buffer += data
        if data.endswith(b"\n\n") and len(buffer) == len(data) and not self._after_cr and _ONE_LINE(data):
            # A fast path: most pieces are one event of one line.
            self._read_line(data[:-2])
            yield self._cut(len(data))
            return
        while True:
            if self._after_cr and self._scanned < len(buffer):
                self._after_cr = False
                if buffer[self._scanned] == 0x0A:
                    # The LF of a CRLF whose CR has ended a line already. It stays with the next event.
                    self._scanned += 1
                    self._line = self._scanned
            found = _LINE_END.search(buffer, self._scanned)
            if found is None:
                self._scanned = len(buffer)
                break
            end = found.start()
            line = bytes(buffer[self._line : end])
            after = end + 1
            if buffer[end] == 0x0D:
                if after < len(buffer):
                    after += buffer[after] == 0x0A
                else:
                    self._after_cr = True
            self._line = self._scanned = after
            if line:
                self._read_line(line)
            else:
                yield self._cut(after)
        if len(buffer) > self._limit:
            raise BodyTooLarge("an event is larger than the limit")

    def finish(self) -> Iterator[ServerSentEvent]:
        """Yield the rest of an ended stream as a last event; raises like `feed`."""
        if not self._buffer:
            return
        if self._line < len(self._buffer):
            self._read_line(bytes(self._buffer[self._line :]))
        yield self._cut(len(self._buffer))

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete event."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._line = self._scanned = 0
        self._data = []
        self._type = b""
        return rest

    def _read_line(self, line: bytes) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(BOM)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._type = value.removeprefix(b" ")
        # Some readers end lines at more characters than the standard does. For them the text after it could be data.
        if name not in _FIELDS or (name != b"data" and len(line.decode("utf-8", "replace").splitlines()) > 1):
            self._is_foreign = True

    def _cut(self, end: int) -> ServerSentEvent:
        raw = bytes(self._buffer[:end])
        if len(raw) > self._limit:
            raise BodyTooLarge("an event is larger than the limit")
        try:
            event = ServerSentEvent(
                raw,
                b"\n".join(self._data).decode() if self._data else None,
                self._type.decode(),
                self._is_first,
                self._is_foreign,
            )
        except UnicodeDecodeError as error:
            raise MalformedBody("an event is not UTF-8") from error
        del self._buffer[:end]
        self._line = self._scanned = 0
        self._started = True
        self._is_first = False
        self._data = []
        self._type = b""
        self._is_foreign = False
        return event
