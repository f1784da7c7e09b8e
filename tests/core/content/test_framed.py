"""Bodies of several documents, and of one plain text."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from extproc.core.content.plain_text import PlainText
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.document import Document
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import Framing
from extproc.core.content.json_lines import LineDecoder
from extproc.core.errors import BodyTooLarge, MalformedBody

LINES = b'{"a":"x"}\r\n\n ["y"]\n"z"'


def test_documents_are_rewritten_in_place() -> None:
    body = FramedDocument(LINES, Framing.JSON_LINES, Document)
    assert body.root == [{"a": "x"}, None, ["y"], "z"]
    assert body.text == LINES.decode()
    body.forget()
    assert body.root is None
    assert body.rewrite({(0, "a"): "1", (2, 0): "2", (3,): "3"}) == '{"a":"1"}\r\n\n ["2"]\n"3"'
    assert body.rewrite({(0, "a"): "1"}) == '{"a":"1"}\r\n\n ["y"]\n"z"'


@pytest.mark.parametrize("path", [(4,), (1,), (0, "b")])
def test_edit_of_a_missing_place_is_an_error(path: tuple[str | int, ...]) -> None:
    with pytest.raises(KeyError):
        FramedDocument(LINES, Framing.JSON_LINES, Document).rewrite({path: "x"})


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b"{", Framing.JSON_LINES),
        (b"\xff", Framing.JSON_LINES),
        (b"data: {\n\n", Framing.EVENT_STREAM),
        (b"other\n\n", Framing.EVENT_STREAM),
    ],
)
def test_body_that_is_not_in_its_framing_is_malformed(body: bytes, framing: Framing) -> None:
    with pytest.raises(MalformedBody):
        FramedDocument(body, framing, Document)


@given(body=st.text("ab\r\n{}", max_size=40).map(str.encode), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_lines_do_not_depend_on_the_pieces_and_lose_no_byte(body: bytes, cuts: list[int]) -> None:
    decoder, bounds = LineDecoder(100), [0, *sorted(cuts), len(body)]
    lines = [line for start, end in pairwise(bounds) for line in decoder.feed(body[start:end])]
    assert decoder.pending == len(body) - sum(len(line.raw) for line in lines)
    lines += decoder.finish()
    assert [line.raw for line in lines] == [part for part in re.split(rb"(?<=\n)", body) if part]
    assert b"".join(line.raw for line in lines) == body
    assert all(line.with_data(line.data) == line.raw for line in lines if line.data)


def test_lines_are_bounded() -> None:
    with pytest.raises(BodyTooLarge):
        list(LineDecoder(3).feed(b"abcd"))
    with pytest.raises(BodyTooLarge):
        list(LineDecoder(3).feed(b"abcd\n"))
    decoder = LineDecoder(9)
    assert list(decoder.feed(b"abc")) == []
    assert decoder.take_rest() == b"abc"
    assert list(decoder.finish()) == []


def test_plain_text_has_one_place() -> None:
    text = PlainText("a { b")
    assert (text.text, text.root) == ("a { b", "a { b")
    text.forget()
    assert text.rewrite({(): 'c "d"'}) == 'c "d"'
    assert text.rewrite({(): "\udc00"}) == "?"
