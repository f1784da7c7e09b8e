"""The choice of a dialect for any spelling of a path, and the parts of all dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.document import MAX_DEPTH, Document
from extproc.core.dialects.base import (
    TEXT_KEYS,
    Dialect,
    Leaf,
    Prompt,
    all_strings,
    definitions,
    embedded,
    prompt,
    tool_call,
    tool_result,
    unknown_texts,
)
from extproc.core.dialects.paths import DEFAULT, NAMES
from extproc.core.errors import MalformedBody
from extproc.core.refusal import OVERLOADED, blocked


def test_dialects_are_found_by_their_names() -> None:
    assert DEFAULT is NAMES["openai-chat"]
    assert all(dialect.name == name for name, dialect in NAMES.items())


# -- what is not said otherwise is as in OpenAI's APIs --------------------------------------------------------------


class Plain(Dialect):
    name = "plain"

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        return []


def test_default_dialect_reads_no_answers() -> None:
    document = Document('{"choices":[{"delta":{"content":"a"},"message":{"content":"a"}}]}')
    assert (Plain().answers(document), Plain().deltas(document)) == ([], [])
    assert not Plain().is_submitted_whole(document)
    assert Plain().opt_in is None
    assert not Plain.reads_answers


@pytest.mark.parametrize(
    ("text", "streams"),
    [
        ('{"stream":true}', True),
        *((f'{{"stream":{odd}}}', False) for odd in ("false", '"true"', "1", "null", "[true]", "{}")),
        *((text, False) for text in ("{}", "[true]", '"stream"', "null")),
    ],
)
def test_field_stream_asks_for_a_stream(text: str, streams: bool) -> None:
    assert Plain().streams(Document(text), "/v1/chat/completions") is streams


def test_repeated_field_stream_is_refused() -> None:
    with pytest.raises(MalformedBody):
        Plain().streams(Document('{"stream":true,"stream":false}'), "/")


@pytest.mark.parametrize("data", ["[DONE]", " [DONE]", "[DONE]\n"])
def test_done_mark_ends_a_stream(data: str) -> None:
    assert Plain().is_final(data, None)


@pytest.mark.parametrize("data", ["", "{}", "[done]", '"[DONE]"', "[DONE][DONE]"])
def test_other_data_does_not_end_a_stream(data: str) -> None:
    assert not Plain().is_final(data, None)


def test_parsed_event_does_not_end_a_stream() -> None:
    assert not Plain().is_final("[1]", Document("[1]"))


def test_refusal_has_these_exact_bytes() -> None:
    body = (
        b'{"error": {"message": "said \\"no\\" \\u00e9", "type": "invalid_request_error", "param": null, '
        b'"code": "content_policy_violation"}}'
    )
    refusal = blocked('said "no" é')
    assert Plain().refuse(refusal) == body
    assert Plain().refuse_stream(refusal, 7) == b"data: " + body + b"\n\ndata: [DONE]\n\n"


def test_message_of_a_refusal_cannot_break_out_of_its_event() -> None:
    events = Plain().refuse_stream(blocked("a\r\n\r\ndata: b\n\n"), 0)
    assert len(events.split(b"\n\n")) == 3
    assert b"\r" not in events


def test_failure_has_these_exact_bytes() -> None:
    assert Plain().refuse(OVERLOADED) == (
        b'{"error": {"message": "The AI security guardrail is overloaded.", "type": "api_error", "param": null, '
        b'"code": "guardrail_overloaded"}}'
    )


# -- texts of unknown shapes -------------------------------------------------------------------------------------


def found(node: Any) -> dict[tuple[str | int, ...], str]:
    return {leaf.path: leaf.text for leaf in unknown_texts(node)}


@pytest.mark.parametrize("key", sorted(TEXT_KEYS))
def test_unknown_texts_are_found_by_their_keys(key: str) -> None:
    assert found({key: "a"}) == {(key,): "a"}
    assert found({"x": [{"y": {key: "a"}}]}) == {("x", 0, "y", key): "a"}
    assert found({key: ["a", {"text": "b"}, ["c", 5, None]]}) == {
        (key, 0): "a",
        (key, 1, "text"): "b",
        (key, 2, 0): "c",
    }
    assert found({key: {"x": "no", "content": "a"}}) == {(key, "content"): "a"}
    assert found({key: ""}) == found({key: 5}) == found({key: None}) == found({key: True}) == {}


@pytest.mark.parametrize("node", [None, 5, True, [], {}, {"id": "a", "model": "b", "role": "c"}])
def test_documents_without_texts_yield_none(node: Any) -> None:
    assert found(node) == {}


def test_document_may_be_one_text() -> None:
    assert found("text") == {(): "text"}
    assert found(["text", {"id": "a"}]) == {(0,): "text"}


def test_unknown_texts_are_found_under_given_keys() -> None:
    node = {"query": "a", "text": "b", "x": [{"query": ["c"]}]}
    leaves = list(unknown_texts(node, ("root",), frozenset({"query"})))
    assert [(leaf.path, leaf.text) for leaf in leaves] == [
        (("root", "query"), "a"),
        (("root", "x", 0, "query", 0), "c"),
    ]
    assert all(leaf.place == leaf.path for leaf in leaves)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '{"x":[{"a":1,"a":1}]}', '{"content":[[{"a":1,"a":1}]]}'])
def test_repeated_keys_of_unknown_texts_are_unreadable(text: str) -> None:
    with pytest.raises(MalformedBody):
        list(unknown_texts(Document(text).root))


def test_unknown_texts_of_the_deepest_document_are_found() -> None:
    depth = MAX_DEPTH - 1
    document = Document('{"a":' * depth + '{"text":"x"}' + "}" * depth)
    assert [leaf.text for leaf in unknown_texts(document.root)] == ["x"]


def test_every_string_is_found() -> None:
    node = {"a": "x", "b": ["y", {"c": "", "d": 5, "e": [None, "z", True]}]}
    assert [(leaf.path, leaf.text) for leaf in all_strings(node, ("tools",))] == [
        (("tools", "a"), "x"),
        (("tools", "b", 0), "y"),
        (("tools", "b", 1, "e", 1), "z"),
    ]
    assert list(all_strings("a", ("x",))) == [Leaf(("x",), "a", place=("x",))]
    assert list(all_strings(None, ())) == list(all_strings(5, ())) == list(all_strings("", ())) == []
    with pytest.raises(MalformedBody):
        list(all_strings(Document('[{"a":1,"a":1}]').root, ()))


def test_embedded_object_is_one_text() -> None:
    node = {"city": "Zürich", "n": [1.5, None]}
    (leaf,) = embedded(node, ("input",))
    assert (leaf.path, json.loads(leaf.text)) == (("input",), node)
    assert "Zürich" in leaf.text
    assert (leaf.is_json, leaf.is_embedded, leaf.fixed) == (True, True, False)
    assert [leaf.fixed for leaf in embedded(node, (), fixed=True)] == [True]


def test_embedded_object_includes_its_numbers_and_keys() -> None:
    assert [leaf.text for leaf in embedded({"card": 4111111111111111}, ())] == ['{"card": 4111111111111111}']
    with pytest.raises(MalformedBody):
        list(embedded(Document('{"a":"x","b":{"c":"secret","c":"y"}}').root, ()))


@pytest.mark.parametrize("node", [None, {}, [], 5, ""])
def test_other_values_are_not_embedded(node: Any) -> None:
    assert list(embedded(node, ())) == []


def test_prompt_has_its_role_and_text() -> None:
    leaf = Leaf(("x",), "text")
    assert prompt("user", leaf, name="n") == Prompt({"role": "user", "content": "text", "name": "n"}, leaf)
    assert tool_result("id-1", leaf) == Prompt({"role": "tool", "content": "text", "tool_call_id": "id-1"}, leaf)
    for odd in (None, "", 5, ["id"]):
        assert tool_result(odd, leaf) == Prompt({"role": "user", "content": "text"}, leaf)


def test_earlier_tool_call_is_a_message() -> None:
    call = {"id": "id-1", "type": "function", "function": {"name": "get", "arguments": "{}"}}
    assert tool_call("id-1", "get", "{}") == Prompt({"role": "assistant", "content": None, "tool_calls": [call]}, None)
    (odd,) = tool_call(None, ["get"], "{}").message["tool_calls"]
    assert odd == {"id": "call", "type": "function", "function": {"name": "tool", "arguments": "{}"}}


def test_every_string_of_a_definition_is_a_prompt() -> None:
    root = {"tools": [{"name": "a", "x": ["b"]}], "format": {"c": "d"}, "other": "e"}
    prompts = definitions(root, "format", "tools", "missing")
    assert [(item.message, item.leaf and item.leaf.path) for item in prompts] == [
        ({"role": "system", "content": "d"}, ("format", "c")),
        ({"role": "system", "content": "a"}, ("tools", 0, "name")),
        ({"role": "system", "content": "b"}, ("tools", 0, "x", 0)),
    ]
