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
from tests.fakes.reading import (
    answers,
    asked,
    document,
    fixed,
    heard,
    is_redactable,
    masked,
    places,
    prompts,
    redacted_answer,
    redacted_event,
    redacted_request,
    said,
)

MESSAGES = AnthropicMessages()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjQKJeLjz9MKMSAwIG9iago8PC9UeXBlL0NhdGFsb2c+PgplbmRvYmoK"
OPAQUE: list[dict[str, Any]] = [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    {"type": "document", "source": {"type": "file", "file_id": "file_1"}, "cache_control": {"ttl": "5m"}},
    {"type": "redacted_thinking", "data": "EqQB" * 500},
    {"type": "container_upload", "file_id": "file_1"},
]


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"system": "hi a", "messages": []}, [("system", "hi a")]),
        (
            {
                "system": [
                    {"type": "text", "text": "hi a", "cache_control": {"type": "ephemeral"}},
                    "hi b",
                    {"text": ""},
                ]
            },
            [("system", "hi a"), ("system", "hi b")],
        ),
        ({"system": {"type": "text", "text": "hi a"}}, [("system", "hi a")]),
        ({"system": ""}, []),
        ({"messages": [{"role": "user", "content": "hi"}]}, [("user", "hi")]),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, [("assistant", "hi")]),
        ({"messages": [{"role": "system", "content": "hi"}]}, [("system", "hi")]),
        ({"messages": [{"role": "tool", "content": "hi"}]}, [("user", "hi")]),
        ({"messages": [{"role": ["assistant"], "content": "hi"}]}, [("user", "hi")]),
        ({"messages": [{"content": "hi"}]}, [("user", "hi")]),
        ({"messages": ["hi", "", None]}, [("user", "hi")]),
        ({"messages": {"role": "assistant", "content": "hi"}}, [("assistant", "hi")]),
        ({"messages": [{"role": "assistant", "content": "", "note": "hi"}]}, [("assistant", "hi")]),
        ({"messages": [{"content": {"type": "text", "text": "hi"}}]}, [("user", "hi")]),
        ({"messages": [{"role": "user", "content": None}]}, []),
        ({"messages": None}, []),
        ({"metadata": {"user_id": "a"}, "model": "c", "anthropic_beta": ["b"], "service_tier": "auto"}, []),
        ({"metadata": {"user_id": '{"device": "hi"}'}}, [("user", '{"device": "hi"}')]),
        ({"stop_sequences": ["hi"]}, [("user", "hi")]),
        ({"context_management": {"edits": [{"type": "a", "instructions": "hi"}]}}, [("user", "hi")]),
        ({"mcp_servers": [{"authorization_token": "dA==", "url": "https://a.example/b", "name": "c"}]}, []),
    ],
)
def test_texts_of_requests(body: Any, messages: list[tuple[str, str]]) -> None:
    assert asked(MESSAGES, body) == messages
    assert redacted_request(MESSAGES, body) == masked(body)


CITATION = {"type": "a", "cited_text": "hi b", "document_title": "hi c", "title": "hi d", "url": "https://a.example"}


@pytest.mark.parametrize(
    ("block", "messages"),
    [
        ("hi", ["user: hi"]),
        ({"type": "text", "text": "hi"}, ["user: hi"]),
        (
            {"type": "text", "text": "hi", "citations": [CITATION]},
            ["user: hi", "user: hi b", "user: hi c", "user: hi d"],
        ),
        (
            {"type": "document", "title": "hi a", "context": "hi b", "source": {"type": "text", "data": "hi c"}},
            ["user: hi a", "user: hi b", "user: hi c"],
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "hi"}, OPAQUE[0]]}},
            ["user: hi"],
        ),
        ({"type": "document", "source": {"type": "content", "content": "hi"}}, ["user: hi"]),
        ({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}, "title": "hi"}, ["user: hi"]),
        ({"type": ["text"], "text": "hi", "x": {"y": ["hi"]}}, ["user: hi", "user: hi"]),
        (
            {"type": "search_result", "source": "hi a", "title": "hi b", "content": [{"type": "text", "text": "hi c"}]},
            ["user: hi a", "user: hi b", "user: hi c"],
        ),
        ({"type": "thinking", "thinking": "hi"}, ["user: hi"]),
        ({"type": "compaction", "content": "hi"}, ["user: hi"]),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"a": "hi ä"}}, ['assistant: {"a": "hi ä"}']),
        ({"type": "tool_use", "name": "f", "input": {"a": 1}}, ['assistant: {"a": 1}']),
        ({"type": "tool_use", "name": "to say hi", "input": {}}, ["user: to say hi"]),
        ({"type": "server_tool_use", "name": "web_search", "input": {"q": "hi"}}, ['assistant: {"q": "hi"}']),
        ({"type": "mcp_tool_use", "server_name": "s", "input": {"q": ["hi"]}}, ['assistant: {"q": ["hi"]}']),
        ({"type": "tool_result", "tool_use_id": "c", "content": "hi"}, ["tool c: hi"]),
        ({"type": "tool_result", "content": "hi"}, ["user: hi"]),
        ({"type": "tool_result", "tool_use_id": 7, "content": "hi"}, ["user: hi"]),
        ({"type": "tool_result", "tool_use_id": "c"}, []),
        (
            {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "hi"}, *OPAQUE[:4]]},
            ["tool c: hi"],
        ),
        (
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}],
            },
            ["tool c: hi"],
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "c",
                "content": [{"title": "hi a", "encrypted_content": "ZQ==", "page_age": "hi b", "url": "https://a.ex"}],
            },
            ["tool c: hi a", "tool c: hi b"],
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "tool_use_id": "c",
                "content": {"content": {"title": "hi a", "source": {"type": "text", "data": "hi b"}}, "url": "gs://u"},
            },
            ["tool c: hi a", "tool c: hi b"],
        ),
        (
            {
                "type": "bash_code_execution_tool_result",
                "tool_use_id": "c",
                "content": {"stdout": "hi", "stderr": "hi"},
            },
            ["tool c: hi", "tool c: hi"],
        ),
        (
            {"type": "text_editor_tool_result", "tool_use_id": "c", "content": {"lines": ["hi"], "error_code": "a"}},
            ["tool c: hi"],
        ),
        ({"type": "mcp_tool_result", "tool_use_id": "c", "content": [{"text": "hi"}]}, ["tool c: hi"]),
        (
            {
                "type": "tool_search_tool_result",
                "tool_use_id": "c",
                "content": {"type": "a", "tool_references": [{"type": "tool_reference", "tool_name": "f"}]},
            },
            [],
        ),
        ({"type": "from_next_year", "inner": {"text": "hi", "n": "hi"}}, ["user: hi", "user: hi"]),
        *((block, []) for block in OPAQUE),
    ],
)
def test_texts_of_request_blocks(block: Any, messages: list[str]) -> None:
    body = {"messages": [{"role": "user", "content": [block]}]}
    found = prompts(MESSAGES, body)
    assert [
        f"{prompt.message['role']} {prompt.message.get('tool_call_id', '')}".strip() + f": {prompt.message['content']}"
        for prompt in found
    ] == messages
    assert redacted_request(MESSAGES, body) == masked(body)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": 7},
        {"messages": [7]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [7]}]},
        {"system": 7},
        {"Messages": []},
        {"messages": [{"Content": "a"}]},
        {"messages": [{"content": [{"type": "text", "Text": "a"}]}]},
        [],
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(MESSAGES, body)


@pytest.mark.parametrize(
    ("block", "is_fixed"),
    [
        ({"type": "thinking", "thinking": "hi", "signature": "c2VhbA=="}, True),
        ({"type": "thinking", "thinking": "hi", "signature": ""}, False),
        ({"type": "thinking", "thinking": "hi"}, False),
        ({"type": "compaction", "content": "hi", "signature": "c2VhbA=="}, True),
        ({"type": "compaction", "content": "hi", "encrypted_content": "c2VhbA=="}, True),
        ({"type": "compaction", "content": "hi", "encrypted_content": None}, False),
        ({"type": "text", "text": "hi"}, False),
    ],
)
def test_signed_text_of_a_request_is_inspected_and_fixed(block: dict[str, Any], is_fixed: bool) -> None:
    body = {"messages": [{"role": "assistant", "content": [block]}]}
    assert asked(MESSAGES, body) == [("assistant", "hi")]
    assert fixed(prompt.leaf for prompt in prompts(MESSAGES, body)) == ["hi"] * is_fixed
    assert is_redactable(MESSAGES, body) is not is_fixed


def test_sentence_in_place_of_a_signature_is_read() -> None:
    block = {"type": "thinking", "thinking": "a", "signature": "hi to all"}
    assert asked(MESSAGES, {"messages": [{"role": "assistant", "content": [block]}]}) == [
        ("assistant", "a"),
        ("assistant", "hi to all"),
    ]


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "messages": [],
        "tools": [
            {"name": "f", "input_schema": {"type": "object", "properties": {"x": {"description": "hi a"}}}},
            {"name": "g", "description": "hi b", "input_schema": {"enum": ["hi", "ho"]}},
        ],
        "output_format": {"type": "json_schema", "schema": {"description": "hi c"}},
        "output_config": {"effort": "low", "format": {"schema": {"description": "hi d"}}},
    }
    assert asked(MESSAGES, body) == []
    assert asked(MESSAGES, body, tools=True) == [
        ("system", "hi a"),
        ("system", "hi b\nhi\nho"),
        ("system", "hi c"),
        ("system", "hi d"),
    ]
    assert redacted_request(MESSAGES, body, tools=True) == masked(body)


# -- whole answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "texts"),
    [
        ({"type": "text", "text": "hi"}, ["hi"]),
        ({"type": "text", "text": "hi", "citations": [CITATION]}, ["hi", "hi b\nhi c\nhi d"]),
        ({"type": "text", "text": "hi", "citations": None}, ["hi"]),
        ({"type": "thinking", "thinking": "hi"}, ["hi"]),
        ({"type": "compaction", "content": "hi"}, ["hi"]),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"a": "hi", "b": 1.5}}, ['{"a": "hi", "b": 1.5}']),
        ({"type": "server_tool_use", "name": "f", "input": {"a": ["hi"]}}, ['{"a": ["hi"]}']),
        ({"type": "mcp_tool_use", "name": "f", "server_name": "s", "input": {"a": "hi"}}, ['{"a": "hi"}']),
        ({"type": "tool_use", "name": "f", "input": {}}, []),
        ({"type": "tool_use", "name": "f", "input": "hi"}, ["hi"]),
        ({"type": "web_search_tool_result", "content": [{"title": "hi a", "page_age": "hi b"}]}, ["hi a\nhi b"]),
        (
            {"type": "web_fetch_tool_result", "content": {"content": {"source": {"type": "text", "data": "hi"}}}},
            ["hi"],
        ),
        (
            {"type": "web_fetch_tool_result", "content": {"content": {"source": {"type": "base64", "data": PDF}}}},
            [],
        ),
        ({"type": "code_execution_tool_result", "content": {"stdout": "hi a", "stderr": "hi b"}}, ["hi a\nhi b"]),
        ({"type": "mcp_tool_result", "content": [{"type": "text", "text": "hi"}]}, ["hi"]),
        ({"type": "advisor_tool_result", "content": {"text": "hi", "encrypted_content": "ZQ=="}}, ["hi"]),
        ({"type": "from_next_year", "inner": [{"text": "hi"}]}, ["hi"]),
        ({"type": ["text"], "text": "hi"}, ["hi"]),
        ("hi", ["hi"]),
        ("", []),
        (None, []),
        ({"type": "redacted_thinking", "data": "EqQB"}, []),
        ({"type": "container_upload", "file_id": "f"}, []),
    ],
)
def test_texts_of_answer_blocks(block: Any, texts: list[str]) -> None:
    body = {"id": "msg_1", "type": "message", "content": [{"type": "x"}, block], "model": "m", "stop_sequence": "s"}
    assert said(MESSAGES, body) == texts
    assert redacted_answer(MESSAGES, body) == masked(body)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"content": "hi"}, ["hi"]),
        ({"choices": [{"message": {"content": "hi"}}]}, ["hi"]),
        ([{"text": "hi"}], ["hi"]),
        ({"content": [], "stop_details": {"type": "refusal", "category": "c", "explanation": "hi"}}, ["hi"]),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "hi"}, "request_id": "r"}, ["hi"]),
        ({"input_tokens": 7}, []),
        ({"content": [{"text": "hi a"}], "note": "hi b", "notes": ["hi c"]}, ["hi a", "hi b\nhi c"]),
        ({}, []),
    ],
)
def test_texts_of_other_answers(body: Any, texts: list[str]) -> None:
    assert said(MESSAGES, body) == texts
    assert redacted_answer(MESSAGES, body) == masked(body)


def test_rewritten_block_loses_its_signature() -> None:
    kept = {"type": "thinking", "thinking": "a", "signature": "EqQB"}
    body = {
        "content": [
            {"type": "thinking", "thinking": "hi", "signature": "EqQB"},
            kept,
            {"type": "compaction", "content": "hi", "encrypted_content": "EqQB"},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "hi", "b": 1.50}},
        ]
    }
    assert redacted_answer(MESSAGES, body)["content"] == [
        {"type": "thinking", "thinking": "[X]", "signature": ""},
        kept,
        {"type": "compaction", "content": "[X]", "encrypted_content": ""},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "[X]", "b": 1.5}},
    ]
    assert fixed(answers(MESSAGES, body)) == []


# -- streams -------------------------------------------------------------------------------------------------------


def delta(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 2, "delta": {"type": kind, **more}}


def start(**block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 1, "content_block": block}


@pytest.mark.parametrize(
    ("event", "texts", "running"),
    [
        (delta("text_delta", text="hi"), ["hi"], [(2, "text")]),
        (delta("thinking_delta", thinking="hi"), ["hi"], [(2, "thinking")]),
        (delta("input_json_delta", partial_json='{"hi'), ['{"hi'], [(2, "partial_json")]),
        (delta("compaction_delta", content="hi"), ["hi"], [(2, "content")]),
        (delta("signature_delta", signature="s"), ["~s"], [(2, "thinking")]),
        (delta("signature_delta", signature=""), [], []),
        (delta("signature_delta"), [], []),
        (delta("text_delta", text=""), [], []),
        (delta("text_delta", text=["hi"]), ["hi"], [(2, "text", 0)]),
        (delta("text_delta", text="hi", thinking="hi"), ["hi", "hi"], [(2, "text"), (2, "thinking")]),
        (
            delta("citations_delta", citation={"type": "a", "cited_text": "hi", "encrypted_index": "ZQ=="}),
            ["hi"],
            [(2, "citation", "cited_text")],
        ),
        (delta("from_next_year", note="hi"), ["hi"], [(2, "note")]),
        ({"type": "content_block_delta", "delta": {"text": "hi"}}, ["hi"], [(0, "text")]),
        ({"type": "content_block_delta", "index": "1", "delta": {"text": "hi"}}, ["hi"], [(0, "text")]),
        ({"type": "content_block_delta", "index": 1, "delta": None}, [], []),
        (start(type="text", text="hi"), ["hi"], [(1, "text")]),
        (start(type="thinking", thinking="", signature=""), [], []),
        (start(type="tool_use", id="t", name="f", input={}), [], []),
        (start(type="server_tool_use", name="f", input={"a": "hi"}), ['{"a": "hi"}'], [(1, "input")]),
        (
            start(type="web_search_tool_result", content=[{"title": "hi"}]),
            ["hi"],
            [(1, "content", 0, "title")],
        ),
        ({"type": "content_block_stop", "index": 1}, [], []),
        (
            {"type": "message_start", "message": {"id": "i", "content": [], "usage": {"service_tier": "standard"}}},
            [],
            [],
        ),
        (
            {"type": "message_start", "message": {"content": [{"type": "text", "text": "hi"}]}},
            ["hi"],
            [("message_start", "message", "content", 0, "text")],
        ),
        ({"type": "message_start"}, [], []),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": "a"}, "usage": {}}, [], []),
        (
            {"type": "message_delta", "delta": {"stop_details": {"type": "refusal", "explanation": "hi"}}},
            ["hi"],
            [(0, "stop_details", "explanation")],
        ),
        ({"type": "message_stop"}, [], []),
        ({"type": "ping"}, [], []),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "hi"}},
            ["hi"],
            [("error", "error", "message")],
        ),
        ({"type": "from_next_year", "inner": {"text": "hi"}}, ["hi"], [("from_next_year", "inner", "text")]),
        ({"type": ["ping"], "text": "hi"}, ["hi"], [("", "text")]),
        ([{"text": "hi"}], ["hi"], [("", 0, "text")]),
    ],
)
def test_texts_of_events(event: Any, texts: list[str], running: list[Any]) -> None:
    assert heard(MESSAGES, event) == texts
    assert places(MESSAGES, event) == running
    assert redacted_event(MESSAGES, event) == masked(event)


def test_arguments_are_json_and_deltas_continue_the_text_of_their_block() -> None:
    (leaf,) = MESSAGES.deltas(document(delta("input_json_delta", partial_json="{")))
    assert leaf.is_json
    (leaf,) = MESSAGES.deltas(document(delta("text_delta", text="{")))
    assert not leaf.is_json
    assert places(MESSAGES, start(text="a"), {**delta("text_delta", text="b"), "index": 1}) == [(1, "text")] * 2


def test_seal_of_a_rewritten_text_is_emptied() -> None:
    event = start(thinking="hi", signature="cw==")
    assert heard(MESSAGES, event) == ["hi", "~cw=="]
    assert places(MESSAGES, event) == [(1, "thinking")] * 2
    assert redacted_event(MESSAGES, event)["content_block"] == {"thinking": "[X]", "signature": ""}
    event = delta("compaction_delta", content="hi", encrypted_content="ZQ==")
    assert places(MESSAGES, event) == [(2, "content")] * 2
    assert redacted_event(MESSAGES, event)["delta"] == {
        "type": "compaction_delta",
        "content": "[X]",
        "encrypted_content": "",
    }


def test_message_stop_ends_a_stream() -> None:
    assert MESSAGES.is_final("{}", document({"type": "message_stop"}))
    assert not MESSAGES.is_final("{}", document({"type": "message_delta"}))
    # Servers that copy the API end their streams like OpenAI's.
    assert MESSAGES.is_final("[DONE]", None)
    assert not MESSAGES.is_final("{}", None)
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
