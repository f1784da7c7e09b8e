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
from extproc.core.dialects.paths import DEFAULT, NAMES, _recall, normalise, pick
from extproc.core.errors import MalformedBody
from extproc.core.refusal import OVERLOADED, blocked

# -- paths -------------------------------------------------------------------------------------------------------

SPELLINGS = [
    "/v1/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions///",
    "//v1//chat/completions",
    "///v1/chat//completions",
    "v1/chat/completions",
    "/V1/Chat/COMPLETIONS",
    "/v1/chat/completions?a=b",
    "/v1/chat/completions?",
    "/v1/chat/completions?x=/../..",
    "/v1/chat/completions/?a=b",
    "/v1/chat/completions#x",
    "/v1/chat/completions#x?y",
    "/v1/chat/completions?x#/y",
    "/v1/x/../chat/completions",
    "/v1/x/y/../../chat/completions",
    "/v1/./chat/./completions/.",
    "/../../v1/chat/completions",
    "/v1/x/%2e%2e/chat/completions",
    "/v1/x/%2E./chat/completions",
    "/v1/%2e/chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1/chat%2fcompletions",
    "%2Fv1%2Fchat%2Fcompletions",
    "/v1/c%68at/completions",
    "/v1/chat/completions%2F",
    "/v1\\chat\\completions",
    "/v1/chat\\/completions\\",
    "/v1/chat%5Ccompletions",
    "/v1/x\\..\\chat/completions",
    "/v1/chat/completions;a=b",
    "/v1/chat/completions;",
    "/v1;x/chat;y=z/completions;a=b;c",
    "/v1/chat/completions%3Ba=b",
    "/v1/x/..;/chat/completions",
    "/v1/;/chat/completions",
    "/v1/chat/completions%20",
    "/v1/chat/completions ",
    "/v1/chat/completions%09",
    "/v1/chat/completions%0d%0A",
    "/v1/chat/completions%00",
    "/v1/chat/completions%00/",
    "/v1/chat%20/completions",
    "/v1/chat/completions%20;a=b",
    "/v1/x/..%20/chat/completions",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_spellings_of_one_path_have_the_same_dialect(path: str) -> None:
    assert normalise(path) == "/v1/chat/completions"
    found = pick("POST", path, {})
    assert found is not None
    assert found.name == "openai-chat"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        ("/", "/"),
        ("*", "/*"),
        ("?x", "/"),
        ("#/v1/chat/completions", "/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/../..//b", "/b"),
        ("/a/b/..", "/a"),
        ("/...", "/..."),
        ("/a/..b/c..", "/a/..b/c.."),
        ("/%252F", "/%2f"),
        ("/%252e%252e/a", "/%2e%2e/a"),
        ("/a%3Fb", "/a?b"),
        ("/a%23b", "/a#b"),
        ("/a%", "/a%"),
        ("/a%zz", "/a%zz"),
        ("/%C3%89", "/\u00e9"),
        ("/%ff", "/\ufffd"),
        ("/a+b", "/a+b"),
        ("/a%20b", "/a b"),
        ("/;a", "/"),
        ("/v1beta/models/Gemini:streamGenerateContent", "/v1beta/models/gemini:streamgeneratecontent"),
    ],
)
def test_path_is_normalised(path: str, expected: str) -> None:
    assert normalise(path) == expected


def test_normalised_path_without_escapes_stays_the_same() -> None:
    for path in SPELLINGS:
        assert normalise(normalise(path)) == normalise(path)


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/api/v1/chat/completions",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01",
        "/openai/deployments/my%2Fdeployment/chat/completions",
        "/v1beta/openai/chat/completions",
        "/a/very/long/prefix/chat/completions",
        "/compatible-mode/v1/chat/completions",
    ],
)
def test_path_may_have_any_prefix(path: str) -> None:
    found = pick("POST", path, {})
    assert found is NAMES["openai-chat"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models",
        "/v1/chat",
        "/v1/chat/completions/x",
        "/v1/chat/completions/chatcmpl-1/messages",
        "/v1/chat/completionsx",
        "/v1/chat/completions.json",
        "/v1/xchat/x",
        "/v1/chat/completions/../models",
        "/v1/chat/completions%252F..",
        "/v1/models?path=/chat/completions",
        "/v1/models#/chat/completions",
    ],
)
def test_other_paths_have_no_dialect(path: str) -> None:
    assert pick("POST", path, {}) is None


def test_longer_name_is_not_chat() -> None:
    assert pick("POST", "/v1/notchat/completions", {}) is not NAMES["openai-chat"]


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "", "POSTS", "CONNECT"])
def test_other_methods_have_no_dialect(method: str) -> None:
    assert pick(method, "/v1/chat/completions", {}) is None
    assert pick(method, "/llm/x", {"/llm/*": "openai-chat"}) is None


@pytest.mark.parametrize("method", ["POST", "post", "Post"])
def test_method_post_is_known_in_any_letter_case(method: str) -> None:
    assert pick(method, "/v1/chat/completions", {}) is NAMES["openai-chat"]


def test_paths_of_the_settings_have_their_dialect() -> None:
    chat = NAMES["openai-chat"]
    for path in ("/llm/x", "/LLM//x/y", "/a/../llm/%78", "/llm/x?y", "/llm/x/"):
        assert pick("POST", path, {"/llm/*": "openai-chat"}) is chat
    for path in ("/llm", "/llm/", "/x/llm/y", "/llmx/y"):
        assert pick("POST", path, {"/llm/*": "openai-chat"}) is None
    assert pick("POST", "/exact", {"/EXACT": "openai-chat"}) is chat
    assert pick("POST", "/v1/chat/completions", {"/llm/*": "openai-chat"}) is chat


def test_paths_of_the_settings_take_precedence_in_their_order() -> None:
    other = next(name for name in NAMES if name != "openai-chat")
    path = "/v1/chat/completions"
    assert pick("POST", path, {"*": other}) is NAMES[other]
    assert pick("POST", path, {"*/completions": other, "*": "openai-chat"}) is NAMES[other]
    assert pick("POST", path, {"*": "openai-chat", "*/completions": other}) is NAMES["openai-chat"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/v1/chat/completions" + "/." * 400])
def test_path_is_cached_without_its_query(path: str) -> None:
    _recall.cache_clear()
    for query in ("", "?key=SECRET", "#SECRET", "?other=SECRET"):
        assert pick("POST", path + query, {}) is pick("POST", path, {})
    assert _recall.cache_info().currsize == (len(path) < 512)


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
