"""The events of an answer in each framing."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from extproc.core.block_answers.base import DONE, Event, Frames
from extproc.core.block_answers.writer import write
from extproc.core.content.aws_event_stream import FrameDecoder
from extproc.core.content.framing import Framing, decoder_of

EVENTS: list[Event] = [("one", {"a": "é\n"}), ("", {"b": 2}), ("", DONE)]


def test_server_sent_events_have_names_and_the_mark_of_the_end() -> None:
    written = write(EVENTS, Framing.EVENT_STREAM)
    assert written == b'event: one\ndata: {"a": "\\u00e9\\n"}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'


def test_lines_have_no_mark() -> None:
    assert write(EVENTS, Framing.JSON_LINES) == b'{"a": "\\u00e9\\n"}\n{"b": 2}\n'


@pytest.mark.parametrize(("before", "tail"), [(b"", b""), (b'[{"x":1}', b"}")])
def test_array_is_whole_or_goes_on(before: bytes, tail: bytes) -> None:
    whole = json.loads(before + write(EVENTS, Framing.JSON_ARRAY, tail=tail))
    assert whole[-2:] == [{"a": "é\n"}, {"b": 2}]


def _frames(written: bytes) -> list[Any]:
    decoder = FrameDecoder(2**16)
    frames = [*decoder.feed(written), *decoder.finish()]
    assert all(frame.message_type == "event" for frame in frames)
    return frames


def test_converse_names_its_frames() -> None:
    frames = _frames(write(EVENTS[:1], Framing.AWS_EVENT_STREAM, Frames.NAMED))
    assert [(frame.event_type, json.loads(frame.payload)) for frame in frames] == [("one", {"a": "é\n"})]


def test_invoked_models_have_their_events_in_base64() -> None:
    frames = _frames(write(EVENTS, Framing.AWS_EVENT_STREAM, Frames.CHUNKS))
    assert [frame.event_type for frame in frames] == ["chunk", "chunk"]
    assert [json.loads(b64decode(json.loads(frame.payload)["bytes"])) for frame in frames] == [{"a": "é\n"}, {"b": 2}]


@pytest.mark.parametrize("inside", [Framing.EVENT_STREAM, Framing.JSON_LINES])
def test_parts_are_pieces_of_another_stream(inside: Framing) -> None:
    written = write(EVENTS, Framing.AWS_EVENT_STREAM, Frames.PARTS, inside=inside)
    assert b"".join(frame.payload for frame in _frames(written)) == write(EVENTS, inside)
    decoder = decoder_of(Framing.AWS_EVENT_STREAM, 2**16)
    datas = [unit.data for unit in (*decoder.feed(written), *decoder.finish())]
    assert [json.loads(data or "") for data in datas[:2]] == [{"a": "é\n"}, {"b": 2}]
