"""Framings: how a body is cut into documents, and how its content type and first bytes tell which one it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

from extproc.core.content.json_array import ArrayDecoder
from extproc.core.content.json_lines import LineDecoder
from extproc.core.content.media_type import is_aws_event_stream, is_event_stream, is_json, is_json_lines
from extproc.core.content.payload_parts import Inside, PartDecoder
from extproc.core.content.server_sent_event import BOM
from extproc.core.content.sse import EventDecoder


class Framing(StrEnum):
    """The framings that are read."""

    WHOLE = "whole"
    """the body is one JSON document"""
    EVENT_STREAM = "event stream"
    JSON_LINES = "JSON lines"
    AWS_EVENT_STREAM = "AWS event stream"
    JSON_ARRAY = "JSON array"
    """the body is an array that grows; a dialect says whether its arrays do"""
    UNKNOWN = "unknown"
    """neither the content type nor the first bytes are those of a framing that is read"""


WHOLE = Framing.WHOLE
"""The framing of most bodies by a short name, which is found faster in Python 3.11."""


class Unit(Protocol):
    """One document of a stream: an event, a line, a frame or an element. `data` is None if it has none."""

    @property
    def raw(self) -> bytes:
        """The bytes to release unchanged."""

    @property
    def data(self) -> str | None:
        """The text of the document."""

    @property
    def is_foreign(self) -> bool:
        """Whether the data may be any text instead of JSON."""

    def with_data(self, data: str) -> bytes:
        """Return the bytes with other data."""


class Decoder(Protocol):
    """Cuts a stream into units; see `EventDecoder`."""

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete unit."""

    def feed(self, data: bytes) -> Iterator[Unit]:
        """Yield the units that `data` completes; raise BodyTooLarge or MalformedBody."""

    def finish(self) -> Iterator[Unit]:
        """Yield the rest of an ended stream; raise like `feed`."""

    def take_rest(self) -> bytes:
        """Remove and return the bytes that were not yielded."""


def decoder_of(framing: Framing, limit: int) -> Decoder:
    """Return a decoder for units of at most `limit` bytes."""
    match framing:
        case Framing.JSON_LINES:
            return LineDecoder(limit)
        case Framing.AWS_EVENT_STREAM:
            return PartDecoder(limit, _inside)
        case Framing.JSON_ARRAY:
            return ArrayDecoder(limit)
        case _:
            return EventDecoder(limit)


FIRST_BYTES = 64
"""The most bytes that `framing_of` needs."""

_SPACE = b" \t\r\n"
_JSON_STARTS = (b"{", b"[", b'"')
_EVENT_START = re.compile(rb":|(?:data|event|id|retry)[:\r\n]").match
_PARTS = tuple(name[:size] for name in (b"data", b"event", b"id", b"retry") for size in range(1, len(name) + 1))
"""What may become the first field of an event stream."""


def framing_of(content_type: str, first_bytes: bytes, *, is_all: bool = False) -> Framing | None:
    """Return the framing of a body with this header and these first bytes, decoded; None if more bytes are needed.

    Never None from `FIRST_BYTES` bytes on, and never if the bytes are the whole body (`is_all`). The type decides for
    event streams, those of AWS, and JSON. JSON lines may turn out to be an event stream. For every other type the bytes
    decide.
    """
    media_type = content_type.split(";", 1)[0].strip().lower()
    if is_event_stream(media_type):
        return Framing.EVENT_STREAM
    if is_aws_event_stream(media_type):
        return Framing.AWS_EVENT_STREAM
    if is_json(media_type):
        return WHOLE
    is_lines = is_json_lines(media_type)
    found = _by_bytes(first_bytes[:FIRST_BYTES])
    if found is None and not is_all and len(first_bytes) < FIRST_BYTES:
        return None
    if is_lines:
        return Framing.EVENT_STREAM if found is Framing.EVENT_STREAM else Framing.JSON_LINES
    if found is None and not first_bytes.removeprefix(BOM).strip(_SPACE):
        return WHOLE  # white space alone is no image, and JSON may follow
    return found or Framing.UNKNOWN


def _inside(first: bytes, is_all: bool) -> Inside:
    """Return what the stream in payload parts is."""
    return _INSIDE[framing_of("", first, is_all=is_all)]


_INSIDE = {
    None: Inside.UNDECIDED,
    Framing.EVENT_STREAM: Inside.EVENTS,
    Framing.WHOLE: Inside.LINES,
    Framing.UNKNOWN: Inside.OTHER,
}
"""What the framing of the first bytes means there. White space alone may precede JSON."""


def _by_bytes(first: bytes) -> Framing | None:
    """Return the framing that a body with these first bytes has; None if they do not tell yet."""
    first = first.lstrip(_SPACE)
    if BOM.startswith(first[: len(BOM)]):
        first = first[len(BOM) :].lstrip(_SPACE)
    if first.startswith(_JSON_STARTS):
        return WHOLE
    if _EVENT_START(first):
        return Framing.EVENT_STREAM
    return None if not first or first in _PARTS else Framing.UNKNOWN
