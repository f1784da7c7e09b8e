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
from collections.abc import Iterator

from extproc.core.content.event_lines import (
    FOREIGN_RUNS,
    IDLE,
    INERT,
    INERT_RUN,
    STARTS_IDLE,
    STARTS_INERT,
    Run,
    run_of,
)
from extproc.core.content.mixed_block import MixedBlock
from extproc.core.content.server_sent_event import BOM, ServerSentEvent
from extproc.core.errors import BodyTooLarge, MalformedBody

_LINE_END = re.compile(rb"[\r\n]")
_ONE_LINE = re.compile(rb"data:[^\r\n]*+\n\n").fullmatch


class EventDecoder:
    """Cuts an event stream into events."""

    __slots__ = (
        "_after_cr",
        "_buffer",
        "_data",
        "_data_end",
        "_data_start",
        "_is_first",
        "_is_mixed",
        "_limit",
        "_line",
        "_run",
        "_scanned",
        "_started",
        "_type",
    )

    def __init__(self, limit: int) -> None:
        """Allow events of at most `limit` bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._after_cr = False  # the last line ended in CR: a LF right after it belongs to that line end
        self._is_first = True
        self._started = False  # the first line, which may begin with a BOM, was read
        self._begin()

    def _begin(self) -> None:
        """Begin an event at the start of the buffer."""
        self._line = 0  # where the current line begins in the buffer
        self._scanned = 0  # the buffer has no unread line end before this position
        self._data: bytearray | None = None  # the data so far
        self._data_start = self._data_end = 0  # where the first and the last data line begin in the buffer
        self._type = b""
        self._is_mixed = False  # whether the event has foreign lines, or lines that become empty comments
        self._run: Run | None = None  # the foreign lines before the data

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
            if self._line == self._scanned < len(buffer) and (self._is_mixed or buffer[self._scanned] in STARTS_INERT):
                self._skip_lines()
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
                if self._is_mixed:
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
        if self._is_mixed:
            yield from self._parts(len(self._buffer))
        else:
            yield self._cut(len(self._buffer))

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete event."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._begin()
        return rest

    def _skip_lines(self) -> None:
        """Skip a run of lines without data, so that thousands of short ones cost little. No data line is skipped."""
        inert = INERT_RUN.match(self._buffer, self._line)
        if inert is not None:
            self._line = self._scanned = inert.end()
            self._started = True
        run = FOREIGN_RUNS[self._run if self._data is None else Run.OPEN].match(self._buffer, self._line)
        if run is not None:
            self._line = self._scanned = run.end()
            self._started = self._is_mixed = True

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
            self._data_end = start
            if self._data is None:
                self._data_start = start
                self._data = bytearray(value.removeprefix(b" "))
            else:
                self._data += b"\n"
                self._data += value.removeprefix(b" ")
            return False
        is_inert = INERT.get(name)
        if is_inert is None:
            return self._read_foreign(line)
        if is_inert(value) is None:
            self._is_mixed = True
        elif name == b"event":
            self._type = value.strip(b" \t")
        return False

    def _read_foreign(self, line: bytes) -> bool:
        self._is_mixed = True
        if self._data is not None or self._run is Run.OPEN:
            return False
        run = run_of(line)
        self._run = self._run or run
        return run is Run.WHOLE

    def _cut(self, end: int) -> ServerSentEvent:
        """Return the event before `end`, all of whose lines pass."""
        if end > self._limit:
            raise BodyTooLarge("an event is larger than the limit")
        event = self._event(bytes(self._buffer[:end]), self._data, self._type)
        del self._buffer[:end]
        self._begin()
        return event

    def _parts(self, end: int) -> Iterator[ServerSentEvent]:
        """Yield the foreign lines and the event before `end`, each as an event."""
        if end > self._limit:
            raise BodyTooLarge("an event is larger than the limit")
        raw, data, kind = bytes(self._buffer[:end]), self._data, self._type
        start = len(BOM) if self._is_first and raw.startswith(BOM) else 0
        span = None if data is None else (self._data_start, self._data_end)
        for part in MixedBlock(raw, start, span).parts():
            is_foreign = part.text is not None
            text = part.text if is_foreign else data
            event = self._event(bytes(part.raw), text, b"" if is_foreign else kind, is_foreign=is_foreign)
            # What was not yielded stays in the buffer.
            del self._buffer[: part.size]
            self._begin()
            yield event

    def _event(self, raw: bytes, data: bytearray | None, kind: bytes, *, is_foreign: bool = False) -> ServerSentEvent:
        try:
            text = data.decode() if data is not None else None
        except UnicodeDecodeError as error:
            raise MalformedBody("an event is not UTF-8") from error
        event = ServerSentEvent(raw, text, kind.decode(), self._is_first, is_foreign)
        self._started = True
        self._is_first = False
        return event
