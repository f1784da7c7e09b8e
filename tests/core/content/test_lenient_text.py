"""Texts that are no JSON, but may be for a more lenient reader."""

from __future__ import annotations

import pytest

from extproc.core.content.document import Document, PlainText
from extproc.core.content.lenient_text import LenientText, with_escapes_decoded
from extproc.core.errors import MalformedBody

RAW = r'{"a":"x","a":"\u0042ob, \"hi\"",}'
SAID = '{"a":"x","a":"Bob, "hi"",}'


def test_escapes_are_decoded_and_a_redaction_is_escaped_again() -> None:
    text = LenientText(RAW)
    assert (text.text, text.root) == (RAW, SAID)
    text.forget()
    assert text.root is None
    text = text.read_again()
    assert text.root == SAID
    assert text.rewrite({}) == RAW
    assert text.rewrite({(): SAID}) == RAW
    assert text.rewrite({(): SAID.replace("Bob", 'the "N"')}) == r'{"a":"x","a":"the \"N\", \"hi\"",}'
    assert text.rewrite({(): SAID.replace("Bob", "\ud800")}) == r'{"a":"x","a":"?, \"hi\"",}'


@pytest.mark.parametrize("new", ["", None, "Bob", SAID.replace('"a"', '"b"')])
def test_redaction_of_more_than_strings_is_an_error(new: str | None) -> None:
    with pytest.raises(MalformedBody):
        LenientText(RAW).rewrite({(): new})


def test_edit_of_another_place_is_an_error() -> None:
    with pytest.raises(KeyError):
        LenientText(RAW).rewrite({("a",): "x"})


def test_only_plain_texts_with_escapes_are_decoded() -> None:
    assert type(with_escapes_decoded(PlainText("a b"))) is PlainText
    assert with_escapes_decoded(PlainText(RAW)).root == SAID
    assert with_escapes_decoded(Document(r'"\\n"')).root == r"\n"
