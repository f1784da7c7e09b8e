"""Framing: how a body is cut into documents, recognised by its media type and its first bytes."""

from __future__ import annotations

from enum import StrEnum

from extproc.core.content.media_type import is_event_stream, is_json, is_json_lines
from extproc.core.content.sse import BOM


class Framing(StrEnum):
    """The framings of a body."""

    WHOLE = "whole"
    """one document"""
    EVENT_STREAM = "event stream"
    JSON_LINES = "JSON lines"


_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How the first line of an event stream begins."""


def framing_of(content_type: str, first_bytes: bytes) -> Framing | None:
    """Return the framing of a body of this media type that begins so; None if it takes more bytes to tell."""
    if is_event_stream(content_type):
        return Framing.EVENT_STREAM
    if is_json(content_type):
        return Framing.WHOLE
    head = first_bytes.removeprefix(BOM).lstrip(b" \t\r\n")
    if not head or any(field.startswith(head) for field in _FIELDS if len(head) < len(field)):
        return None
    if head.startswith(_FIELDS):
        return Framing.EVENT_STREAM
    return Framing.JSON_LINES if is_json_lines(content_type) else Framing.WHOLE
