"""Writes the events of an answer in the framing of its stream."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from extproc.core.block_answers.base import DONE, BlockAnswer, Event, Frames
from extproc.core.content.aws_event_stream import PAYLOAD_PART, frame_of
from extproc.core.content.aws_headers import string_header
from extproc.core.content.framing import Framing
from extproc.core.content.json_array import ending

MEDIA_TYPES: Mapping[Framing, str] = {
    Framing.WHOLE: "application/json",
    Framing.EVENT_STREAM: "text/event-stream",
    Framing.JSON_LINES: "application/x-ndjson",
    Framing.AWS_EVENT_STREAM: "application/vnd.amazon.eventstream",
    Framing.JSON_ARRAY: "application/json",
}
"""The content type of a body in each framing."""


def reply(answer: BlockAnswer, message: str, framing: Framing) -> bytes:
    """Return an answer with the message, from its first byte to its last."""
    if framing is Framing.WHOLE:
        return _json(answer.whole(message))
    return write(answer.rest(message), framing, answer.frames)


def write(
    events: Iterable[Event],
    framing: Framing,
    frames: Frames = Frames.PARTS,
    *,
    tail: bytes = b"",
    inside: Framing = Framing.EVENT_STREAM,
) -> bytes:
    """Return the bytes of events that end a stream.

    `frames` says what the frames of an AWS event stream hold, and `inside` the framing of what is cut into parts there.
    `tail` are the last bytes of an array that were released.
    """
    match framing:
        case Framing.JSON_LINES:
            return b"".join(_json(value) + b"\n" for _, value in events if value != DONE)
        case Framing.JSON_ARRAY:
            return ending(tail, b",\r\n".join(_json(value) for _, value in events if value != DONE))
        case Framing.AWS_EVENT_STREAM if frames is Frames.PARTS:
            return b"".join(_part(write([event], inside)) for event in events)
        case Framing.AWS_EVENT_STREAM:
            return b"".join(_frame(*event, frames) for event in events if event[1] != DONE)
        case _:
            return b"".join(_event(*event) for event in events)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _event(name: str, value: Any) -> bytes:
    """Return a server-sent event."""
    named = f"event: {name}\n".encode() if name else b""
    return named + b"data: " + (DONE.encode() if value == DONE else _json(value)) + b"\n\n"


def _frame(name: str, value: Any, frames: Frames) -> bytes:
    """Return a frame of Bedrock."""
    if frames is Frames.CHUNKS:
        name, value = "chunk", {"bytes": b64encode(_json(value)).decode()}
    return _framed(name, "application/json", _json(value))


def _part(payload: bytes) -> bytes:
    """Return a frame of SageMaker."""
    return _framed(PAYLOAD_PART, "application/octet-stream", payload) if payload else b""


def _framed(name: str, media_type: str, payload: bytes) -> bytes:
    headers = ((":event-type", name), (":content-type", media_type), (":message-type", "event"))
    return frame_of(b"".join(string_header(*header) for header in headers), payload)
