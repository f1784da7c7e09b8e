"""Redactions: they are applied where the texts came from, and refused in case of doubt."""

from __future__ import annotations

import pytest

from extproc.core.content.document import Document
from extproc.core.content.shapes import EncodedText
from extproc.core.dialects.joined import Joined
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.errors import ExtprocError
from extproc.core.redaction import RedactionError, edits, is_json, redacted_prompts, rewrite

LEAF = Leaf(("messages", 0, "content"), "my name is Tom")
OTHER = Leaf(("messages", 1, "content"), "hello")
SPELT = r'{"name": "\u0054om", "ids": [1, "x"]}'
ARGUMENTS = Leaf(("arguments",), '{"name": "Tom", "ids": [1, "x"]}', is_json=True, raw=SPELT)
OBJECT = Leaf(("input",), '{"name": "Tom", "ids": [1, "x"]}', is_json=True, is_embedded=True, raw=SPELT)
JOINED = Leaf((), "my name is Tom\nhello\nthere", is_joined=True, parts=(LEAF, Leaf(("z",), "hello\nthere")))
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


def test_redacted_arguments_keep_their_spelling() -> None:
    assert edits([(ARGUMENTS, ARGUMENTS.text.replace("Tom", "[N]"))]) == {
        ARGUMENTS.path: '{"name": "[N]", "ids": [1, "x"]}',
    }
    assert edits([(ARGUMENTS, ARGUMENTS.text.replace('"x"', '"[X]"'))]) == {
        ARGUMENTS.path: SPELT.replace('"x"', '"[X]"'),
    }


def test_redacted_object_is_edited_string_by_string() -> None:
    changes = edits([(OBJECT, OBJECT.text.replace("Tom", "[N]").replace('"x"', '"[X]"'))])
    assert changes == {("input", "name"): "[N]", ("input", "ids", 1): "[X]"}
    assert Document(f'{{"input": {SPELT}, "n": 1.50}}').rewrite(changes) == (
        '{"input": {"name": "[N]", "ids": [1, "[X]"]}, "n": 1.50}'
    )


@pytest.mark.parametrize("leaf", [ARGUMENTS, OBJECT])
@pytest.mark.parametrize(
    "text", ["", "[REDACTED]", '{"[N]": "Tom", "ids": [1, "x"]}', '{"name": "Tom", "ids": ["[1]", "x"]}']
)
def test_redacted_keys_or_structure_of_arguments_are_refused(leaf: Leaf, text: str) -> None:
    with pytest.raises(RedactionError, match="structure"):
        edits([(leaf, text)])


def test_redacted_arguments_that_never_were_json_are_accepted() -> None:
    leaf = Leaf(("arguments",), "name=Tom", is_json=True)
    assert edits([(leaf, "name=[NAME_1]")]) == {leaf.path: "name=[NAME_1]"}


def test_joined_texts_are_put_back_line_by_line() -> None:
    assert edits([(JOINED, "my name is [N]\nhello\nthere")]) == {LEAF.path: "my name is [N]"}
    assert edits([(JOINED, "my name is Tom\nhello\n[X]")]) == {("z",): "hello\n[X]"}
    with pytest.raises(RedactionError, match="lines"):
        edits([(JOINED, "[REDACTED]")])


def test_joined_texts_of_unknown_places_cannot_be_put_back() -> None:
    with pytest.raises(RedactionError, match="unknown"):
        edits([(Leaf((), "a\nb", is_joined=True), "a\nx")])


def test_text_in_base64_is_encoded_again() -> None:
    leaf = Leaf(("data",), "hi Tom", encoded=EncodedText("hi Tom", "data:text/plain;base64,"))
    assert edits([(leaf, "hi [N]")]) == {("data",): "data:text/plain;base64,aGkgW05d"}


def test_rewrite_replaces_one_text() -> None:
    assert rewrite(LEAF, "x") == {LEAF.path: "x"}
    assert rewrite(LEAF, LEAF.text) == {LEAF.path: LEAF.text}
    piece = Leaf(("arguments",), '{"na', is_json=True)
    assert rewrite(piece, "a piece of streamed arguments") == {piece.path: "a piece of streamed arguments"}
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


@pytest.mark.parametrize("text", ["{}", "1", ' "a" ', '{"a": 1, "a": 2}'])
def test_json_is_recognised(text: str) -> None:
    assert is_json(text)


@pytest.mark.parametrize("text", ["", "{", "{} {}", "[" * 100_000])
def test_other_texts_are_no_json(text: str) -> None:
    assert not is_json(text)


def test_number_of_changed_texts_is_bounded() -> None:
    joined = Joined(locates=True)
    joined.add_strings(["a"] * 32_769, joined.outermost(("zq",)), range(32_769))
    assert len(edits([(joined.leaf(), "\n".join(["x"] * 32_768 + ["a"]))])) == 32_768
    with pytest.raises(RedactionError, match="too many"):
        edits([(joined.leaf(), "\n".join(["x"] * 32_769))])


def test_parts_are_a_sequence() -> None:
    joined = Joined(locates=True)
    joined.add_strings(["a", "", "b"], joined.outermost(("zq",)), range(3))
    assert [leaf.path for leaf in joined.parts[:]] == [("zq", 0), ("zq", 2)]
    with pytest.raises(IndexError):
        joined.parts[2]


def test_redacted_messages_are_known_without_reading_again() -> None:
    plain = Prompt({"role": "user", "content": "Tom"}, LEAF)
    found = redacted_prompts([plain, plain], ["[N]", ""])
    assert found is not None
    assert [prompt.message for prompt in found] == [{"role": "user", "content": "[N]"}]
    assert redacted_prompts([Prompt({"role": "user", "content": "a", "name": "Tom"}, LEAF)], ["a"]) is None
    assert redacted_prompts([Prompt({"role": "user", "content": None}, None)], [None]) is None


def test_number_of_changed_values_is_bounded_over_all_texts() -> None:
    leaves = [Leaf(("zq", number), "a") for number in range(32_769)]
    assert len(edits([*((leaf, "x") for leaf in leaves[1:]), (leaves[0], "a")])) == 32_768
    with pytest.raises(RedactionError, match="too many"):
        edits([(leaf, "x") for leaf in leaves])
