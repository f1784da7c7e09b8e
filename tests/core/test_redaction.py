"""Redactions: they are applied where the texts came from, and refused in case of doubt."""

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


def test_only_changed_texts_are_edited() -> None:
    assert edits([(LEAF, "my name is [NAME_1]"), (OTHER, "hello")]) == {LEAF.path: "my name is [NAME_1]"}
    assert edits([(LEAF, "a"), (OTHER, "b")]) == {LEAF.path: "a", OTHER.path: "b"}


def test_empty_text_is_a_redaction() -> None:
    assert edits([(LEAF, "")]) == {LEAF.path: ""}


def test_message_without_a_text_needs_no_edit() -> None:
    assert edits([(None, None), (LEAF, "x"), (None, "something")]) == {LEAF.path: "x"}


def test_values_that_show_the_old_text_are_removed() -> None:
    leaf = Leaf(("m", "content"), "Tom", nulled=(("logprobs",),), emptied=(("m", "signature"), ("m", "seal")))
    assert edits([(leaf, "[NAME_1]")]) == {
        ("m", "content"): "[NAME_1]",
        ("logprobs",): None,
        ("m", "signature"): "",
        ("m", "seal"): "",
    }
    assert edits([(leaf, "Tom"), (OTHER, "x")]) == {OTHER.path: "x"}


def test_several_edits_may_remove_the_same_value() -> None:
    first = Leaf(("choices", 0, "message", "content"), "Tom", nulled=(("choices", 0, "logprobs"),))
    second = Leaf(("choices", 0, "message", "refusal"), "Tom", nulled=(("choices", 0, "logprobs"),))
    assert edits([(first, "a"), (second, "b")]) == {
        first.path: "a",
        second.path: "b",
        ("choices", 0, "logprobs"): None,
    }


@pytest.mark.parametrize("redacted", [[(LEAF, None)], [(LEAF, "x"), (OTHER, None)], [(OTHER, None), (LEAF, "x")]])
def test_missing_text_is_refused(redacted: list[tuple[Leaf | None, str | None]]) -> None:
    with pytest.raises(RedactionError, match="missing"):
        edits(redacted)


@pytest.mark.parametrize("redacted", [[], [(None, None)], [(LEAF, LEAF.text)], [(LEAF, LEAF.text), (None, "x")]])
def test_redaction_that_changes_nothing_is_refused(redacted: list[tuple[Leaf | None, str | None]]) -> None:
    with pytest.raises(RedactionError, match="nothing"):
        edits(redacted)


def test_redaction_of_a_fixed_text_is_refused() -> None:
    assert edits([(SPOKEN, "Tom"), (LEAF, "x")]) == {LEAF.path: "x"}
    with pytest.raises(RedactionError, match="cannot be changed"):
        edits([(LEAF, "x"), (SPOKEN, "[NAME_1]")])


@pytest.mark.parametrize("text", ['{"name": "[NAME_1]"}', "{}", "null"])
def test_redacted_arguments_may_be_other_json(text: str) -> None:
    assert edits([(ARGUMENTS, text)]) == {ARGUMENTS.path: text}


@pytest.mark.parametrize("text", ['{"name": [NAME_1]}', "", "[NAME_1]", '{"name": "[NAME_1]'])
def test_redacted_arguments_that_are_not_json_are_refused(text: str) -> None:
    with pytest.raises(RedactionError, match="no longer JSON"):
        edits([(ARGUMENTS, text)])


def test_redacted_arguments_that_never_were_json_are_accepted() -> None:
    leaf = Leaf(("arguments",), "name=Tom", is_json=True)
    assert edits([(leaf, "name=[NAME_1]")]) == {leaf.path: "name=[NAME_1]"}


@pytest.mark.parametrize("text", ['{"name": "[NAME_1]"}', ' \n{"name":1.50}', "{}"])
def test_redacted_object_is_inserted_unchanged(text: str) -> None:
    changes = edits([(OBJECT, text)])
    assert changes == {OBJECT.path: text}
    assert Document('{"input": {"name": "Tom"}, "n": 1}').rewrite(changes) == f'{{"input": {text}, "n": 1}}'


@pytest.mark.parametrize("text", ["", "null", '"{}"', '["a"]', '{"name": [NAME_1]}', '{"name": "a"} {}', '{"name'])
def test_redacted_object_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(RedactionError, match="object"):
        edits([(OBJECT, text)])
    with pytest.raises(RedactionError, match="object"):
        rewrite(OBJECT, text)


def test_rewrite_replaces_one_text() -> None:
    assert rewrite(LEAF, "x") == {LEAF.path: "x"}
    assert rewrite(LEAF, LEAF.text) == {LEAF.path: LEAF.text}
    assert rewrite(ARGUMENTS, "a piece of streamed arguments") == {ARGUMENTS.path: "a piece of streamed arguments"}
    with pytest.raises(RedactionError, match="cannot be changed"):
        rewrite(SPOKEN, "x")


def test_text_that_is_not_an_argument_may_be_json() -> None:
    leaf = Leaf(("content",), '{"name": "Tom"}')
    assert edits([(leaf, "no JSON")]) == {leaf.path: "no JSON"}


def test_errors_contain_no_text() -> None:
    assert issubclass(RedactionError, ExtprocError)
    for redacted in ([(ARGUMENTS, "marker")], [(SPOKEN, "marker")], [(Leaf(("marker",), "marker"), None)]):
        with pytest.raises(RedactionError) as caught:
            edits(redacted)
        assert "marker" not in str(caught.value)
        assert "Tom" not in str(caught.value)
