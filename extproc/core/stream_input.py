"""What a streamed answer gets from the upstream: bytes without their content-encoding, cut into units."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from extproc.core.content.body import inflater
from extproc.core.content.framing import Framing, Unit, decoder_of
from extproc.core.content.payload_parts import PartDecoder
from extproc.core.policy import Limits
from extproc.core.vocabulary import Headers


class Upstream(StrEnum):
    """Whether and how the upstream ended the stream."""

    OPEN = "open"
    ENDED = "ended"
    ENDED_BY_TRAILERS = "ended by trailers"


class StreamInput:
    """Decodes the bytes of one stream."""

    __slots__ = ("_decoder", "_inflater", "upstream")

    def __init__(self, headers: Headers, framing: Framing, limits: Limits) -> None:
        """Read a stream with these response headers; raise UnsupportedEncoding if it cannot be read."""
        self._inflater = inflater(headers, None, limits.inflate_ratio)
        self._decoder = decoder_of(framing, limits.event_bytes)
        self.upstream = Upstream.OPEN

    @property
    def is_encoded(self) -> bool:
        """Return whether the stream has a content-encoding."""
        return self._inflater is not None

    @property
    def pending(self) -> int:
        """The bytes of the incomplete unit."""
        return self._decoder.pending

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

    def units(self, plain: bytes) -> Iterator[Unit]:
        """Yield the units that decoded bytes complete; raise ContentError for one that cannot be read."""
        return self._decoder.feed(plain)

    def last_units(self) -> Iterator[Unit]:
        """Yield the rest of an ended stream; raise like `units`."""
        return self._decoder.finish()

    def take_rest(self) -> bytes:
        """Remove and return the decoded bytes that are in no unit yet."""
        return self._decoder.take_rest()
