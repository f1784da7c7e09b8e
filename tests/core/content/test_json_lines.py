"""JSON lines: for any bytes and any cut, no byte is lost and the lines are the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.json_lines import JSONLine, LineDecoder
from extproc.core.errors import BodyTooLarge, ContentError, MalformedBody

AMPLE = 1 << 20
BOM = b"\xef\xbb\xbf"


def decode(*pieces: bytes, limit: int = AMPLE) -> list[JSONLine]:
    decoder = LineDecoder(limit)
    lines = [line for piece in pieces for line in decoder.feed(piece)]
    return lines + list(decoder.finish())


def feed_all(decoder: LineDecoder, pieces: list[bytes], lines: list[JSONLine]) -> None:
    """Move pieces from one list to lines in the other. An error leaves both lists in their current state."""
    while pieces:
        lines.extend(decoder.feed(pieces.pop(0)))


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def datas(lines: list[JSONLine]) -> list[tuple[bytes, str]]:
    """Return the lines with data."""
    return [(line.raw, line.data) for line in lines if line.data is not None]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"\n \n\r\n\t", []),
        (b'{"a":1}\n{"b":2}\n', [(b'{"a":1}\n', '{"a":1}'), (b'{"b":2}\n', '{"b":2}')]),
        (b"[1]\r\n[2]\r\n", [(b"[1]\r\n", "[1]"), (b"[2]\r\n", "[2]")]),
        (b"1\n2", [(b"1\n", "1"), (b"2", "2")]),
        (b"1\n\n \n2\n", [(b"1\n", "1"), (b"2\n", "2")]),
        (b" 1\t\n", [(b" 1\t\n", "1")]),
        (b'"a\rb"\n', [(b'"a\rb"\n', '"a\rb"')]),
        ('"a\u2028b\x85"\n'.encode(), [('"a\u2028b\x85"\n'.encode(), '"a\u2028b\x85"')]),
        (BOM + b"1\n" + BOM + b"2\n", [(BOM + b"1\n", "1"), (BOM + b"2\n", "\ufeff2")]),
        (BOM + b"\n1", [(b"1", "1")]),
        (b"\x1e1\n\x1e2\n", [(b"\x1e1\n", "1"), (b"\x1e2\n", "2")]),
        (b"\x1e\n \x1e\x1e 1", [(b" \x1e\x1e 1", "1")]),
    ],
)
def test_lines_are_cut(body: bytes, expected: list[tuple[bytes, str]]) -> None:
    for pieces in ([body], bytewise(body), [b"", body, b""]):
        lines = decode(*pieces)
        assert datas(lines) == expected
        assert b"".join(line.raw for line in lines) == body
        assert not any(line.is_foreign for line in lines)


def test_line_is_yielded_as_soon_as_it_is_complete() -> None:
    decoder = LineDecoder(AMPLE)
    assert list(decoder.feed(b"1")) == []
    assert decoder.pending == 1
    assert list(decoder.feed(b"\n")) == [JSONLine(b"1\n", "1", is_first=True)]
    assert list(decoder.feed(b"\n")) == [JSONLine(b"\n")]
    assert list(decoder.finish()) == []


def test_run_of_blank_lines_is_one_unit() -> None:
    assert [line.raw for line in decode(b"\n" * 1000 + b" \r\n" * 1000 + b"1\n")] == [
        b"\n" * 1000 + b" \r\n" * 1000,
        b"1\n",
    ]
    assert [len(line.raw) for line in decode(b"\n" * 20, limit=8)] == [8, 8, 4]


def test_long_blank_line_is_read_once() -> None:
    decoder = LineDecoder(AMPLE)
    for _ in range(100_000):
        assert list(decoder.feed(b" ")) == []
    assert [line.data for line in decoder.finish()] == [None]


@pytest.mark.parametrize("broken", [b'"\xff"\n', b'"\xed\xa0\x80"\n', b'"\xc3\n', b"\xff\n"])
def test_line_that_is_not_utf8_is_malformed(broken: bytes) -> None:
    for pieces in ([b"1\n" + broken + b"2\n"], bytewise(b"1\n" + broken + b"2\n")):
        decoder = LineDecoder(AMPLE)
        lines: list[JSONLine] = []
        with pytest.raises(MalformedBody):
            feed_all(decoder, pieces, lines)
        assert b"".join(line.raw for line in lines) + decoder.take_rest() + b"".join(pieces) == b"1\n" + broken + b"2\n"
        assert decoder.pending == 0


def test_last_line_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        decode(b"1\n\xff")


def test_size_of_a_line_is_limited() -> None:
    line = b'"123456"\n'
    for pieces in ([line + line], bytewise(line + line)):
        assert len(decode(*pieces, limit=len(line))) == 2
    for data in (line, line[:-1], b" " * 9):
        for pieces in ([data], bytewise(data)):
            with pytest.raises(BodyTooLarge):
                decode(*pieces, limit=len(data) - 1)


@pytest.mark.parametrize(
    ("raw", "data", "expected"),
    [
        (b'{"a":"b"}\n', '{"a":"c"}', b'{"a":"c"}\n'),
        (b' {"a":"b"}\t\r\n', "1", b" 1\t\r\n"),
        (b"1", "\u00e9", "\u00e9".encode()),
        (b"1\n", '{\r\n"a":\n1}', b'{ "a": 1}\n'),
        (BOM + b" 1\n", "2", BOM + b" 2\n"),
        (b" \n", "2", b" \n"),
    ],
)
def test_with_data_replaces_only_the_data(raw: bytes, data: str, expected: bytes) -> None:
    (line,) = decode(raw)
    assert line.with_data(data) == expected


PIECES = (b"\n", b"\r\n", b"\r", b" ", b"{", b"}", b'"', b"1", BOM, b"\xff", b"\xc3\xa9", b"\n\n", b'{"a":1}\n')


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.lists(st.integers(0, 60), max_size=8), st.integers(1, 70))
@settings(max_examples=200)
def test_lines_do_not_depend_on_the_cut(parts: list[bytes], places: list[int], limit: int) -> None:
    body = b"".join(parts)
    ends = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    outcomes: list[Any] = []
    for pieces in ([body], bytewise(body), [body[a:b] for a, b in pairwise(ends)]):
        decoder = LineDecoder(limit)
        lines: list[JSONLine] = []
        problem = None
        try:
            feed_all(decoder, pieces, lines)
            lines.extend(decoder.finish())
        except ContentError as error:
            problem = type(error)
        assert b"".join(line.raw for line in lines) + decoder.take_rest() + b"".join(pieces) == body
        assert all(0 < len(line.raw) <= limit for line in lines)
        outcomes.append((datas(lines), problem))
    if outcomes[0][1] is not BodyTooLarge:
        assert outcomes[0] == outcomes[1] == outcomes[2]
    else:
        assert all(problem is not None for _, problem in outcomes)


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5)), max_size=6), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=60)
def test_every_document_is_found(documents: list[dict[str, str]], end: str) -> None:
    body = "".join(json.dumps(document, ensure_ascii=False) + end for document in documents)
    lines = decode(body.encode())
    assert [json.loads(line.data or "") for line in lines] == documents
    assert "".join(line.with_data("0").decode() for line in lines) == f"0{end}" * len(documents)


def test_record_separator_stays_before_other_data() -> None:
    [line] = decode(b'\x1e{"a":1}\n')
    assert line.with_data('{"a":2}') == b'\x1e{"a":2}\n'
