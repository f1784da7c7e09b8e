"""Redactions: put back where the texts came from, and refused on any doubt."""

from __future__ import annotations

import pytest

from extproc.core.content.document import Document
from extproc.core.dialects.base import Leaf
from extproc.core.errors import ExtprocError
from extproc.core.redaction import RedactionError, edits, rewrite

LEAF = Leaf(("messages", 0, "content"), "my name is Tom")
OTHER = Leaf(("messages", 1, "content"), "hello")
ARGUMENTS = Leaf(("arguments",), '{"name": "Tom"}', is_json=True)
OBJECT = Leaf(("input",), '{"name": "Tom"}', is_json=True, is_embedded=True)
SPOKEN = Leaf(("audio", "transcript"), "Tom", fixed=True)


def test_changed_texts_only() -> None:
    assert edits([(LEAF, "my name is [NAME_1]"), (OTHER, "hello")]) == {LEAF.path: "my name is [NAME_1]"}
    assert edits([(LEAF, "a"), (OTHER, "b")]) == {LEAF.path: "a", OTHER.path: "b"}


def test_an_empty_text_is_a_redaction() -> None:
    assert edits([(LEAF, "")]) == {LEAF.path: ""}


def test_messages_without_text_have_nothing_to_put_back() -> None:
    assert edits([(None, None), (LEAF, "x"), (None, "something")]) == {LEAF.path: "x"}


def test_what_would_still_show_the_old_text_goes() -> None:
    leaf = Leaf(("m", "content"), "Tom", nulled=("logprobs",), emptied=(("m", "signature"), ("m", "seal")))
    assert edits([(leaf, "[NAME_1]")]) == {
        ("m", "content"): "[NAME_1]",
        ("logprobs",): None,
        ("m", "signature"): "",
        ("m", "seal"): "",
    }
    assert edits([(leaf, "Tom"), (OTHER, "x")]) == {OTHER.path: "x"}


def test_what_is_taken_away_by_several() -> None:
    first = Leaf(("choices", 0, "message", "content"), "Tom", nulled=("choices", 0, "logprobs"))
    second = Leaf(("choices", 0, "message", "refusal"), "Tom", nulled=("choices", 0, "logprobs"))
    assert edits([(first, "a"), (second, "b")]) == {
        first.path: "a",
        second.path: "b",
        ("choices", 0, "logprobs"): None,
    }


@pytest.mark.parametrize("redacted", [[(LEAF, None)], [(LEAF, "x"), (OTHER, None)], [(OTHER, None), (LEAF, "x")]])
def test_a_missing_text(redacted: list[tuple[Leaf | None, str | None]]) -> None:
    with pytest.raises(RedactionError, match="missing"):
        edits(redacted)


@pytest.mark.parametrize("redacted", [[], [(None, None)], [(LEAF, LEAF.text)], [(LEAF, LEAF.text), (None, "x")]])
def test_nothing_changes(redacted: list[tuple[Leaf | None, str | None]]) -> None:
    with pytest.raises(RedactionError, match="nothing"):
        edits(redacted)


def test_a_text_that_cannot_be_changed() -> None:
    assert edits([(SPOKEN, "Tom"), (LEAF, "x")]) == {LEAF.path: "x"}
    with pytest.raises(RedactionError, match="cannot be changed"):
        edits([(LEAF, "x"), (SPOKEN, "[NAME_1]")])


@pytest.mark.parametrize("text", ['{"name": "[NAME_1]"}', "{}", "null"])
def test_arguments_that_stay_json(text: str) -> None:
    assert edits([(ARGUMENTS, text)]) == {ARGUMENTS.path: text}


@pytest.mark.parametrize("text", ['{"name": [NAME_1]}', "", "[NAME_1]", '{"name": "[NAME_1]'])
def test_arguments_that_are_no_longer_json(text: str) -> None:
    with pytest.raises(RedactionError, match="no longer JSON"):
        edits([(ARGUMENTS, text)])


def test_arguments_that_never_were_json() -> None:
    leaf = Leaf(("arguments",), "name=Tom", is_json=True)
    assert edits([(leaf, "name=[NAME_1]")]) == {leaf.path: "name=[NAME_1]"}


@pytest.mark.parametrize("text", ['{"name": "[NAME_1]"}', ' \n{"name":1.50}', "{}"])
def test_an_object_is_put_back_as_it_is_spelt(text: str) -> None:
    changes = edits([(OBJECT, text)])
    assert changes == {OBJECT.path: text}
    assert Document('{"input": {"name": "Tom"}, "n": 1}').rewrite(changes) == f'{{"input": {text}, "n": 1}}'


@pytest.mark.parametrize("text", ["", "null", '"{}"', '["a"]', '{"name": [NAME_1]}', '{"name": "a"} {}', '{"name'])
def test_an_object_that_would_be_none(text: str) -> None:
    with pytest.raises(RedactionError, match="object"):
        edits([(OBJECT, text)])
    with pytest.raises(RedactionError, match="object"):
        rewrite(OBJECT, text)


def test_a_rewrite_of_one_text() -> None:
    assert rewrite(LEAF, "x") == {LEAF.path: "x"}
    assert rewrite(LEAF, LEAF.text) == {LEAF.path: LEAF.text}
    assert rewrite(ARGUMENTS, "a piece of streamed arguments") == {ARGUMENTS.path: "a piece of streamed arguments"}
    with pytest.raises(RedactionError, match="cannot be changed"):
        rewrite(SPOKEN, "x")


def test_texts_that_are_not_arguments_may_be_json() -> None:
    leaf = Leaf(("content",), '{"name": "Tom"}')
    assert edits([(leaf, "no JSON")]) == {leaf.path: "no JSON"}


def test_errors_hold_no_text() -> None:
    assert issubclass(RedactionError, ExtprocError)
    for redacted in ([(ARGUMENTS, "marker")], [(SPOKEN, "marker")], [(Leaf(("marker",), "marker"), None)]):
        with pytest.raises(RedactionError) as caught:
            edits(redacted)
        assert "marker" not in str(caught.value)
        assert "Tom" not in str(caught.value)
