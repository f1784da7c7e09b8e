"""The first bytes of a body, its media types, and the framing that they tell."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.beginning import Beginning, begins_like_json, is_blank
from extproc.core.content.framing import FIRST_BYTES, Framing, framing_of
from extproc.core.content.media_type import is_event_stream, is_json, is_json_lines, is_media, media_types


@given(body=st.binary(max_size=2000), size=st.integers(1, 700), is_packed=st.booleans())
def test_first_bytes_do_not_depend_on_the_pieces(body: bytes, size: int, is_packed: bool) -> None:
    sent = gzip.compress(body) if is_packed else body
    beginning = Beginning((("content-encoding", "gzip"),) if is_packed else (), 100)
    for start in range(0, len(sent), size):
        beginning.feed(sent[start : start + size])
    assert beginning.first == body[:FIRST_BYTES]
    assert beginning.is_enough is (len(body) >= FIRST_BYTES)


def test_body_that_cannot_be_decoded_has_no_first_bytes() -> None:
    for coding in ("x", "gzip, br", "gzip"):
        beginning = Beginning((("content-encoding", coding),), 100)
        beginning.feed(b'{"a":1}')
        assert beginning.first == b""
        assert beginning.is_enough


def test_long_header_of_a_compressed_body_is_bounded() -> None:
    packer = zlib.compressobj(wbits=31)
    plain = packer.compress(b"x") + packer.flush()
    head = plain[:3] + b"\x08" + plain[4:10]  # a file name follows, and does not end
    beginning = Beginning((("content-encoding", "gzip"),), 100)
    beginning.feed(head + b"n" * 70_000)
    assert beginning.is_enough
    assert beginning.first == b""


@pytest.mark.parametrize("first", [b"", b" \r\n\t", b"\xef\xbb\xbf ", b" {", b"[", b'"', b"\xef\xbb\xbf{"])
def test_json_begins_so(first: bytes) -> None:
    assert begins_like_json(first)
    assert is_blank(first) is not any(mark in first for mark in (b"{", b"[", b'"'))


@pytest.mark.parametrize("first", [b"a={", b"1", b"-1", b"true", b"null", b"<", b"data: {", b"\x00{", b"\x0b{"])
def test_json_with_a_text_does_not_begin_so(first: bytes) -> None:
    assert not begins_like_json(first)


def test_media_types_are_those_of_all_headers() -> None:
    headers = (("content-type", "Text/Plain; charset=x, application/JSON"), ("content-type", " ; , a/b"), ("x", "c/d"))
    assert media_types(headers) == ("text/plain", "application/json", "a/b")
    assert media_types(()) == ()


def test_media_types_are_known() -> None:
    assert all(map(is_json, ("application/json", "text/json", "application/problem+json")))
    assert not any(map(is_json, ("application/jsonl", "json", "application/json-seq", "text/plain", "")))
    assert all(map(is_json_lines, ("application/x-ndjson", "application/jsonl")))
    assert is_event_stream("text/event-stream")
    assert is_media("audio/mpeg")
    assert is_media("image/svg+xml")
    assert not is_media("video/mp4")


@pytest.mark.parametrize(
    ("content_type", "first", "framing"),
    [
        ("text/event-stream", b"", Framing.EVENT_STREAM),
        ("application/json", b"", Framing.WHOLE),
        ("", b"", None),
        ("", b" \n", None),
        ("", b"da", None),
        ("text/plain", b"data: x", Framing.EVENT_STREAM),
        ("text/plain", b": ping", Framing.EVENT_STREAM),
        ("text/plain", b"\xef\xbb\xbf\nevent: x", Framing.EVENT_STREAM),
        ("application/x-ndjson", b"id: 1", Framing.EVENT_STREAM),
        ("application/x-ndjson", b"{", Framing.JSON_LINES),
        ("text/plain", b"{", Framing.WHOLE),
        ("image/png", b"\x89", Framing.UNKNOWN),
    ],
)
def test_framing_is_told_by_type_and_first_bytes(content_type: str, first: bytes, framing: Framing | None) -> None:
    assert framing_of(content_type, first) is framing
