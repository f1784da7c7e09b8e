"""The AWS event stream of Amazon SageMaker: its frames `PayloadPart` are pieces of the stream that the model wrote.

Source: the API reference of SageMaker's runtime, "InvokeEndpointWithResponseStream". The pieces may be cut anywhere. So
their payloads are joined and cut into the units of the stream inside: events or lines. A unit that is one or more whole
frames keeps their bytes. Any other unit leaves in a frame of its own, with the headers of the frame in which it ended.
Clients join the payloads, so they read the same.

A stream inside that is neither an event stream nor JSON is read frame by frame, as are frames of other types.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from extproc.core.content.aws_event_stream import PAYLOAD_PART, Frame, FrameDecoder, frame_of, with_text
from extproc.core.content.json_lines import JSONLine, LineDecoder
from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.content.sse import EventDecoder
from extproc.core.errors import ContentError


class Inside(Enum):
    """The stream inside."""

    UNDECIDED = auto()
    EVENTS = auto()
    LINES = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Part:
    """One unit of the stream inside. `raw` are its frames."""

    raw: bytes
    headers: bytes
    unit: ServerSentEvent | JSONLine

    @property
    def data(self) -> str | None:
        """The text of the unit."""
        return self.unit.data

    @property
    def is_foreign(self) -> bool:
        """Whether the data may be any text instead of JSON."""
        return self.unit.is_foreign

    def with_data(self, data: str) -> bytes:
        """Return a frame with other data."""
        return frame_of(self.headers, self.unit.with_data(data))


class PartDecoder:
    """Cuts an AWS event stream into frames, and its payload parts into the units of the stream inside."""

    __slots__ = (
        "_frames",
        "_headers",
        "_inner",
        "_inside",
        "_limit",
        "_raw",
        "_ready",
        "_recognise",
        "_said",
        "has_parts",
    )

    def __init__(self, limit: int, recognise: Callable[[bytes, bool], Inside]) -> None:
        """Allow frames and units of at most `limit` bytes.

        `recognise` tells the stream inside by its first bytes, and by whether they are all.
        """
        self._limit = limit
        self._recognise = recognise
        self._frames = FrameDecoder(limit)
        self._inside = Inside.UNDECIDED
        self._inner: EventDecoder | LineDecoder | None = None
        self._headers = b""
        self._ready: deque[Part | Frame] = deque()
        self._raw: bytearray | None = bytearray()
        """The frames since the last unit; None if that unit ended within the first of them."""
        self._said = bytearray()
        """Their payloads."""
        self.has_parts = False
        """Whether a payload part has come."""

    @property
    def has_lines(self) -> bool:
        """Return whether the stream inside is one of lines."""
        return self._inside is Inside.LINES

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete frame and unit, and of units that were not yielded yet."""
        inside = self._inner.pending if self._inner is not None else 0
        ready = sum(len(unit.raw) for unit in self._ready)
        return self._frames.pending + len(self._said) + len(self._raw or b"") + inside + ready

    def feed(self, data: bytes) -> Iterator[Part | Frame]:
        """Yield the units that `data` completes; raise BodyTooLarge or MalformedBody, as the decoders inside do."""
        for frame in self._frames.feed(data):
            yield from self._after(partial(self._read, frame))

    def finish(self) -> Iterator[Part | Frame]:
        """Yield the rest of an ended stream; raise like `feed`."""
        yield from self._after(self._end)
        yield from self._frames.finish()

    def take_rest(self) -> bytes:
        """Remove and return the bytes that were not yielded."""
        ready = b"".join(unit.raw for unit in self._ready)
        inside = self._inner.take_rest() if self._inner is not None else b""
        rest = bytes(self._raw) if self._raw is not None else frame_of(self._headers, inside)
        self._ready.clear()
        self._begin()
        return ready + rest + self._frames.take_rest()

    def _after(self, step: Callable[[], None]) -> Iterator[Part | Frame]:
        """Yield what a step has made ready, also before an error of it."""
        error: ContentError | None = None
        try:
            step()
        except ContentError as raised:
            error = raised
        while self._ready:
            yield self._ready.popleft()
        if error is not None:
            raise error

    def _begin(self) -> None:
        self._raw = bytearray()
        self._said.clear()

    def _read(self, frame: Frame) -> None:
        """Read a frame."""
        if frame.event_type != PAYLOAD_PART:
            self._end()
            self._ready.append(frame)
            return
        self.has_parts = True
        if not frame.payload:
            self._ready.append(frame)
        elif self._inside is Inside.OTHER:
            self._read_alone(frame)
        else:
            self._headers = frame.header_block
            if self._raw is not None:
                self._raw += frame.raw
                self._said += frame.payload
            if self._inner is None:
                self._recognised(is_all=False)
            else:
                self._cut(frame.payload)

    def _read_alone(self, frame: Frame) -> None:
        """Read a payload as a text of its own."""
        self._raw = bytearray(frame.raw)
        self._ready.append(with_text(frame))
        self._raw.clear()

    def _recognised(self, *, is_all: bool) -> None:
        """Begin to read the stream inside, if its first bytes tell what it is."""
        said = bytes(self._said)
        self._inside = self._recognise(said, is_all)
        if self._inside is Inside.OTHER:
            raw = bytes(self._raw or b"")
            self._begin()
            for frame in FrameDecoder(len(raw)).feed(raw):
                self._read_alone(frame)
        elif self._inside is not Inside.UNDECIDED:
            is_stream = self._inside is Inside.EVENTS
            self._inner = EventDecoder(self._limit) if is_stream else LineDecoder(self._limit)
            self._cut(said)

    def _cut(self, payload: bytes) -> None:
        """Cut the next bytes of the stream inside into units."""
        assert self._inner is not None
        units: list[ServerSentEvent | JSONLine] = []
        is_whole = False
        try:
            for unit in self._inner.feed(payload):
                units.append(unit)  # noqa: PERF402 - those before an error count
            is_whole = not self._inner.pending
        finally:
            self._enframe(units, is_whole=is_whole)

    def _end(self) -> None:
        """Read the rest of the stream inside."""
        if self._said and self._inner is None:
            self._recognised(is_all=True)
        if self._inner is not None and self._inner.pending:
            self._enframe(list(self._inner.finish()), is_whole=True)

    def _enframe(self, units: list[ServerSentEvent | JSONLine], *, is_whole: bool) -> None:
        """Make units ready in frames. `is_whole`: nothing follows the last of them in its frame."""
        raw = self._raw
        if is_whole and raw and len(units) == 1 and units[0].raw == self._said:
            self._ready.append(Part(bytes(raw), self._headers, units[0]))
        else:
            self._ready += (Part(frame_of(self._headers, unit.raw), self._headers, unit) for unit in units)
        if is_whole:
            self._begin()
        elif units or len(raw or b"") > self._limit:
            self._raw = None
            self._said.clear()
