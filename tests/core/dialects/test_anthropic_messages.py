"""Anthropic's Messages API: system, blocks of all kinds, deltas, signatures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.errors import MalformedBody
from extproc.core.refusal import (
    OVERLOADED,
    PATH_NOT_ALLOWED,
    REQUEST_TOO_LARGE,
    UNAVAILABLE,
    UNREADABLE_RESPONSE,
    blocked,
)
from tests.fakes.reading import asked, document, dotted, fixed, heard, rewritten, said

MESSAGES = AnthropicMessages()
OPAQUE: list[dict[str, Any]] = [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}, "title": "t"},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}},
    {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    {"type": "redacted_thinking", "data": "QUJD"},
    {"type": "container_upload", "file_id": "file_1"},
]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"system": "a", "messages": []}, ["system system"]),
        (
            {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "b", {"text": ""}]},
            ["system system[0].text", "system system[1]"],
        ),
        ({"system": {"type": "text", "text": "a"}}, ["system system.text"]),
        ({"system": ""}, []),
        ({"messages": [{"role": "user", "content": "a"}]}, ["user messages[0].content"]),
        ({"messages": [{"role": "assistant", "content": "a"}]}, ["assistant messages[0].content"]),
        ({"messages": [{"role": "system", "content": "a"}]}, ["system messages[0].content"]),
        ({"messages": [{"role": "tool", "content": "a"}]}, ["user messages[0].content"]),
        ({"messages": [{"role": ["assistant"], "content": "a"}]}, ["user messages[0].content"]),
        ({"messages": [{"content": "a"}]}, ["user messages[0].content"]),
        ({"messages": ["a", "", None]}, ["user messages[0]"]),
        ({"messages": [{"role": "user", "content": "", "text": "a"}]}, ["user messages[0].text"]),
        ({"messages": [{"role": "user", "content": None}]}, []),
        ({"messages": [{"role": "user", "content": 7}]}, []),
        ({"messages": None}, []),
        ({"metadata": {"user_id": "a"}, "stop_sequences": ["b"], "model": "c"}, []),
        ({"mcp_servers": [{"authorization_token": "t", "url": "u"}]}, []),
        ([], []),
    ],
)
def test_texts_of_requests_are_found(body: Any, places: list[str]) -> None:
    assert [" ".join(found) for found in asked(MESSAGES, body)] == places


@pytest.mark.parametrize(
    ("block", "places"),
    [
        ("a", ["user [0]"]),
        ({"type": "text", "text": "a"}, ["user [0].text"]),
        (
            {
                "type": "text",
                "text": "a",
                "citations": [{"cited_text": "b", "document_title": "c", "title": "d", "url": "e"}],
            },
            [
                "user [0].text",
                "user [0].citations[0].cited_text",
                "user [0].citations[0].document_title",
                "user [0].citations[0].title",
            ],
        ),
        (
            {"type": "document", "title": "a", "context": "b", "source": {"type": "text", "data": "c"}},
            ["user [0].title", "user [0].context", "user [0].source.data"],
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}, OPAQUE[0]]}},
            ["user [0].source.content[0].text"],
        ),
        ({"type": "document", "source": {"type": "content", "content": "a"}}, ["user [0].source.content"]),
        ({"type": ["text"], "text": "a"}, ["user [0].text"]),
        (
            {"type": "search_result", "source": "a", "title": "b", "content": [{"type": "text", "text": "c"}]},
            ["user [0].source", "user [0].title", "user [0].content[0].text"],
        ),
        ({"type": "thinking", "thinking": "a", "signature": "s"}, ["user [0].thinking"]),
        ({"type": "compaction", "content": "a"}, ["user [0].content"]),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"a": "ä"}}, ['assistant call:{"a": "ä"}']),
        ({"type": "tool_use", "name": "f", "input": {"a": 1}}, ['assistant call:{"a": 1}']),
        ({"type": "server_tool_use", "name": "web_search", "input": {"query": "a"}}, ['assistant call:{"query": "a"}']),
        ({"type": "mcp_tool_use", "server_name": "s", "input": {}}, ["assistant call:{}"]),
        ({"type": "tool_result", "tool_use_id": "c", "content": "a"}, ["tool [0].content"]),
        ({"type": "tool_result", "content": "a"}, ["user [0].content"]),
        ({"type": "tool_result", "tool_use_id": "c"}, []),
        (
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [{"type": "text", "text": "a"}, *OPAQUE[:1], *OPAQUE[2:]],
            },
            ["tool [0].content[0].text"],
        ),
        (
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}],
            },
            ["tool [0].content[0].source.data"],
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "c",
                "content": [{"title": "a", "encrypted_content": "e"}],
            },
            ["tool [0].content[0].title"],
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "tool_use_id": "c",
                "content": {"content": {"title": "a", "source": {"type": "text", "data": "b"}}, "url": "u"},
            },
            ["tool [0].content.content.title", "tool [0].content.content.source.data"],
        ),
        (
            {"type": "bash_code_execution_tool_result", "tool_use_id": "c", "content": {"stdout": "a", "stderr": "b"}},
            ["tool [0].content.stdout", "tool [0].content.stderr"],
        ),
        (
            {
                "type": "text_editor_code_execution_tool_result",
                "tool_use_id": "c",
                "content": {"content": "a", "lines": ["b"], "error_message": "d"},
            },
            ["tool [0].content.content", "tool [0].content.lines[0]", "tool [0].content.error_message"],
        ),
        ({"type": "mcp_tool_result", "tool_use_id": "c", "content": [{"text": "a"}]}, ["tool [0].content[0].text"]),
        ({"type": "from_next_year", "inner": {"text": "a", "n": "b"}}, ["user [0].inner.text"]),
        (7, []),
        *((block, []) for block in OPAQUE),
    ],
)
def test_texts_of_request_blocks_are_found(block: Any, places: list[str]) -> None:
    found = asked(MESSAGES, {"messages": [{"role": "user", "content": [block]}]})
    assert [f"{role} {place.removeprefix('messages[0].content')}" for role, place in found] == places


def test_content_may_be_one_block() -> None:
    content = {"type": "text", "text": "a"}
    assert asked(MESSAGES, {"messages": [{"content": content}]}) == [("user", "messages[0].content.text")]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": {"role": "user", "content": "a"}},
        {"messages": "a"},
        {"messages": 7},
        '{"system":"a","system":"b"}',
        '{"messages":[{"role":"user","content":"a","content":"b"}]}',
        '{"messages":[{"content":[{"type":"text","text":"a","text":"b"}]}]}',
        '{"messages":[{"content":[{"type":"image","type":"text","text":"b"}]}]}',
        '{"messages":[{"content":[{"type":"tool_use","input":{"a":"b","c":{"d":"e","d":"f"}}}]}]}',
        '{"messages":[{"content":[{"type":"document","source":{"type":"text","data":"a","data":"b"}}]}]}',
        '{"messages":[{"content":[{"type":"tool_result","content":[{"text":"a","text":"b"}]}]}]}',
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(MESSAGES, body)


@pytest.mark.parametrize(
    ("block", "is_fixed"),
    [
        ({"type": "thinking", "thinking": "a", "signature": "s"}, True),
        ({"type": "thinking", "thinking": "a", "signature": ""}, False),
        ({"type": "thinking", "thinking": "a"}, False),
        ({"type": "compaction", "content": "a", "signature": "s"}, True),
        ({"type": "compaction", "content": "a", "encrypted_content": "e"}, True),
        ({"type": "compaction", "content": "a", "encrypted_content": None}, False),
        ({"type": "text", "text": "a"}, False),
    ],
)
def test_signed_text_is_inspected_and_fixed(block: dict[str, Any], is_fixed: bool) -> None:
    read = document({"messages": [{"role": "assistant", "content": [block]}]})
    (prompt,) = MESSAGES.prompts(read, tools=False)
    assert prompt.leaf is not None
    assert prompt.leaf.text == "a"
    assert prompt.leaf.fixed is is_fixed


def test_call_and_its_result_are_sent_to_aim() -> None:
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b"}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "d"}
    body = {"messages": [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]}
    first, second = MESSAGES.prompts(document(body), tools=False)
    function = {"name": "f", "arguments": '{"a": "b"}'}
    assert first.message["tool_calls"] == [{"id": "c", "type": "function", "function": function}]
    assert second.message == {"role": "tool", "tool_call_id": "c", "content": "d"}


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "messages": [],
        "tools": [{"name": "a", "input_schema": {"properties": {"x": {"description": "b"}}}}],
        "output_format": {"schema": {"description": "c"}},
        "output_config": {"format": {"schema": {"description": "d"}}},
    }
    assert asked(MESSAGES, body) == []
    assert asked(MESSAGES, body, tools=True) == [
        ("system", "tools[0].name"),
        ("system", "tools[0].input_schema.properties.x.description"),
        ("system", "output_format.schema.description"),
        ("system", "output_config.format.schema.description"),
    ]


# -- whole answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "places"),
    [
        ({"type": "text", "text": "a"}, [".text"]),
        ({"type": "text", "text": "a", "citations": [{"cited_text": "b"}]}, [".text", ".citations[0].cited_text"]),
        ({"type": "thinking", "thinking": "a", "signature": "s"}, [".thinking"]),
        ({"type": "compaction", "content": "a", "encrypted_content": "e"}, [".content"]),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b"}}, [".input"]),
        ({"type": "server_tool_use", "name": "f", "input": {"a": ["b"]}}, [".input"]),
        ({"type": "mcp_tool_use", "name": "f", "input": {"a": "b"}}, [".input"]),
        ({"type": "tool_use", "name": "f", "input": {}}, []),
        ({"type": "tool_use", "name": "f", "input": "a"}, [".input"]),
        ({"type": "web_search_tool_result", "content": [{"title": "a", "url": "u"}]}, [".content[0].title"]),
        (
            {"type": "web_fetch_tool_result", "content": {"content": {"source": {"type": "text", "data": "a"}}}},
            [".content.content.source.data"],
        ),
        (
            {"type": "web_fetch_tool_result", "content": {"content": {"source": {"type": "base64", "data": "QUJD"}}}},
            [],
        ),
        (
            {"type": "code_execution_tool_result", "content": {"stdout": "a", "stderr": "b"}},
            [".content.stdout", ".content.stderr"],
        ),
        ({"type": "mcp_tool_result", "content": [{"type": "text", "text": "a"}]}, [".content[0].text"]),
        ({"type": "advisor_tool_result", "content": {"text": "a", "encrypted_content": "e"}}, [".content.text"]),
        ({"type": "from_next_year", "inner": [{"text": "a"}]}, [".inner[0].text"]),
        ({"type": ["text"], "text": "a"}, [".text"]),
        ("a", [""]),
        ("", []),
        (None, []),
        ({"type": "redacted_thinking", "data": "QUJD"}, []),
        ({"type": "container_upload", "file_id": "f"}, []),
    ],
)
def test_texts_of_answer_blocks_are_found(block: Any, places: list[str]) -> None:
    found = said(MESSAGES, {"id": "msg_1", "type": "message", "content": [{"type": "x"}, block], "model": "m"})
    assert [place.removeprefix("content[1]") for place in found] == places


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"content": "a"}, ["content"]),
        ({"choices": [{"message": {"content": "a"}}]}, ["choices[0].message.content"]),
        ([{"text": "a"}], ["[0].text"]),
        ({"content": [], "stop_details": {"type": "refusal", "explanation": "a"}}, ["stop_details.explanation"]),
        ({"input_tokens": 7}, []),
        ({}, []),
    ],
)
def test_answers_of_other_shapes_are_searched(body: Any, places: list[str]) -> None:
    assert said(MESSAGES, body) == places


def test_rewritten_thinking_block_loses_its_signature() -> None:
    body = {
        "content": [
            {"type": "thinking", "thinking": "secret", "signature": "EqQB"},
            {"type": "text", "text": "secret", "citations": None},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "secret", "b": 1.50}},
        ]
    }
    assert rewritten(MESSAGES, body)["content"] == [
        {"type": "thinking", "thinking": "[X]", "signature": ""},
        {"type": "text", "text": "[X]", "citations": None},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"x": "[X]"}},
    ]


@pytest.mark.parametrize(
    "body",
    [
        '{"content":[],"content":[{"type":"text","text":"a"}]}',
        '{"content":[{"type":"text","text":"a","text":"b"}]}',
        '{"content":[{"type":"tool_use","input":{"a":"b","a":"c"}}]}',
    ],
)
def test_answers_with_repeated_keys_are_unreadable(body: str) -> None:
    with pytest.raises(MalformedBody):
        said(MESSAGES, body)


# -- streams -------------------------------------------------------------------------------------------------------


def delta(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 2, "delta": {"type": kind, **more}}


@pytest.mark.parametrize(
    ("event", "found", "places"),
    [
        (delta("text_delta", text="a"), ["delta.text"], [(2, "text")]),
        (delta("thinking_delta", thinking="a"), ["delta.thinking"], [(2, "thinking")]),
        (delta("input_json_delta", partial_json='{"a'), ["delta.partial_json"], [(2, "partial_json")]),
        (delta("compaction_delta", content="a", encrypted_content="e"), ["delta.content"], [(2, "content")]),
        (delta("signature_delta", signature="s"), ["~delta.signature"], [(2, "thinking")]),
        (delta("signature_delta", signature=""), [], []),
        (delta("signature_delta"), [], []),
        (delta("text_delta", text=""), [], []),
        (delta("text_delta", text=["a"]), ["delta.text[0]"], [(2, "text", 0)]),
        (delta("text_delta", text="a", thinking="b"), ["delta.text", "delta.thinking"], [(2, "text"), (2, "thinking")]),
        (
            delta("citations_delta", citation={"type": "char_location", "cited_text": "a", "document_title": "b"}),
            ["delta.citation.cited_text", "delta.citation.document_title"],
            [None, None],
        ),
        (delta("from_next_year", text="a"), ["delta.text"], [(2, "text")]),
        ({"type": "content_block_delta", "delta": {"text": "a"}}, ["delta.text"], [(0, "text")]),
        ({"type": "content_block_delta", "index": "1", "delta": {"text": "a"}}, ["delta.text"], [(0, "text")]),
        ({"type": "content_block_delta", "index": 1, "delta": None}, [], []),
        (
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "a"}},
            ["content_block.text"],
            [(1, "text")],
        ),
        (
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "thinking", "thinking": "", "signature": ""},
            },
            [],
            [],
        ),
        ({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "input": {}}}, [], []),
        (
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "server_tool_use", "input": {"a": "b"}},
            },
            ["content_block.input"],
            [None],
        ),
        (
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "web_search_tool_result", "content": [{"title": "a"}]},
            },
            ["content_block.content[0].title"],
            [(1, "content", 0, "title")],
        ),
        ({"type": "content_block_stop", "index": 1}, [], []),
        ({"type": "message_start", "message": {"id": "msg_1", "content": [], "model": "m"}}, [], []),
        (
            {"type": "message_start", "message": {"content": [{"type": "text", "text": "a"}]}},
            ["message.content[0].text"],
            [(0, "text")],
        ),
        ({"type": "message_start"}, [], []),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {}}, [], []),
        (
            {"type": "message_delta", "delta": {"stop_details": {"type": "refusal", "explanation": "a"}}},
            ["delta.stop_details.explanation"],
            [("delta", "stop_details", "explanation")],
        ),
        ({"type": "message_stop"}, [], []),
        ({"type": "ping"}, [], []),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, [], []),
        ({"type": "from_next_year", "inner": {"text": "a"}}, ["inner.text"], [("inner", "text")]),
        ({"type": ["ping"], "text": "a"}, ["text"], [("text",)]),
        ([{"text": "a"}], ["[0].text"], [(0, "text")]),
    ],
)
def test_texts_of_events_are_found(event: Any, found: list[str], places: list[Any]) -> None:
    assert heard(MESSAGES, event) == found
    assert [leaf.place for leaf in MESSAGES.deltas(document(event))] == places


def test_arguments_are_json_and_deltas_continue_the_text_of_their_block() -> None:
    (leaf,) = MESSAGES.deltas(document(delta("input_json_delta", partial_json="{")))
    assert leaf.is_json
    (leaf,) = MESSAGES.deltas(document(delta("text_delta", text="{")))
    assert not leaf.is_json
    start = {"type": "content_block_start", "index": 2, "content_block": {"thinking": "a", "signature": "s"}}
    (leaf,) = MESSAGES.deltas(document(start))
    assert leaf.place == (2, "thinking")
    assert [dotted(path) for path in leaf.emptied] == ["content_block.signature"]
    assert fixed([leaf]) == []


def test_message_stop_ends_a_stream() -> None:
    assert MESSAGES.is_final("{}", document({"type": "message_stop"}))
    assert not MESSAGES.is_final("{}", document({"type": "message_delta"}))
    assert not MESSAGES.is_final("[DONE]", None)
    assert MESSAGES.is_repetitive
    assert MESSAGES.streams(document({"stream": True}), "/v1/messages")


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (blocked("no"), "invalid_request_error"),
        (PATH_NOT_ALLOWED, "permission_error"),
        (REQUEST_TOO_LARGE, "request_too_large"),
        (UNREADABLE_RESPONSE, "api_error"),
        (UNAVAILABLE, "api_error"),
        (OVERLOADED, "api_error"),
    ],
)
def test_refusals_have_the_shape_of_the_api(refusal: Any, kind: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": refusal.message}}
    assert json.loads(MESSAGES.refuse(refusal)) == error
    assert MESSAGES.refuse_stream(refusal, 3) == b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
