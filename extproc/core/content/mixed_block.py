"""The lines of an event that also has foreign lines, or lines that become empty comments.

The decoder cuts such a block off without reading each of its lines. Here it is read again, and becomes parts: runs of
foreign lines, and the event itself. Thousands of short lines are read at once, and no place of a line is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from extproc.core.content.event_lines import (
    FOREIGN_RUNS,
    INERT,
    Run,
    cleaned,
    emptied,
    foreign_text,
    is_foreign,
    run_of,
    run_text,
)

_LINE = re.compile(rb"([^\r\n]*+)(\r\n|\r|\n|\Z)")

_SLICE = 4096
"""The bytes of a run that are read at once. Until they are joined, each line takes many times its size."""


@dataclass(slots=True)
class Part:
    """Foreign lines with their `text`, or an event, which has none.

    `raw` are the bytes that may pass, `size` the number of bytes that they were.
    """

    raw: bytearray = field(default_factory=bytearray)
    text: bytearray | None = None
    size: int = 0


class MixedBlock:
    """Reads one block."""

    __slots__ = ("_data", "_has_event", "_part", "_raw", "_run", "_start")

    def __init__(self, raw: bytes, start: int, data: tuple[int, int] | None) -> None:
        """Read `raw` from `start` on. `data` tells where the first and the last data line begin."""
        self._raw = raw
        self._start = start
        self._data = data
        self._part = Part(bytearray(raw[:start]), size=start)
        self._has_event = False  # whether the part that is being read has its data or its foreign lines
        self._run: Run | None = None

    def parts(self) -> Iterator[Part]:
        """Yield the parts in order. Their sizes, added up, are that of the block."""
        end = len(self._raw)
        if self._data is None:
            yield from self._read(self._start, end)
        else:
            first, last = self._data
            yield from self._read(self._start, first)
            yield from self._begin(None)
            # Foreign lines in the middle of the data are emptied. Without them the event is what most readers read.
            self._keep_data(first, last)
            self._run = None
            position = self._after_line(last)
            self._keep(self._raw[last:position], position - last)
            yield from self._read(position, end)
        yield self._finished()

    def _read(self, position: int, end: int) -> Iterator[Part]:
        """Read lines before or after the data; yield the parts that end within them."""
        raw = self._raw
        while position < end:
            run = FOREIGN_RUNS.get(self._run, FOREIGN_RUNS[None]).match(raw, position, min(position + _SLICE, end))
            if run is not None:
                lines = run[0]
                self._keep(cleaned(lines), len(lines))
                if self._run is not None:
                    assert self._part.text is not None
                    self._part.text += run_text(lines)
                position = run.end()
                continue
            after = self._after_line(position)
            line = raw[position:after].rstrip(b"\r\n")
            if line and is_foreign(line.partition(b":")[0]):
                yield from self._read_foreign(line)
                self._keep(raw[position:after], after - position)
            else:
                self._keep(_passing(line) + raw[position + len(line) : after], after - position)
            position = after

    def _read_foreign(self, line: bytes) -> Iterator[Part]:
        """Read a foreign line; yield the part before it if the line begins another."""
        run = run_of(line)
        if self._run is Run.OPEN or (self._run is Run.TEXT and run is not Run.WHOLE):
            text = self._part.text
        else:
            yield from self._begin(run)
            text = self._part.text = bytearray()
            line = foreign_text(line)
        assert text is not None  # a run has begun
        text += line + b"\n"

    def _keep_data(self, position: int, end: int) -> None:
        """Keep lines of data; what stands between them is emptied."""
        while position < end:
            after = min(end, self._after_line(min(position + _SLICE, end)))
            self._keep(emptied(self._raw[position:after]), after - position)
            position = after

    def _after_line(self, position: int) -> int:
        """Return where the line at `position` has ended."""
        line = _LINE.match(self._raw, position)
        assert line is not None
        return line.end()

    def _keep(self, passing: bytes, size: int) -> None:
        self._part.raw += passing
        self._part.size += size

    def _begin(self, run: Run | None) -> Iterator[Part]:
        """Begin a part; yield the one before it, if that has an event. What precedes the first is part of it."""
        if self._has_event:
            yield self._finished()
            self._part = Part()
        self._has_event = True
        self._run = run

    def _finished(self) -> Part:
        text = self._part.text
        if text is not None:
            del text[-1:]  # the last line end
        return self._part


def _passing(line: bytes) -> bytes:
    """Return a line that is no data and no foreign line: unchanged if it passes, else as an empty comment."""
    name, _, value = line.partition(b":")
    is_inert = INERT.get(name)
    return line if name == b"data" or not line or (is_inert is not None and is_inert(value)) else b":"
