"""A JSON array of objects that is sent while it grows, cut into its elements without losing a byte.

Gemini streams so without `alt=sse`. An element is complete with its closing brace, so it does not wait for the comma
behind it. Its raw bytes begin with what precedes it: a byte order mark, the opening bracket or a comma, and white
space. The closing bracket is a unit of its own, whose data is the mark of the end, as in event streams. White space
behind it has no data.

The decoder checks what is between the elements. Whether an element is valid JSON is seen when it is parsed.

    decoder = ArrayDecoder(limit)
    for element in decoder.feed(data): ...    # any split of the bytes gives the same elements
    for element in decoder.finish(): ...
    # the elements' raw bytes, joined, equal the input
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from extproc.core.content.document import MAX_DEPTH
from extproc.core.content.server_sent_event import BOM
from extproc.core.errors import BodyTooLarge, MalformedBody

END = "[DONE]"
"""The data of the closing bracket."""

_SPACE = b" \t\r\n"
_SPACES = re.compile(rb"[ \t\r\n]*+")

_FLAT = re.compile(
    rb"""(?:[^"{}\[\]]++ | "[^"\\]*+(?:\\.[^"\\]*+)*+" | \[[^"{}\[\]]*+\] | \{[^"{}\[\]]*+\}){0,256}""",
    re.DOTALL | re.VERBOSE,
)
"""What does not change the depth: whole strings, containers without strings and containers, and everything else."""

_QUOTATION_MARK, _BACKSLASH = b'"\\'

_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JSONElement:
    """One element with what precedes it, the closing bracket, or white space behind it.

    `raw` are its unchanged bytes; the element itself begins at `start` and ends with them. `data` is its text.
    """

    raw: bytes
    data: str | None = None
    start: int = 0
    is_foreign: ClassVar[bool] = False

    def with_data(self, data: str) -> bytes:
        """Return the bytes with another element; what precedes it stays."""
        return self.raw[: self.start] + data.encode()


def ending(tail: bytes, element: bytes) -> bytes:
    """Return the bytes that end an array with one more element. `tail` are the last bytes that were released.

    There are none if the array has ended: nothing can be added to it.
    """
    if not tail:
        return b"[" + element + b"]"
    return b"," + element + b"]" if tail.endswith(b"}") else b""


class _Expects(Enum):
    """What the array may go on with, besides white space."""

    ARRAY = auto()  # the opening bracket
    FIRST = auto()  # an element, or the closing bracket
    NEXT = auto()  # an element
    COMMA = auto()  # a comma, or the closing bracket
    NOTHING = auto()  # the array has ended


class ArrayDecoder:
    """Cuts a JSON array into its elements."""

    __slots__ = ("_buffer", "_depth", "_expects", "_is_in_string", "_limit", "_scanned", "_start")

    def __init__(self, limit: int) -> None:
        """Allow elements of at most `limit` bytes, with what precedes them."""
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0  # the position up to which the buffer was read
        self._start = 0  # where the current element begins
        self._depth = 0  # 0 between elements
        self._is_in_string = False
        self._expects = _Expects.ARRAY

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete element."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[JSONElement]:
        """Yield the elements that `data` completes.

        Raises BodyTooLarge for an element over the limit, and MalformedBody for what is no array of objects or not
        UTF-8. `take_rest` then returns the bytes that were not yielded.
        """
        buffer = self._buffer
        buffer += data
        while self._scanned < len(buffer):
            if self._depth:
                if not self._scan():
                    break
                self._expects = _Expects.COMMA
                yield self._cut(self._scanned, self._text())
            elif self._begin():
                yield self._cut(self._scanned, END)
            elif not self._depth:
                break
        if self._expects is _Expects.NOTHING and buffer:
            yield self._cut(len(buffer), None)
        if len(buffer) > self._limit:
            raise BodyTooLarge("an element is larger than the limit")

    def finish(self) -> Iterator[JSONElement]:
        """Yield nothing; raise MalformedBody if the body ends before the array does."""
        if self._expects is not _Expects.NOTHING:
            raise MalformedBody("an array is cut short")
        yield from ()

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete element."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest

    def _begin(self) -> bool:
        """Read what is between two elements; return whether it ends the array, else see `_depth`."""
        buffer = self._buffer
        position = self._scanned
        if self._expects is _Expects.ARRAY and not position and BOM.startswith(buffer[: len(BOM)]):
            if len(buffer) < len(BOM):
                return False
            position = len(BOM)
        while True:
            spaces = _SPACES.match(buffer, position)
            position = self._scanned = spaces.end() if spaces is not None else position
            if position == len(buffer):
                return False
            match self._expects, buffer[position : position + 1]:
                case _Expects.ARRAY, b"[":
                    self._expects = _Expects.FIRST
                case _Expects.COMMA, b",":
                    self._expects = _Expects.NEXT
                case ((_Expects.FIRST | _Expects.NEXT), b"{"):
                    self._start, self._depth, self._scanned = position, 1, position + 1
                    return False
                case ((_Expects.FIRST | _Expects.COMMA), b"]"):
                    self._expects = _Expects.NOTHING
                    self._start, self._scanned = position, position + 1
                    return True
                case _:
                    raise MalformedBody("no array of objects")
            position += 1

    def _scan(self) -> bool:
        """Read on in an element; return whether it is complete."""
        buffer = self._buffer
        size = len(buffer)
        position = self._scanned
        while position < size:
            found = (_IN_STRING if self._is_in_string else _FLAT).match(buffer, position)
            if found is not None and found.end() > position:
                position = found.end()
                continue
            byte = buffer[position]
            if byte == _BACKSLASH:  # the first half of an escape
                break
            position += 1
            if byte == _QUOTATION_MARK:
                self._is_in_string = not self._is_in_string
            else:
                self._depth += 1 if byte in b"{[" else -1
            if self._depth > MAX_DEPTH:
                raise MalformedBody("nested too deeply")
            if not self._depth:
                self._scanned = position
                return True
        self._scanned = position
        return False

    def _text(self) -> str:
        """Return the text of the complete element."""
        try:
            return self._buffer[self._start : self._scanned].decode()
        except UnicodeDecodeError as error:
            raise MalformedBody("an element is not UTF-8") from error

    def _cut(self, end: int, data: str | None) -> JSONElement:
        """Remove and return the bytes before `end` as a unit."""
        if end > self._limit:
            raise BodyTooLarge("an element is larger than the limit")
        element = JSONElement(bytes(self._buffer[:end]), data, self._start)
        del self._buffer[:end]
        self._scanned = self._start = 0
        return element
