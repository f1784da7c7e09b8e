"""The walk through a document by the table of a dialect."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.document import Document
from extproc.core.dialects.found import Found, Mode
from extproc.core.dialects.leaf import Kind
from extproc.core.dialects.rules import (
    COMMON,
    arguments,
    inert,
    media,
    message,
    opaque,
    seal,
    text,
    tokens,
    tools,
    unnamed,
    unreadable,
    url,
)
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.errors import MalformedBody
from extproc.core.redaction import RedactionError, edits

TABLE = Table(
    *COMMON,
    message("messages[]"),
    text("messages[].content", "messages[].content[].text"),
    inert("messages[].role", "messages[].name", "messages[].tag"),
    arguments("messages[].tool_calls[].function.arguments", "call"),
    text("system", role="system"),
    text("said[].text", "prompt"),
    text("spoken", fixed=True),
    seal("said[].signature"),
    opaque("cipher"),
    url("link"),
    media("picture"),
    tokens("said[].logprobs"),
    tokens("all_tokens", everywhere=True),
    tools("tools[]"),
    inert("labels.*", "stop"),
    unreadable("tensor"),
)


def walk(value: Any, mode: Mode = Mode.REQUEST, *, locates: bool = True, table: Table = TABLE) -> Found:
    document = Document(value if isinstance(value, str) else json.dumps(value))
    return Walk(table, mode, wants_tools=True, locates=locates).run(document)


def messages(value: Any, *, locates: bool = True) -> list[tuple[str, Any]]:
    return [(prompt.message["role"], prompt.message["content"]) for prompt in walk(value, locates=locates).prompts]


def texts(value: Any, mode: Mode = Mode.ANSWER, *, locates: bool = True) -> list[str]:
    return [leaf.text for leaf in walk(value, mode, locates=locates).leaves if leaf.kind is Kind.TEXT]


class TestRequests:
    def test_each_text_is_a_message(self) -> None:
        assert messages({"system": "be kind", "prompt": ["a", "b"], "made_up": {"deep": ["c d", {"e": "f g"}]}}) == [
            ("system", "be kind"),
            ("user", "a"),
            ("user", "b"),
            ("user", "c d"),
            ("user", "f g"),
        ]

    def test_strings_of_one_list_are_one_message(self) -> None:
        assert messages({"zq": ["4111 1111", 5, "", {"k": "v w"}, "1111 1111"]}) == [
            ("user", "4111 1111\n1111 1111"),
            ("user", "v w"),
        ]
        assert messages({"stop": ["x", "a b", "c d"]}) == [("user", "a b\nc d")]
        assert messages({"prompt": ["a", "b"]}) == [("user", "a"), ("user", "b")]
        assert messages({"zq": ["a"]}) == [("user", "a")]

    def test_redaction_of_one_line_changes_one_string(self) -> None:
        body = Document('{"zq": ["", "my name", 5, "is Tom"], "said": [{"zq": ["a", "b"], "signature": "c2ln"}]}')
        first, second = Walk(TABLE, Mode.REQUEST, locates=True).run(body).prompts
        assert edits([(first.leaf, "my name\nis [N]")]) == {("zq", 3): "is [N]"}
        with pytest.raises(RedactionError, match="cannot be changed"):
            edits([(second.leaf, "a\nx")])

    def test_chat_messages_go_as_they_are(self) -> None:
        given_ = {"role": "assistant", "content": "a b", "tag": "x", "zq": {"k": "v w"}}
        assert [prompt.message for prompt in walk({"messages": [given_]}).prompts] == [
            given_,
            {"role": "assistant", "content": "v w"},
        ]

    def test_each_part_goes_with_the_fields_of_its_message(self) -> None:
        given_ = {"role": "user", "name": "Tom", "content": [{"type": "text", "text": "a"}, "b", {"zq": "c d"}], "x": 1}
        found = [prompt.message for prompt in walk({"messages": [given_]}).prompts]
        assert found == [{**given_, "content": said} for said in ("a", "b", "c d")]

    def test_large_fields_are_not_repeated_with_each_part(self) -> None:
        parts = [{"text": f"t{n}"} for n in range(100)]
        given_ = {"role": "user", "content": parts, "n": [{"k": 1}], "zq": "x " * 500}
        found = [prompt.message for prompt in walk({"messages": [given_]}).prompts]
        assert found[:2] == [{"role": "user", "content": "t0"}, {"role": "user", "content": "t1"}]
        assert found[-1] == {"role": "user", "content": "x " * 500}

    @pytest.mark.parametrize(
        ("given_", "sent"),
        [
            ({"role": "developer"}, {"role": "user"}),
            ({"role": "tool"}, {"role": "user"}),
            ({"role": "tool", "tool_call_id": "c"}, {"role": "tool", "tool_call_id": "c"}),
            ({"role": "function"}, {"role": "user"}),
            ({"role": "function", "name": "f"}, {"role": "function", "name": "f"}),
            ({"role": ["x y"]}, {"role": "user"}),
            ({}, {"role": "user"}),
        ],
    )
    def test_roles_that_aim_does_not_accept_are_mapped(self, given_: Any, sent: Any) -> None:
        found = walk({"messages": [{**given_, "content": "a"}]}).prompts[0].message
        assert found == {**sent, "content": "a"}

    def test_a_sentence_as_a_role_is_a_text(self) -> None:
        assert messages({"messages": [{"role": "you are evil", "content": "a"}]}) == [
            ("user", "a"),
            ("user", "you are evil"),
        ]

    @pytest.mark.parametrize(
        ("given_", "brief"),
        [
            ({"role": "tool", "tool_call_id": "c", "x": "v w"}, {"role": "tool", "tool_call_id": "c"}),
            ({"role": "tool", "tool_call_id": "c" * 65, "x": "v w"}, {"role": "user"}),
            ({"role": "function", "name": "f", "x": "v w"}, {"role": "function", "name": "f"}),
            ({"role": "user", "name": "Tom", "x": "v w"}, {"role": "user"}),
        ],
    )
    def test_other_texts_of_a_message_go_with_its_role_alone(self, given_: Any, brief: Any) -> None:
        assert walk({"messages": [given_]}).prompts[-1].message == {**brief, "content": "v w"}

    def test_calls_are_a_message_of_their_own_and_stay_in_theirs(self) -> None:
        call = {"id": "c1", "function": {"arguments": r'{"q": "caf\u00e9"}'}}
        given_ = {"role": "assistant", "content": None, "tool_calls": [call]}
        assert [prompt.message for prompt in walk({"messages": [given_]}).prompts] == [
            given_,
            {"role": "assistant", "content": '{"q": "café"}'},
        ]

    def test_arguments_may_be_any_text(self) -> None:
        assert messages({"call": "no json"}) == [("assistant", "no json")]
        assert messages('{"call": {"a" :1, "b": ["c\\u0041"]}}') == [("assistant", '{"a" :1, "b": ["cA"]}')]
        assert messages('{"call": ["x y"]}') == [("assistant", '["x y"]')]
        assert messages({"call": {}}) == messages({"call": None}) == messages({"call": 5}) == []

    def test_result_of_a_tool_has_its_call(self) -> None:
        table = Table(inert("result.call"), unnamed("result", speaker=_tool))
        (prompt,) = walk({"result": {"call": "c1", "zq": "a b"}}, table=table).prompts
        assert prompt.message == {"role": "tool", "tool_call_id": "c1", "content": "a b"}

    def test_definitions_are_one_message_for_each_tool(self) -> None:
        schema = {"properties": {"a b": {"enum": ["x", None, 1], "const": ["y"], "pattern": "p q"}}}
        tool = {"name": "f", "description": "does", "parameters": schema}
        found = walk({"tools": [tool, "some words", {"default": {"k": "v"}}, {"n": 1}]})
        assert [prompt.message for prompt in found.definitions] == [
            {"role": "system", "content": "does\na b\nx\ny\np q"},
            {"role": "system", "content": "some words"},
            {"role": "system", "content": "v"},
        ]
        assert found.prompts == []
        assert all(prompt.is_definition for prompt in found.definitions)
        assert walk({"tools": {"description": "a"}}).definitions[0].message["content"] == "a"

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({"default": {"k": ["drop-all-tables", 1]}, "type": "x"}, ["drop-all-tables"]),
            ({"properties": {"a": {"const": {"k": {"m": "v"}}, "examples": [{"k": "w"}]}}}, ["v", "w"]),
            ({"properties": {"default": {"type": "string", "default": "v"}, "title": {"enum": ["w"]}}}, ["v", "w"]),
            ({"properties": {"properties": {"title": "t", "properties": {"enum": {"const": "v"}}}}}, ["t", "v"]),
            ({"definitions": {"title": {"type": "string"}}, "properties": [{"title": "v"}]}, ["v"]),
        ],
    )
    def test_values_of_schemas_are_texts_whatever_they_look_like(self, parameters: Any, said: list[str]) -> None:
        for locates in (True, False):
            found = walk({"tools": [{"name": "f", "parameters": parameters}]}, locates=locates).definitions
            assert [prompt.message["content"] for prompt in found] == ["\n".join(said)]

    def test_definition_that_is_a_string_has_its_place(self) -> None:
        (found,) = walk({"tools": "a sentence"}).definitions
        assert edits([(found.leaf, "x")]) == {("tools",): "x"}

    def test_definitions_are_the_same_without_their_places(self) -> None:
        value = {
            "tools": [{"enum": ["a", "b"], "x": {"description": {"title": "c d"}}, "e f": [{"y": "g h"}, 1]}, "", {}]
        }
        assert walk(value, locates=False).definitions[0].message == walk(value).definitions[0].message
        assert messages({"tools": None}) == []

    def test_unwanted_definitions_are_not_read(self) -> None:
        document = Document('{"tools": [{"description": "a b"}]}')
        found = Walk(TABLE, Mode.REQUEST).run(document)
        assert found.definitions == found.prompts == []

    @pytest.mark.parametrize(
        "value",
        [
            {"prompt": 5},
            {"prompt": [1, 2]},
            {"prompt": [[1, 2]]},
            {"prompt": True},
            {"messages": 5},
            {"messages": [5]},
            {"tensor": "AAAA"},
            {"tensor": [1]},
            {"tensor": {}},
            {"tensor": 1},
        ],
    )
    def test_numbers_in_place_of_a_text_are_unreadable(self, value: Any) -> None:
        for locates in (True, False):
            with pytest.raises(MalformedBody):
                walk(value, locates=locates)

    def test_null_is_no_text(self) -> None:
        assert messages({"prompt": None, "messages": None, "tensor": None, "zq": [None, None]}) == []
        assert messages({"prompt": [None]}) == []

    @pytest.mark.parametrize("key", ["Messages", "PROMPT", "Prompt"])
    def test_key_in_another_letter_case_is_unreadable(self, key: str) -> None:
        with pytest.raises(MalformedBody, match="letter case"):
            walk({key: "a"})
        with pytest.raises(MalformedBody, match="letter case"):
            walk({"messages": [{"content": [{"Text": "a"}]}]})
        assert texts({key: "a b"}) == ["a b"]

    def test_keys_of_free_maps_and_arguments_have_any_case(self) -> None:
        assert messages({"labels": {"Prompt": "x"}, "call": {"Prompt": "x"}}) == [("assistant", '{"Prompt": "x"}')]

    def test_key_that_is_a_sentence_is_a_text(self) -> None:
        found = walk({"zq": {"my secret": 1}, "labels": {"a label": "x"}}).prompts
        assert [(prompt.message["content"], prompt.leaf and prompt.leaf.fixed) for prompt in found] == [
            ("my secret", True),
            ("a label", True),
        ]

    def test_signed_text_cannot_be_changed(self) -> None:
        (first, second) = walk({"said": [{"text": "a", "signature": "c2ln"}, {"text": "b", "signature": ""}]}).prompts
        assert first.leaf is not None
        assert second.leaf is not None
        assert (first.leaf.fixed, second.leaf.fixed) == (True, False)

    @pytest.mark.parametrize("locates", [True, False])
    def test_strings_behind_many_objects_are_read_once(self, locates: bool) -> None:
        found = walk({"rows": [{"a": f"row {n}"} for n in range(300)] + ["my one", "my two"]}, locates=locates)
        sent = [prompt.message["content"] for prompt in found.prompts]
        assert "\n".join(sent).count("my one") == 1
        assert sent[0] == "my one\nmy two"
        assert sent[-1].endswith("row 299")

    def test_the_texts_of_a_long_list_share_a_message(self) -> None:
        found = messages({"zq": [{"k": f"text {n}"} for n in range(300)], "prompt": "last"})
        assert len(found) == 258
        assert found[255:] == [
            ("user", "text 255"),
            ("user", "\n".join(f"text {n}" for n in range(256, 300))),
            ("user", "last"),
        ]

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ({"text": "a", "zq": {"k": ["b", ["c d", {"e": "f"}], 5, None]}}, "a\nb\nc d\nf"),
            ({"a key": "", "id": "x y", "type": "z"}, "a key\nx y"),
            ({"text": ["a", ""], "q": {"call": "b"}, "s": None}, "a\nb"),
            ({"image_url": "https://a", "picture": "words", "n": [1, 2], "m": {}}, "words"),
            (["a", None, []], "a"),
        ],
    )
    def test_all_texts_of_a_long_list_are_gathered(self, entry: Any, said: str) -> None:
        for key in ("zq", "messages"):
            value: Any = [{"k": "x"}] * 256 + [entry]
            value = {key: value} if key == "zq" else {key: [{"content": value}]}
            assert messages(value, locates=False)[-1] == messages(value)[-1] == ("user", said)

    def test_nothing_may_follow_the_first_texts_of_a_list(self) -> None:
        assert len(messages({"zq": [{"k": "x"}] * 256 + [5]})) == 256

    def test_the_texts_behind_many_entries_are_joined_however_few(self) -> None:
        rows = [{"id": "a"}] * 4096 + [{"id": "a", "note": "b c"}] * 2
        assert messages({"zq": rows}) == messages({"zq": rows}, locates=False) == [("user", "b c\nb c")]

    @pytest.mark.parametrize("entry", [5, [5], {"text": 5}, {"text": [5]}, {"Text": "a"}])
    def test_long_lists_are_as_unreadable_as_short_ones(self, entry: Any) -> None:
        for locates in (True, False):
            with pytest.raises(MalformedBody):
                walk({"messages": [{"content": ["x"] * 256 + [entry]}]}, locates=locates)

    def test_the_texts_of_a_large_object_share_a_message(self) -> None:
        assert len(messages({"zq": {f"k{n}": "a b" for n in range(300)}})) == 257

    def test_a_conversation_is_not_joined(self) -> None:
        assert len(messages({"messages": [{"role": "user", "content": "a"}] * 1000})) == 1000
        assert len(messages({"messages": [{"role": "user", "content": "a"}] * 5000})) == 4097
        assert len(messages({"messages": [{"content": "a"}] * 5000})) == 4097

    def test_the_number_of_messages_is_bounded_in_any_shape(self) -> None:
        deep = {f"k{a}": {f"k{b}": {f"k{c}": "a b" for c in range(30)} for b in range(30)} for a in range(30)}
        assert len(messages(deep)) == 8193

    def test_many_tools_share_a_message(self) -> None:
        assert len(walk({"tools": [{"description": "a b"}] * 600}).definitions) == 258


def _tool(node: Any, base: Any) -> Any:
    return {"role": "tool", "tool_call_id": node["call"]}


class TestShapes:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("id", "x-1"),
            ("some_id", "x-1"),
            ("created_at", "2024-01-01"),
            ("type", "text"),
            ("link", "https://a/b"),
            ("image_url", "https://a/b"),
            ("picture", b64encode(bytes(range(256))).decode()),
            ("picture", "https://a/b"),
            ("cipher", "a" * 5000),
            ("stop", ["a", "b"]),
            ("labels", {"x": "y"}),
        ],
    )
    def test_what_looks_as_it_should_is_no_text(self, key: str, value: Any) -> None:
        assert messages({key: value}) == []
        assert texts({key: value}) == []

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("id", "my secret", "my secret"),
            ("type", "tom@x.com", "tom@x.com"),
            ("link", "not a link", "not a link"),
            ("picture", "a sentence", "a sentence"),
            ("picture", "data:text/plain;base64,aGkgVG9t", "hi Tom"),
            ("image_url", "data:text/plain;base64,aGkgVG9t", "hi Tom"),
            ("cipher", "a b", "a b"),
            ("labels", {"x": "y z"}, "y z"),
            ("stop", ["x y"], "x y"),
        ],
    )
    def test_what_does_not_is_a_text(self, key: str, value: Any, said: str) -> None:
        for locates in (True, False):
            assert [content for _, content in messages({key: value}, locates=locates)] == [said]
            assert texts({key: value}, locates=locates) == [said]

    def test_encoded_text_is_redacted_in_its_encoding(self) -> None:
        body = Document(json.dumps({"picture": "data:text/plain;base64," + b64encode(b"hi Tom").decode()}))
        (leaf,) = Walk(TABLE, Mode.ANSWER, locates=True).run(body).leaves
        after = json.loads(body.rewrite(edits([(leaf, "hi [N]")])))
        assert after["picture"] == "data:text/plain;base64," + b64encode(b"hi [N]").decode()

    @pytest.mark.parametrize("key", ["mime_type", "media_type"])
    @pytest.mark.parametrize("times", [1, 300])
    def test_media_that_are_said_to_be_text_are_read(self, key: str, times: int) -> None:
        said = "un café pour Tom " * 5
        node = {"a_b64": b64encode(said.encode("latin-1")).decode(), key: "text/plain"}
        for locates in (True, False):
            found = messages({"zq": [{"k": [node]}] * times}, locates=locates)
            assert found[-1][1] == "\n".join([said] * max(1, times - 256))

    @pytest.mark.parametrize("times", [1, 300])
    @pytest.mark.parametrize("mode", [Mode.REQUEST, Mode.ANSWER])
    def test_object_around_a_source_says_that_it_is_text(self, mode: Mode, times: int) -> None:
        data = b64encode(("пароль " * 20).encode("koi8-r")).decode()
        said = ("пароль " * 20).encode("koi8-r").decode("latin-1")
        node = {"format": "txt", "source": {"a_b64": data}}
        picture = {"format": "png", "source": {"a_b64": data}}
        for locates in (True, False):
            found = walk({"zq": [[node, picture]] * times, "n": {"a_b64": data}}, mode, locates=locates)
            sent = [str(each.message["content"]) for each in found.prompts] or [leaf.text for leaf in found.leaves]
            assert "\n".join(sent).count(said) == times
            assert data not in "".join(sent)

    @pytest.mark.parametrize("data", ["4111111111111111", "hunter2hunter2", b64encode(b"some words").decode()])
    @pytest.mark.parametrize("times", [1, 300])
    def test_data_of_type_text_are_no_base64(self, data: str, times: int) -> None:
        node = {"type": "text", "media_type": "text/plain", "a_b64": data}
        for locates in (True, False):
            found = messages({"zq": [node] * times}, locates=locates)
            assert "\n".join(content for _, content in found) == "\n".join([data] * times)

    @pytest.mark.parametrize("size", [99, 9999])
    def test_base64_at_the_place_of_an_address_is_a_text(self, size: int) -> None:
        value = b64encode(bytes(range(256)) * 40).decode()[:size]
        assert texts({"link": value}) == texts({"zq": {"image_url": value}}) == [value]
        assert texts({"link": f"data:image/png;base64,{value}", "picture": value}) == []

    def test_charset_that_is_not_read_is_unreadable(self) -> None:
        with pytest.raises(MalformedBody, match="charset"):
            walk({"picture": "data:text/plain;charset=gbk;base64,aGkgVG9t"})
        with pytest.raises(MalformedBody, match="charset"):
            walk({"zq": {"a_b64": "aGkgVG9t", "mime_type": "text/plain; charset=gbk"}})


class TestAnswers:
    def test_named_texts_are_alone_and_all_others_joined(self) -> None:
        body = {"said": [{"text": "a"}, {"text": "b"}], "zq": ["c d", {"x": "e f"}], "prompt": "g"}
        assert texts(body) == texts(body, locates=False) == ["a", "b", "g", "c d\ne f"]

    def test_a_single_unnamed_text_has_its_place(self) -> None:
        (leaf,) = walk({"zq": "c d"}, Mode.ANSWER).leaves
        assert leaf.path == ("zq",)

    def test_tokens_are_kept_apart_and_odd_ones_are_texts(self) -> None:
        said = {
            "text": "a",
            "logprobs": {"content": [{"token": " x", "top_logprobs": {" the": 1}}, {"token": "no token at all"}]},
        }
        found = walk({"said": [said], "all_tokens": [1, 2]}, Mode.ANSWER).leaves
        assert [(leaf.kind, leaf.path, leaf.text) for leaf in found] == [
            (Kind.TEXT, ("said", 0, "text"), "a"),
            (Kind.TOKENS, ("said", 0, "logprobs"), ""),
            (Kind.TOKENS, ("all_tokens",), ""),
            (Kind.TEXT, ("said", 0, "logprobs", "content", 1, "token"), "no token at all"),
        ]
        assert found[2].is_everywhere
        assert texts({"said": [{"logprobs": {"a key of words": 1}}]}) == ["a key of words"]
        assert texts({"said": [{"logprobs": "a sentence here"}]}) == ["a sentence here"]
        assert messages({"said": [{"logprobs": {"token": "x"}}]}) == []

    def test_definitions_in_an_answer_are_texts(self) -> None:
        assert texts({"tools": [{"description": "a b", "name": "f"}]}) == ["a b"]

    def test_signature_is_emptied_with_its_text(self) -> None:
        body = Document('{"said": [{"text": "Tom", "signature": "c2ln"}]}')
        (leaf,) = Walk(TABLE, Mode.ANSWER).run(body).leaves
        assert json.loads(body.rewrite(edits([(leaf, "x")]))) == {"said": [{"text": "x", "signature": ""}]}

    def test_fixed_text_is_fixed(self) -> None:
        assert walk({"spoken": "a"}, Mode.ANSWER).leaves[0].fixed

    def test_long_lists_of_named_texts_are_joined(self) -> None:
        for locates in (True, False):
            found = texts({"said": [{"text": "a"}] * 300}, locates=locates)
            assert len(found) == 257
            assert found[-1] == "\n".join(["a"] * 44)


class TestEvents:
    def test_each_text_is_alone(self) -> None:
        assert texts({"said": [{"text": "a"}], "zq": "b c", "x": {"y": "d e"}}, Mode.EVENT) == ["a", "b c", "d e"]

    def test_pieces_of_arguments_are_raw(self) -> None:
        (leaf,) = walk({"call": r'{"a": "\u00'}, Mode.EVENT).leaves
        assert (leaf.text, leaf.is_json, leaf.raw) == (r'{"a": "\u00', True, "")

    def test_seals_are_found(self) -> None:
        assert [leaf.kind for leaf in walk({"said": [{"signature": "c2ln"}]}, Mode.EVENT).leaves] == [Kind.SEAL]


def test_field_under_both_of_its_names_is_unreadable() -> None:
    table = Table(text("someText"), two_spellings=True)
    assert [leaf.text for leaf in walk({"some_text": "a"}, Mode.ANSWER, table=table).leaves] == ["a"]
    with pytest.raises(MalformedBody, match="both of its names"):
        walk({"some_text": "a", "someText": "b"}, Mode.ANSWER, table=table)


KEYS = st.sampled_from(
    [
        "messages",
        "content",
        "role",
        "said",
        "text",
        "tools",
        "description",
        "zq",
        "a b",
        "id",
        "picture",
        "labels",
        "call",
    ]
)
STRINGS = st.sampled_from(["", "a", "b c", "https://a/b", "data:text/plain;base64,aGkgVG9t", "x@y.z", "秘密"])
NODES = st.recursive(
    STRINGS | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=300) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=40,
)


@given(NODES, st.integers(0, 300), st.sampled_from(Mode))
def test_texts_are_the_same_with_and_without_their_places(node: Any, times: int, mode: Mode) -> None:
    value = {"zq": [node] * times, "node": node, "said": [{"text": node, "zq": node}] * 2, "messages": [node]}
    try:
        found = walk(value, mode, locates=True)
    except MalformedBody:
        with pytest.raises(MalformedBody):
            walk(value, mode, locates=False)
        return
    again = walk(value, mode, locates=False)
    assert [leaf.text for leaf in found.leaves] == [leaf.text for leaf in again.leaves]
    assert [prompt.message for prompt in found.prompts] == [prompt.message for prompt in again.prompts]
    assert [prompt.message for prompt in found.definitions] == [prompt.message for prompt in again.definitions]
    for leaf in (*found.leaves, *(prompt.leaf for prompt in (*found.prompts, *found.definitions))):
        assert leaf is None or not leaf.is_joined or "\n".join(part.text for part in leaf.parts) == leaf.text


def test_numbers_behind_many_texts_are_unreadable() -> None:
    with pytest.raises(MalformedBody, match="token numbers"):
        walk({"prompt": ["a"] * 300 + [[1, 2]]})


def test_empty_strings_in_a_list_have_no_place() -> None:
    (leaf,) = walk({"zq": [["", ""], ["a b", "", "c d"]]}, Mode.ANSWER).leaves
    assert [(part.path, part.text) for part in leaf.parts] == [(("zq", 1, 0), "a b"), (("zq", 1, 2), "c d")]
    (prompt,) = walk({"said": [{"zq": ["a", "", "b"], "signature": "c2ln"}]}).prompts
    assert prompt.leaf is not None
    assert [(part.path[-1], part.fixed) for part in prompt.leaf.parts] == [(0, True), (2, True)]
