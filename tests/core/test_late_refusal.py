"""The refusal of a response that has begun, in each framing."""

from __future__ import annotations

import json

import pytest

from extproc.core.content.framing import Framing
from extproc.core.dialects.endpoints import DEFAULT
from extproc.core.late_refusal import late_refusal
from extproc.core.refusal import BLOCKED_RESPONSE, blocked

REFUSAL = blocked(BLOCKED_RESPONSE)


def test_event_stream_ends_with_an_error_event() -> None:
    assert late_refusal(REFUSAL, DEFAULT, Framing.EVENT_STREAM) == DEFAULT.refuse_stream(REFUSAL, 0)


def test_json_lines_end_with_a_line() -> None:
    last = late_refusal(REFUSAL, DEFAULT, Framing.JSON_LINES)
    assert last.endswith(b"\n")
    assert json.loads(last)["error"]["message"] == BLOCKED_RESPONSE


@pytest.mark.parametrize("tail", [b"", b"[{}"])
def test_array_is_completed(tail: bytes) -> None:
    entries = json.loads(tail + late_refusal(REFUSAL, DEFAULT, Framing.JSON_ARRAY, tail=tail))
    assert entries[-1]["error"]["message"] == BLOCKED_RESPONSE


@pytest.mark.parametrize("is_part", [False, True])
def test_frames_end_with_a_frame_of_their_kind(is_part: bool) -> None:
    last = late_refusal(REFUSAL, DEFAULT, Framing.AWS_EVENT_STREAM, is_part=is_part)
    assert last == DEFAULT.refuse_frame(REFUSAL, is_part=is_part)
