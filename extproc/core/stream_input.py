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
"""The most units that are yielded at a time, and the bytes after which no more are: others must not wait for long."""


class Upstream(StrEnum):
    """Whether and how the upstream ended the stream."""

    OPEN = "open"
    ENDED = "ended"
    ENDED_BY_TRAILERS = "ended by trailers"


class StreamInput:
    """Decodes the bytes of one stream."""

    __slots__ = ("_cut", "_decoder", "_inflater", "_pieces", "_uncut", "has_more", "upstream")

    def __init__(self, headers: Headers, framing: Framing, limits: Limits) -> None:
        """Read a stream with these response headers; raise UnsupportedEncoding if it cannot be read."""
        self._inflater = inflater(headers, None, limits.inflate_ratio)
        self._decoder = decoder_of(framing, limits.event_bytes)
        self._pieces: deque[bytes] = deque()
        self._uncut = 0  # the bytes of the pieces
        self._cut = self._units()
        self.has_more = False
        """Whether `units` may yield more than it has yielded."""
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
        """The bytes that are in no unit yet."""
        return self._decoder.pending + self._uncut

    @property
    def has_parts(self) -> bool:
        """Return whether the stream is one of payload parts."""
        return isinstance(self._decoder, PartDecoder) and self._decoder.has_parts

    def decode(self, data: bytes) -> bytes:
        """Return the bytes without their content-encoding; raise ContentError if it is broken."""
        return data if self._inflater is None else self._inflater.feed(data)

    def end(self, *, has_trailers: bool) -> None:
        """Record that the upstream has ended; raise ContentError if its content-encoding is incomplete."""
        self.upstream = Upstream.ENDED_BY_TRAILERS if has_trailers else Upstream.ENDED
        if self._inflater is not None:
            self._inflater.finish()
        self.add(b"")

    def add(self, plain: bytes) -> None:
        """Take decoded bytes, of which `units` then yields what is complete."""
        self._pieces.append(plain)
        self._uncut += len(plain)
        self.has_more = True

    def units(self) -> Iterator[Unit]:
        """Yield the next units, at last the rest of an ended stream, but not too many at a time.

        Raises ContentError for a unit that cannot be read.
        """
        count = size = 0
        try:
            while count < _UNITS and size < _BYTES:
                unit = next(self._cut)
                if unit is None:
                    self.has_more = False
                    return
                count += 1
                size += len(unit.raw)
                yield unit
        except ContentError:
            self.has_more = False
            self._cut = self._units()
            raise
        self.has_more = self.pending > 0 or self.upstream is not Upstream.OPEN

    def all_units(self) -> Iterator[Unit]:
        """Yield all units that `units` would yield."""
        while self.has_more:
            yield from self.units()

    def _units(self) -> Iterator[Unit | None]:
        """Yield the units, and None wherever no more are complete."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._uncut -= len(piece)
                yield from self._decoder.feed(piece)
            if self.upstream is not Upstream.OPEN:
                yield from self._decoder.finish()
            yield None

    def take_rest(self) -> bytes:
        """Remove and return the decoded bytes that are in no unit yet."""
        rest = self._decoder.take_rest() + b"".join(self._pieces)
        self._pieces.clear()
        self._uncut = 0
        self.has_more = False
        return rest
