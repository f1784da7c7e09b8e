"""Whole bodies of several documents."""

from __future__ import annotations

import sys

import pytest

from extproc.core.content.document import Document, PlainText
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import Framing, Unit
from extproc.core.errors import BodyTooLarge, MalformedBody

LINES = '{"a":"x"}\r\n\n ["y"]\n"z"'
EVENTS = 'event: x\ndata: {"a":"x"}\n\nerror: {"b":"y"}\n\n: ping\n\nfree text\n\ndata: [DONE]\n\n'


def parse(unit: Unit) -> Document | None:
    """Return the document of a unit, as a dialect does."""
    data = unit.data or ""
    if data == "[DONE]":
        return None
    try:
        return Document(data)
    except MalformedBody:
        if unit.is_foreign:
            return PlainText(data)
        raise


def framed(text: str = LINES, framing: Framing = Framing.JSON_LINES, values: int = 1000) -> FramedDocument:
    return FramedDocument(text, values, framing, parse)


def test_lines_are_rewritten_in_place() -> None:
    body = framed()
    assert body.root == [{"a": "x"}, None, ["y"], "z"]
    assert (body.text, body.is_cleaned) == (LINES, False)
    body.forget()
    assert body.root is None
    assert body.rewrite({(0, "a"): "1", (2, 0): "2", (3,): "3"}) == '{"a":"1"}\r\n\n ["2"]\n"3"'
    assert body.rewrite({(0, "a"): "1"}) == '{"a":"1"}\r\n\n ["y"]\n"z"'
    assert body.rewrite({}) == LINES


def test_events_and_foreign_lines_are_rewritten_in_place() -> None:
    body = framed(EVENTS, Framing.EVENT_STREAM)
    assert body.root == [{"a": "x"}, {"b": "y"}, None, "free text", None]
    body.forget()
    assert body.rewrite({(0, "a"): "1", (1, "b"): "2", (3,): "words"}) == (
        'event: x\ndata: {"a":"1"}\n\nerror: {"b":"2"}\n\n: ping\n\nwords\n\ndata: [DONE]\n\n'
    )


def test_comments_and_names_that_may_hold_text_are_emptied() -> None:
    body = framed(': I am Jane\nid: I am Jane\ndata: "x"\n\n', Framing.EVENT_STREAM)
    assert body.is_cleaned
    assert "Jane" not in body.text
    assert body.root == ["x"]


def test_forgotten_values_are_read_again() -> None:
    body = framed()
    body.forget()
    again = body.read_again()
    assert again.root == [{"a": "x"}, None, ["y"], "z"]
    assert body.root is None
    assert body.read_again("[1]\n[2]").root == [[1], [2]]


@pytest.mark.parametrize("path", [(4,), (1,), (0, "b")])
def test_edit_of_a_missing_place_is_an_error(path: tuple[str | int, ...]) -> None:
    with pytest.raises(KeyError):
        framed().rewrite({path: "x"})


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        ("{", Framing.JSON_LINES),
        ('{"a":1,"a":2}', Framing.JSON_LINES),
        ("data: {\n\n", Framing.EVENT_STREAM),
        ("data: other\n\n", Framing.EVENT_STREAM),
    ],
)
def test_body_that_is_not_in_its_framing_is_malformed(body: str, framing: Framing) -> None:
    with pytest.raises(MalformedBody):
        framed(body, framing)


def test_values_of_all_lines_are_counted_together() -> None:
    line = '["a","b","c"]\n'
    assert len(framed(line * 10, values=100).documents) == 10
    with pytest.raises(BodyTooLarge):
        framed(line * 20, values=100)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_count_although_their_numbers_hardly_do(end: str) -> None:
    with pytest.raises(BodyTooLarge):
        framed(f"1{end}" * 300)


def test_size_covers_all_that_is_kept() -> None:
    body = framed(LINES * 1)
    kept = sum(sys.getsizeof(document.text) for document in body.documents if document is not None)
    full = body.size
    body.forget()
    assert len(body.text) + kept < body.size < full


def test_large_lines_are_no_more_than_their_texts() -> None:
    body = framed('"' + "x" * 100_000 + '"')
    body.forget()
    assert 300_000 < body.size < 310_000
