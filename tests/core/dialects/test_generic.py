"""The generic dialect: every string is text unless its place is known to be inert."""

from __future__ import annotations

import json
from typing import Any

import pytest
from extproc.core.content.plain_text import PlainText
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.document import Document
from extproc.core.dialects.generic import Generic, parsed
from extproc.core.dialects.paths import DEFAULT, GENERIC
from extproc.core.errors import MalformedBody
from tests.fakes.reading import strings

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(min_size=1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(root=_VALUES)
def test_every_string_with_white_space_is_a_text(root: Any) -> None:
    document = Document(json.dumps(root))
    wanted = [text for _, text in strings(document.root) if " " in text]
    assert [leaf.text for leaf in GENERIC.answers(document) if " " in leaf.text] == wanted
    assert GENERIC.deltas(document) == GENERIC.answers(document)
    prompts = GENERIC.prompts(document, tools=False)
    assert [prompt.message["content"] for prompt in prompts] == [leaf.text for leaf in GENERIC.answers(document)]


@pytest.mark.parametrize(
    "name", ["id", "call_id", "type", "object", "model", "role", "status", "created_at", "url", "mime_type"]
)
def test_inert_places_have_names_and_values(name: str) -> None:
    def texts(value: Any) -> list[str]:
        return [leaf.text for leaf in Generic().answers(Document(json.dumps({name: value})))]

    assert texts("gpt-4o:1/x") == texts("@a") == texts(["a", "b"]) == texts("") == []
    assert texts({"other": "abc"}) == ["abc"]
    for text in ("two words", "a@b.c", "\u4f60\u597d", "x" * 257, "{}"):
        assert texts(text) == [text]


def test_repeated_key_is_unreadable() -> None:
    with pytest.raises(MalformedBody):
        GENERIC.answers(Document('[{"a":"x","a":"y"}]'))


def test_only_the_generic_dialect_takes_what_is_no_json() -> None:
    assert isinstance(parsed(GENERIC, "{"), PlainText)
    assert parsed(DEFAULT, "{}").root == {}
    with pytest.raises(MalformedBody):
        parsed(DEFAULT, "{")
