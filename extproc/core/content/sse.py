"""Event streams (`text/event-stream`), cut into events without losing a byte of text.

Implements the parsing rules of the WHATWG HTML standard, section 9.2.6, with these differences:
- Each event keeps its bytes, so that an unchanged event is released byte for byte.
- A last event without its blank line counts, because some clients read it.
- Data that is not UTF-8 is an error, because two readers could decode it differently.
- Lines that the standard ignores are read as well (foreign lines, see `ServerSentEvent`), because some clients read
  them: llama.cpp sends `error: {...}`, other servers send bare JSON.
- Comments and the values of `event`, `id` and `retry` are not inspected, so they pass only if they look inert. Others
  become empty comments.
- A run of blank lines and inert comments is one event without data.

    decoder = EventDecoder(limit)
    for event in decoder.feed(data): ...    # any split of the bytes gives the same events with data
    for event in decoder.finish(): ...
    # the events' raw bytes, joined, equal the input, but for the lines that became empty comments
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from extproc.core.content.event_lines import (
    COMMENTS,
    IDLE,
    INERT,
    STARTS_IDLE,
    ForeignRun,
    foreign_line,
    foreign_text,
    is_foreign,
)
from extproc.core.errors import BodyTooLarge, MalformedBody

BOM = b"\xef\xbb\xbf"
"""The byte order mark. It may only precede the first line of a stream."""

_LINE_END = re.compile(rb"[\r\n]")
_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_ONE_LINE = re.compile(rb"data:[^\r\n]*+\n\n").fullmatch
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event, a run of comments and blank lines, or foreign lines. `raw` are its bytes, including the blank line.

    `data` is None without a data field (comments, retry); `type` is empty without an event field. The first event of a
    stream may begin with a byte order mark.

    A foreign line has no field of an event stream: most readers of events skip it, but others do not. With `is_foreign`
    the `data` is the text of such lines, which may be JSON or any other text. One line of JSON is an event of its own;
    a name before it, as in `error: {...}`, is not part of the data.
    """

    raw: bytes
    data: str | None = None
    type: str = ""
    is_first: bool = False
    is_foreign: bool = False

    def with_data(self, data: str) -> bytes:
        """Return the event's bytes with other data; its other lines and its line ends stay.

        The data of foreign lines becomes one line, with spaces for its line ends.
        """
        parts = _LINE_ENDS.split(data.encode())
        out = bytearray()
        is_written = False
        for line, end in _LINE.findall(self.raw):
            prefix = BOM if self.is_first and line.startswith(BOM) else b""
            name, colon, value = line[len(prefix) :].partition(b":")
            if not (is_foreign(name) if self.is_foreign else name == b"data"):
                if out.endswith(b"\r") and not line and end == b"\n":
                    out[-1:] = b"\n"  # without the lines in between, CR and LF would become one line end
                out += line + end
            elif is_written:
                continue
            elif self.is_foreign:
                is_written = True
                out += prefix + foreign_line(line[len(prefix) :], b" ".join(parts)) + end
            else:
                is_written = True
                has_space = not colon or value.startswith(b" ") or any(part.startswith(b" ") for part in parts)
                start = b"data: " if has_space else b"data:"
                out += prefix + (end or b"\n").join(start + part for part in parts) + end
        return bytes(out)


class EventDecoder:
    """Cuts an event stream into events."""

    __slots__ = (
        "_after_cr",
        "_after_data",
        "_before_data",
        "_buffer",
        "_data",
        "_data_start",
        "_emptied",
        "_is_first",
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
        self._started = False  # the first line, which may begin with a BOM, was read
        self._data: list[bytes] = []
        self._data_start = 0  # where the first data line begins in the buffer
        self._type = b""
        self._emptied: list[tuple[int, int]] = []  # the lines that become empty comments
        self._before_data: list[ForeignRun] = []  # the foreign lines before the first data line
        self._after_data: list[ForeignRun] = []

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
        if not buffer and self._started and len(data) <= self._limit and _ONE_LINE(data):
            # A fast path: most pieces are one event of one line of data.
            self._after_cr = False
            try:
                text = data[5:-2].removeprefix(b" ").decode()
            except UnicodeDecodeError:
                pass  # this is raised as MalformedBody below
            else:
                yield ServerSentEvent(data, text)
                return
        buffer += data
        while True:
            if buffer and not self._line and buffer[0] in STARTS_IDLE:
                idle = IDLE.match(buffer, 0, self._limit)
                if idle is not None:
                    self._after_cr = False
                    yield self._cut(idle.end())
                    continue
            if self._after_cr and self._scanned < len(buffer):
                self._after_cr = False
                if buffer[self._scanned] == 0x0A:
                    # The LF of a CRLF whose CR has ended a line already.
                    self._scanned += 1
                    self._line = self._scanned
            if self._line == self._scanned < len(buffer) and buffer[self._scanned] == 0x3A:
                comments = COMMENTS.match(buffer, self._line)
                if comments is not None:
                    self._line = self._scanned = comments.end()
            found = _LINE_END.search(buffer, self._scanned)
            if found is None:
                self._scanned = len(buffer)
                break
            start = self._line
            end = found.start()
            after = end + 1
            if buffer[end] == 0x0D:
                if after < len(buffer):
                    after += buffer[after] == 0x0A
                else:
                    self._after_cr = True
            self._line = self._scanned = after
            if end == start or self._read_line(start, end):
                if self._before_data or self._after_data:
                    yield from self._parts(after)
                else:
                    yield self._cut(after)
        if len(buffer) > self._limit:
            raise BodyTooLarge("an event is larger than the limit")

    def finish(self) -> Iterator[ServerSentEvent]:
        """Yield the rest of an ended stream as a last event; raises like `feed`."""
        if not self._buffer:
            return
        if self._line < len(self._buffer):
            self._read_line(self._line, len(self._buffer))
        yield from self._parts(len(self._buffer))

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete event."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._begin()
        return rest

    def _begin(self) -> None:
        self._line = self._scanned = 0
        self._data = []
        self._type = b""
        if self._emptied:
            self._emptied = []
        if self._before_data or self._after_data:
            self._before_data, self._after_data = [], []

    def _read_line(self, start: int, end: int) -> bool:
        """Read a line of the buffer; return whether it completes an event although no blank line follows."""
        line = bytes(self._buffer[start:end])
        if not self._started:
            self._started = True
            if line.startswith(BOM):
                start += len(BOM)
                line = line[len(BOM) :]
        name, _, value = line.partition(b":")
        if name == b"data":
            if not self._data:
                self._data_start = start
            elif self._after_data:
                # The foreign lines are in the middle of the data. Without them the event is what most readers read.
                self._emptied += [span for run in self._after_data for span in run.lines]
                self._after_data = []
            self._data.append(value.removeprefix(b" "))
            return False
        is_inert = INERT.get(name)
        if is_inert is None:
            return self._read_foreign(line, start, end)
        if is_inert(value) is None:
            self._emptied.append((start, end))
        elif name == b"event":
            self._type = value.strip(b" \t")
        return False

    def _read_foreign(self, line: bytes, start: int, end: int) -> bool:
        runs = self._after_data if self._data else self._before_data
        run = ForeignRun.beginning_with(line)
        if runs and runs[-1].takes(run):
            run = runs[-1]
        else:
            runs.append(run)
        run.lines.append((start, end))
        return run.is_whole and not self._data

    def _cut(self, end: int) -> ServerSentEvent:
        """Return the event before `end`, which has no foreign lines."""
        self._emptied.sort()  # lines that were emptied late
        event = self._event(0, end, self._data, self._type)
        del self._buffer[:end]
        self._begin()
        return event

    def _parts(self, end: int) -> list[ServerSentEvent]:
        """Return the foreign lines and the event before `end`, each as an event."""
        self._emptied.sort()
        parts: list[tuple[int, list[bytes], bool]] = [self._foreign(run) for run in self._before_data]
        if self._data or not parts:
            parts.append((self._data_start, self._data, False))
        parts += [self._foreign(run) for run in self._after_data]
        ends = [start for start, _, _ in parts[1:]] + [end]
        events = []
        start = 0
        for (_, lines, is_text), end in zip(parts, ends, strict=True):
            events.append(self._event(start, end, lines, b"" if is_text else self._type, is_foreign=is_text))
            start = end
        del self._buffer[:end]
        self._begin()
        return events

    def _foreign(self, run: ForeignRun) -> tuple[int, list[bytes], bool]:
        """Return where the lines begin, their text, and True."""
        lines = [bytes(self._buffer[start:end]) for start, end in run.lines]
        lines[0] = foreign_text(lines[0])
        return run.lines[0][0], lines, True

    def _event(
        self, start: int, end: int, lines: list[bytes], kind: bytes, *, is_foreign: bool = False
    ) -> ServerSentEvent:
        """Return the bytes from `start` to `end` as an event; `lines` are its data."""
        if end > self._limit:
            raise BodyTooLarge("an event is larger than the limit")
        raw = self._without_texts(start, end) if self._emptied else bytes(self._buffer[start:end])
        try:
            data = b"\n".join(lines).decode() if lines else None
        except UnicodeDecodeError as error:
            raise MalformedBody("an event is not UTF-8") from error
        event = ServerSentEvent(raw, data, kind.decode(), self._is_first, is_foreign)
        self._started = True
        self._is_first = False
        return event

    def _without_texts(self, start: int, end: int) -> bytes:
        """Return these bytes of the buffer with an empty comment for each line that must not pass."""
        out = bytearray()
        position = start
        for index in range(bisect_left(self._emptied, (start, start)), len(self._emptied)):
            first, last = self._emptied[index]
            if first >= end:
                break
            out += self._buffer[position:first]
            out += b":"
            position = last
        out += self._buffer[position:end]
        return bytes(out)
