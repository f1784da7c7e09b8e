"""Framings: recognised by type, and where that says nothing or something else, by the first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.framing import FIRST_BYTES, Framing, decoder_of, framing_of
from extproc.core.content.json_array import ArrayDecoder
from extproc.core.content.json_lines import LineDecoder
from extproc.core.content.payload_parts import PartDecoder
from extproc.core.content.sse import EventDecoder

WHOLE, EVENTS, LINES, UNKNOWN = Framing.WHOLE, Framing.EVENT_STREAM, Framing.JSON_LINES, Framing.UNKNOWN
BOM = b"\xef\xbb\xbf"
OTHER = ["", "text/plain", "image/png", "audio/mpeg", "application/octet-stream", "text/html; charset=utf-8", "junk"]
LINE_TYPES = ["application/x-ndjson", "application/jsonl", "application/json-lines", "application/jsonlines"]


@pytest.mark.parametrize(
    ("content_type", "framing"),
    [
        ("text/event-stream", EVENTS),
        ("Text/Event-Stream ; charset=utf-8", EVENTS),
        ("application/json", WHOLE),
        ("APPLICATION/JSON;charset=utf-8", WHOLE),
        ("text/json", WHOLE),
        ("application/problem+json", WHOLE),
        ("application/vnd.api+json; v=1", WHOLE),
        ("application/vnd.amazon.eventstream", Framing.AWS_EVENT_STREAM),
    ],
)
@pytest.mark.parametrize("first", [b"", b"{", b"data: x", b"\x89PNG", b" "])
def test_type_alone_decides(content_type: str, framing: Framing, first: bytes) -> None:
    assert framing_of(content_type, first) is framing
    assert framing_of(content_type, first, is_all=True) is framing


@pytest.mark.parametrize("content_type", OTHER)
@pytest.mark.parametrize(
    ("first", "framing"),
    [
        (b"{", WHOLE),
        (b"[", WHOLE),
        (b'"', WHOLE),
        (b" \r\n\t{", WHOLE),
        (BOM + b"{", WHOLE),
        (BOM + b" [", WHOLE),
        (b"data: x", EVENTS),
        (b"data:", EVENTS),
        (b"data\n", EVENTS),
        (b"event: x", EVENTS),
        (b"id:1", EVENTS),
        (b"retry: 1", EVENTS),
        (b": ping", EVENTS),
        (b"\n\ndata:", EVENTS),
        (BOM + b"data:", EVENTS),
        (b"", None),
        (b" ", None),
        (BOM[:1], None),
        (BOM[:2], None),
        (BOM, None),
        (b"d", None),
        (b"data", None),
        (b"ev", None),
        (b"retry", None),
        (b"datax", UNKNOWN),
        (b"database: x", UNKNOWN),
        (b"Data: x", UNKNOWN),
        (b"events", UNKNOWN),
        (b"hello", UNKNOWN),
        (b"<html>", UNKNOWN),
        (b"\x89PNG", UNKNOWN),
        (b"ID3", UNKNOWN),
        (b"\x00\x00\x00", UNKNOWN),
        (BOM[:1] + b"x", UNKNOWN),
        (b" " * FIRST_BYTES, WHOLE),
        (BOM + b"\n" * FIRST_BYTES, WHOLE),
        (b" " * (FIRST_BYTES - 2) + b"data: x", UNKNOWN),
    ],
)
def test_first_bytes_decide_for_other_types(content_type: str, first: bytes, framing: Framing | None) -> None:
    assert framing_of(content_type, first) is framing
    if framing is not None:
        assert framing_of(content_type, first, is_all=True) is framing


@pytest.mark.parametrize(
    "content_type", [*LINE_TYPES, "application/stream+json", "Application/X-NDJSON; charset=utf-8"]
)
@pytest.mark.parametrize(
    ("first", "framing"),
    [
        (b"{", LINES),
        (b"1", LINES),
        (b"\n {", LINES),
        (b"hello", LINES),
        (b"data: {", EVENTS),
        (b": ping", EVENTS),
        (b"", None),
        (b"dat", None),
        (b" " * FIRST_BYTES, LINES),
    ],
)
def test_json_lines_may_be_an_event_stream(content_type: str, first: bytes, framing: Framing | None) -> None:
    assert framing_of(content_type, first) is framing


@pytest.mark.parametrize(
    ("content_type", "body", "framing"),
    [
        ("image/png", b"", WHOLE),
        ("image/png", b" \n", WHOLE),
        ("", BOM, WHOLE),
        ("text/plain", b"dat", UNKNOWN),
        ("text/plain", BOM[:2], UNKNOWN),
        ("application/jsonl", b"", LINES),
        ("application/jsonl", b"dat", LINES),
    ],
)
def test_whole_body_is_always_decided(content_type: str, body: bytes, framing: Framing) -> None:
    assert framing_of(content_type, body, is_all=True) is framing


@given(
    st.sampled_from([*OTHER, *LINE_TYPES, "text/event-stream", "application/json"]),
    st.lists(st.sampled_from([BOM, b" ", b"\n", b"data", b":", b"id", b"e", b"{", b"\xef", b"x"]), max_size=80),
)
@settings(max_examples=200)
def test_decision_is_bounded_and_does_not_change_with_more_bytes(content_type: str, parts: list[bytes]) -> None:
    body = b"".join(parts)
    decided = [framing for size in range(len(body) + 1) if (framing := framing_of(content_type, body[:size]))]
    assert len(set(decided)) <= 1
    assert framing_of(content_type, body.ljust(FIRST_BYTES, b"\0")) is not None
    assert framing_of(content_type, body, is_all=True) is not None


def test_decoder_belongs_to_its_framing() -> None:
    assert isinstance(decoder_of(Framing.JSON_LINES, 1), LineDecoder)
    assert isinstance(decoder_of(Framing.EVENT_STREAM, 1), EventDecoder)
    assert isinstance(decoder_of(Framing.AWS_EVENT_STREAM, 1), PartDecoder)
    assert isinstance(decoder_of(Framing.JSON_ARRAY, 1), ArrayDecoder)
