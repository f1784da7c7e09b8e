"""What a streamed answer gets from the upstream: bytes without their content-encoding, cut into units."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import StrEnum

from extproc.core.content.body import inflater
from extproc.core.content.framing import Framing, Unit, decoder_of
from extproc.core.content.payload_parts import PartDecoder
from extproc.core.errors import ContentError
from extproc.core.policy import Limits
from extproc.core.vocabulary import Headers

_UNITS, _BYTES = 1024, 262_144
"""What ends a turn: so many units, units of so many bytes, or so many inflated bytes. Others must not wait for long.

A slice of inflated bytes, with which a turn may end, has at most 64 KiB, but for zstd.
"""


_LINES = (Framing.EVENT_STREAM, Framing.JSON_LINES)
"""The framings in which only the end of a line completes a unit."""


class Upstream(StrEnum):
    """Whether and how the upstream ended the stream."""

    OPEN = "open"
    ENDED = "ended"
    ENDED_BY_TRAILERS = "ended by trailers"


class StreamInput:
    """Decodes the bytes of one stream."""

    __slots__ = (
        "_complete",
        "_decoder",
        "_has_text_lines",
        "_inflater",
        "_is_finishing",
        "_open",
        "_pieces",
        "_ratio",
        "_slices",
        "_uncut",
        "has_more",
        "is_broken",
        "upstream",
    )

    def __init__(self, headers: Headers, framing: Framing, limits: Limits) -> None:
        """Read a stream with these response headers; raise UnsupportedEncoding if it cannot be read."""
        self._inflater = inflater(headers, None, limits.inflate_ratio)
        self._ratio = limits.inflate_ratio
        self._decoder = decoder_of(framing, limits.event_bytes)
        self._has_text_lines = self._inflater is None and framing in _LINES
        self._pieces: deque[bytes] = deque()
        self._slices: Iterator[bytes] = iter(())  # what is left of the piece that is being inflated
        self._open = 0  # the bytes of that piece
        self._uncut = 0  # the bytes of all pieces, as they came
        # What is left of the units that the last bytes completed. A generator of this object would be a cycle: Python
        # would keep the inflater of an ended stream until it looks for cycles, minutes later.
        self._complete: Iterator[Unit] = iter(())
        self._is_finishing = False  # whether these are the last units of an ended stream
        self.has_more = False
        """Whether `units` may yield more than it has yielded."""
        self.is_broken = False
        """Whether the content-encoding is broken: what follows is unknown."""
        self.upstream = Upstream.OPEN

    @property
    def is_encoded(self) -> bool:
        """Return whether the stream has a content-encoding."""
        return self._inflater is not None

    @property
    def is_over(self) -> bool:
        """Return whether the upstream has ended the stream, and all of it was yielded."""
        return self.upstream is not Upstream.OPEN and not self.has_more

    @property
    def pending(self) -> int:
        """The bytes that are in no unit yet; those that were not inflated count as they are."""
        return self._decoder.pending + self._uncut

    def weight(self, data: bytes, *, is_last: bool) -> int:
        """Return about how many bytes the next units may have once `data` has come; 0 if it can complete none."""
        if self._has_text_lines and not is_last and b"\n" not in data and b"\r" not in data:
            return 0
        return len(data) + self.pending

    @property
    def most_pending(self) -> int:
        """The bytes that are in no unit yet, once they are inflated: at most so many."""
        return self._decoder.pending + self._uncut * (self._ratio if self.is_encoded else 1)

    @property
    def incomplete(self) -> int:
        """The bytes of a unit that only the upstream can complete."""
        return 0 if self.has_more else self._decoder.pending

    @property
    def has_parts(self) -> bool:
        """Return whether the stream is one of payload parts."""
        return isinstance(self._decoder, PartDecoder) and self._decoder.has_parts

    @property
    def has_lines(self) -> bool:
        """Return whether the payload parts are pieces of JSON lines."""
        return isinstance(self._decoder, PartDecoder) and self._decoder.has_lines

    def end(self, *, has_trailers: bool) -> None:
        """Record that the upstream has ended."""
        self.upstream = Upstream.ENDED_BY_TRAILERS if has_trailers else Upstream.ENDED
        self.has_more = True
        self._is_finishing = False

    def add(self, data: bytes) -> None:
        """Take bytes as they came, of which `units` then yields what is complete."""
        self._pieces.append(data)
        self._uncut += len(data)
        self.has_more = True

    def units(self) -> Iterator[Unit]:
        """Yield the next units, at last the rest of an ended stream, but not too many at a time.

        Raises ContentError for a unit that cannot be read, and for a broken content-encoding (`is_broken`).
        """
        count = size = inflated = 0
        try:
            while count < _UNITS and size < _BYTES:
                unit = next(self._complete, None)
                if unit is not None:
                    count += 1
                    size += len(unit.raw)
                    yield unit
                elif inflated >= _BYTES:
                    break
                elif (plain := self._next()) is not None:
                    self._complete = self._decoder.feed(plain)
                    if self._inflater is not None:
                        inflated += len(plain)
                elif self.upstream is Upstream.OPEN or self._is_finishing:
                    self._is_finishing = self.has_more = False
                    return
                else:
                    self._check_end()
                    self._complete = self._decoder.finish()
                    self._is_finishing = True
        except ContentError:
            self._is_finishing = self.has_more = False
            raise
        self.has_more = self.pending > 0 or self.upstream is not Upstream.OPEN

    def all_units(self) -> Iterator[Unit]:
        """Yield all units that `units` would yield; raise like it."""
        while self.has_more:
            yield from self.units()

    def _next(self) -> bytes | None:
        """Return the next decoded bytes; None if there are none. Raises ContentError if the encoding is broken."""
        while True:
            if self._open:
                plain = self._inflated()
                if plain is not None:
                    return plain
            if not self._pieces:
                return None
            piece = self._pieces.popleft()
            if self._inflater is None:
                self._uncut -= len(piece)
                return piece
            self._slices = self._inflater.slices(piece)
            self._open = len(piece)

    def _inflated(self) -> bytes | None:
        """Return the next slice of the piece that is being inflated; None at its end."""
        try:
            plain = next(self._slices, None)
        except ContentError:
            self.is_broken = True
            self.drop()
            raise
        if plain is None:
            self._uncut -= self._open
            self._open = 0
        return plain

    def _check_end(self) -> None:
        """Check that the content-encoding is complete; raise MalformedBody."""
        try:
            if self._inflater is not None:
                self._inflater.finish()
        except ContentError:
            self.is_broken = True
            raise

    def take_rest(self) -> bytes:
        """Remove and return the decoded bytes that are in no unit yet; raise ContentError if the encoding is broken."""
        rest = [self._decoder.take_rest()]
        while (plain := self._next()) is not None:
            rest.append(plain)
        self.has_more = False
        if self.upstream is not Upstream.OPEN:
            self._check_end()
        return b"".join(rest)

    def drop(self) -> None:
        """Forget the bytes that are in no unit yet."""
        self._decoder.take_rest()
        self._pieces.clear()
        self._slices = iter(())
        self._open = self._uncut = 0
        self.has_more = False
