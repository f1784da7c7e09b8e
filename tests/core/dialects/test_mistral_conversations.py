"""Mistral's conversations, agents and OCR."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
from extproc.core.refusal import blocked
from tests.fakes.reading import (
    asked,
    document,
    heard,
    masked,
    places,
    redacted_answer,
    redacted_event,
    redacted_request,
    said,
)

API = ALL["mistral-conversations"]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"model": "m", "inputs": "hi", "stream": True, "handoff_execution": "server"}, [("user", "hi")]),
        (
            {
                "instructions": "hi a",
                "completion_args": {"stop": ["hi b"], "tool_choice": "auto"},
                "inputs": [
                    {"role": "user", "content": "hi c"},
                    {"role": "assistant", "type": "message.output", "content": [{"type": "text", "text": "hi d"}]},
                    {"type": "function.call", "tool_call_id": "c", "name": "f", "arguments": {"q": "hi e"}},
                    {"type": "function.result", "tool_call_id": "c", "result": "hi f"},
                    {"type": "function.result", "result": "hi g"},
                    {"role": "user", "content": [{"type": "image_url", "image_url": "https://a.example/b.png"}]},
                    {"type": "tool.execution", "name": "web_search", "arguments": "hi h"},
                ],
            },
            [
                ("system", "hi a"),
                ("user", "hi b"),
                ("user", "hi c"),
                ("assistant", "hi d"),
                ("assistant", '{"q": "hi e"}'),
                ("tool", "hi f"),
                ("user", "hi g"),
                ("assistant", "hi h"),
            ],
        ),
        (
            {
                "model": "mistral-ocr-latest",
                "document": {"type": "document_url", "document_url": "https://a.example/b.pdf"},
                "document_annotation_prompt": "hi",
            },
            [("user", "hi")],
        ),
        ({"name": "helper", "description": "hi a", "instructions": "hi b"}, [("user", "hi a"), ("system", "hi b")]),
    ],
)
def test_texts_of_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(API, body) == texts
    assert redacted_request(API, body) == masked(body)


def test_tools_are_read_on_request() -> None:
    body = {"inputs": "hi", "tools": [{"type": "function", "function": {"name": "f", "description": "hi a"}}]}
    assert asked(API, body) == [("user", "hi")]
    assert sorted(asked(API, body, tools=True)) == [("system", "hi a"), ("user", "hi")]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "object": "conversation.response",
                "conversation_id": "conv_1",
                "outputs": [
                    {"type": "message.output", "content": "hi a", "role": "assistant", "model": "m"},
                    {"type": "message.output", "content": [{"type": "text", "text": "hi b"}, {"title": "hi c"}]},
                    {"type": "function.call", "name": "f", "arguments": '{"q": "[hi]"}'},
                    {"type": "agent.handoff", "previous_agent_name": "a", "next_agent_name": "b"},
                ],
            },
            ["hi a", "hi b", '{"q": "[hi]"}', "hi c"],
        ),
        ({"entries": [{"type": "message.input", "content": "hi"}]}, ["hi"]),
        ({"messages": [{"type": "message.output", "content": "hi"}]}, ["hi"]),
        ({"pages": [{"index": 0, "markdown": "hi a"}], "document_annotation": "hi b"}, ["hi a", "hi b"]),
    ],
)
def test_texts_of_answers(body: Any, texts: list[str]) -> None:
    assert said(API, body) == texts
    assert redacted_answer(API, body) == masked(body)


@pytest.mark.parametrize(
    ("event", "texts"),
    [
        ({"type": "conversation.response.started", "conversation_id": "conv_1"}, []),
        ({"type": "message.output.delta", "content": "hi", "role": "assistant"}, ["hi"]),
        ({"type": "message.output.delta", "content": {"type": "text", "text": "hi"}}, ["hi"]),
        ({"type": "message.output.delta", "content": {"type": "tool_reference", "tool": "web", "title": "hi"}}, ["hi"]),
        ({"type": "message.output.delta", "content": {"thinking": [{"type": "text", "text": "hi"}]}}, ["hi"]),
        ({"type": "function.call.delta", "name": "f", "arguments": '"hi"'}, ['"hi"']),
        ({"type": "tool.execution.done", "name": "f", "info": {"note": "hi"}}, ["hi"]),
        ({"type": "conversation.response.error", "message": "hi there", "code": 3000}, ["hi there"]),
    ],
)
def test_texts_of_events(event: Any, texts: list[str]) -> None:
    assert heard(API, event) == texts
    assert redacted_event(API, event) == masked(event)


def test_pieces_of_a_part_are_one_running_text() -> None:
    delta = {"type": "message.output.delta", "output_index": 1, "content_index": 2}
    string, part = {**delta, "content": "a"}, {**delta, "content": {"text": "b"}}
    other, call = (
        {**delta, "content_index": 3, "content": "c"},
        {**delta, "type": "function.call.delta", "arguments": "d"},
    )
    found = places(API, string, part, other, call)
    assert found[0] == found[1] == ("message.output", 1, 2, "text")
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("event", "is_final"),
    [
        ({"type": "conversation.response.done"}, True),
        ({"type": "conversation.response.error"}, True),
        ({"type": "message.output.delta"}, False),
        ({}, False),
    ],
)
def test_end_of_a_stream(event: Any, is_final: bool) -> None:
    assert API.is_final("", document(event)) is is_final
    assert API.is_final("[DONE]", None)


def test_refusals() -> None:
    error = json.loads(API.refuse(blocked("No.")))
    assert (error["object"], error["message"], error["code"]) == ("error", "No.", "content_policy_violation")
    event = {"type": "conversation.response.error", "message": "No.", "code": 400}
    assert API.refuse_stream(blocked("No."), 0) == (
        b"event: conversation.response.error\ndata: " + json.dumps(event).encode() + b"\n\n"
    )
