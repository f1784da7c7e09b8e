"""Cohere's chat: what is read of requests, answers, events and lines, and how they end in a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
from extproc.core.dialects.leaf import Kind
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

V2, V1 = ALL["cohere-chat"], ALL["cohere-chat v1"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (
            V2,
            {
                "model": "command-a",
                "stream": True,
                "safety_mode": "STRICT",
                "thinking": {"type": "enabled", "token_budget": 9},
                "messages": [
                    {"role": "system", "content": "hi a"},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "hi b"},
                            {
                                "type": "image_url",
                                "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"},
                            },
                        ],
                    },
                    {
                        "role": "assistant",
                        "tool_plan": "hi c",
                        "tool_calls": [
                            {"id": "f0", "type": "function", "function": {"name": "f", "arguments": '{"a": "hi"}'}}
                        ],
                    },
                    {
                        "role": "tool",
                        "tool_call_id": "f0",
                        "content": [{"type": "document", "document": {"id": "1", "data": {"row": "hi d"}}}],
                    },
                ],
            },
            [
                ("system", "hi a"),
                ("user", "hi b"),
                ("assistant", "hi c"),
                ("assistant", '{"a": "hi"}'),
                ("tool", "hi d"),
            ],
        ),
        (
            V2,
            {
                "messages": [{"role": "user", "content": "hi"}],
                "documents": ["hi a", {"id": "d", "data": {"t": "hi b"}}],
            },
            [("user", "hi"), ("user", "hi a"), ("user", "hi b")],
        ),
        (
            V2,
            {"messages": [{"role": "tool", "content": "hi"}], "documents": [{"data": {"url": "https://a.example/b"}}]},
            [("user", "hi")],
        ),
        (
            V1,
            {
                "message": "hi a",
                "preamble": "hi b",
                "chat_history": [
                    {"role": "USER", "message": "hi c"},
                    {"role": "CHATBOT", "message": "hi d", "tool_calls": [{"name": "f", "parameters": {"q": "hi e"}}]},
                    {"role": "SYSTEM", "message": "hi f"},
                ],
                "documents": [{"title": "hi g", "id": "x"}],
                "tool_results": [{"call": {"name": "f", "parameters": {"q": "hi h"}}, "outputs": [{"r": "hi i"}]}],
                "prompt_truncation": "AUTO",
                "connectors": [{"id": "web-search"}],
            },
            [
                ("user", "hi a"),
                ("system", "hi b"),
                ("user", "hi c"),
                ("assistant", "hi d"),
                ("assistant", '{"q": "hi e"}'),
                ("system", "hi f"),
                ("user", "hi g"),
                ("assistant", '{"q": "hi h"}'),
                ("user", "hi i"),
            ],
        ),
    ],
)
def test_texts_of_requests(dialect: Any, body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(dialect, body) == texts
    assert redacted_request(dialect, body) == json.loads(
        json.dumps(masked(body)).replace('"{\\"a\\": \\"hi\\"}"', '"{\\"a\\": \\"[X]\\"}"')
    )


@pytest.mark.parametrize("dialect", [V2, V1])
def test_tools_are_read_on_request(dialect: Any) -> None:
    body = {
        "tools": [
            {"name": "f", "description": "hi a", "parameter_definitions": {"q": {"description": "hi b", "type": "str"}}}
        ]
    }
    assert asked(dialect, body) == []
    assert asked(dialect, body, tools=True) == [("system", "hi a\nhi b")]


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (
            V2,
            {
                "id": "a",
                "finish_reason": "COMPLETE",
                "message": {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "hi a"}, {"type": "text", "text": "hi b"}],
                    "tool_plan": "hi c",
                    "tool_calls": [{"id": "f0", "function": {"name": "f", "arguments": "hi d"}}],
                    "citations": [
                        {"start": 0, "text": "hi e", "sources": [{"type": "tool", "document": {"r": "hi f"}}]}
                    ],
                },
            },
            ["hi a", "hi b", "hi c", "hi d", "hi e\nhi f"],
        ),
        (
            V1,
            {
                "text": "hi a",
                "generation_id": "g",
                "finish_reason": "COMPLETE",
                "tool_calls": [{"name": "f", "parameters": {"q": "hi b"}}],
                "chat_history": [{"role": "CHATBOT", "message": "hi c"}],
                "citations": [{"text": "hi d", "document_ids": ["d1"]}],
                "documents": [{"id": "d1", "snippet": "hi e"}],
            },
            ["hi a", '{"q": "hi b"}', "hi c", "hi d\nhi e"],
        ),
    ],
)
def test_texts_of_answers(dialect: Any, body: Any, texts: list[str]) -> None:
    assert said(dialect, body) == texts
    assert redacted_answer(dialect, body) == masked(body)


def delta(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    return {"type": kind, "delta": {"message": message}} | ({} if index is None else {"index": index})


@pytest.mark.parametrize(
    ("dialect", "event", "texts"),
    [
        (V2, {"id": "a", **delta("message-start", role="assistant", content=[], tool_plan="")}, []),
        (V2, delta("content-start", 0, content={"type": "text", "text": ""}), []),
        (V2, delta("content-delta", 0, content={"text": "hi"}), ["hi"]),
        (V2, delta("content-delta", 0, content={"thinking": "hi"}), ["hi"]),
        (V2, delta("tool-plan-delta", tool_plan="hi"), ["hi"]),
        (
            V2,
            delta(
                "tool-call-start",
                0,
                tool_calls={"id": "f", "type": "function", "function": {"name": "f", "arguments": ""}},
            ),
            [],
        ),
        (V2, delta("tool-call-delta", 0, tool_calls={"function": {"arguments": '"hi"'}}), ['"hi"']),
        (
            V2,
            delta("citation-start", 0, citations={"text": "hi a", "sources": [{"document": {"t": "hi b"}}]}),
            ["hi a", "hi b"],
        ),
        (V2, {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "hi there"}}, ["hi there"]),
        (V1, {"event_type": "stream-start", "generation_id": "g", "is_finished": False}, []),
        (V1, {"event_type": "text-generation", "text": "hi", "is_finished": False}, ["hi"]),
        (
            V1,
            {"event_type": "tool-calls-chunk", "tool_call_delta": {"name": "f", "index": 0, "parameters": '"hi"'}},
            ['"hi"'],
        ),
        (V1, {"event_type": "citation-generation", "citations": [{"text": "hi", "document_ids": ["d_1"]}]}, ["hi"]),
        (
            V1,
            {
                "event_type": "stream-end",
                "finish_reason": "COMPLETE",
                "response": {"text": "hi", "documents": [{"t": "hi b"}]},
            },
            ["=hi", "=hi b"],
        ),
    ],
)
def test_texts_of_events(dialect: Any, event: Any, texts: list[str]) -> None:
    assert heard(dialect, event) == texts
    assert redacted_event(dialect, event) == masked(event)


def test_contents_calls_and_plan_are_running_texts_of_their_own() -> None:
    first, again = delta("content-delta", 0, content={"text": "a"}), delta("content-delta", 0, content={"text": "b"})
    other = delta("content-delta", 1, content={"text": "c"})
    plan = delta("tool-plan-delta", tool_plan="d")
    call = delta("tool-call-delta", 0, tool_calls={"function": {"arguments": "e"}})
    found = places(V2, first, again, other, plan, call)
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_last_event_of_version_1_repeats_the_text_twice() -> None:
    history = [{"role": "USER", "message": "q"}, {"role": "CHATBOT", "message": "hi"}]
    end = {
        "event_type": "stream-end",
        "response": {"text": "hi", "chat_history": history, "tool_calls": [{"name": "f", "parameters": {"a": "b c"}}]},
    }
    leaves = V1.deltas(document(end))
    assert [leaf.place for leaf in leaves if leaf.text == "hi"] == [("text",), ("text",)]
    assert {leaf.kind for leaf in leaves} == {Kind.REPEAT}
    assert [leaf.place for leaf in leaves if leaf.text == "q"] == [("chat_history", 0, "message")]
    end["response"] = {"chat_history": [*history, {"role": "USER", "message": "z"}]}
    assert ("text",) not in [leaf.place for leaf in V1.deltas(document(end))]
    assert V1.deltas(document({"event_type": "text-generation", "text": "h"}))[0].place == ("text",)


@pytest.mark.parametrize(
    ("dialect", "event", "is_final"),
    [
        (V2, {"type": "message-end"}, True),
        (V2, {"type": "content-end"}, False),
        (V1, {"event_type": "stream-end"}, True),
        (V1, {"event_type": "text-generation"}, False),
    ],
)
def test_end_of_a_stream(dialect: Any, event: Any, is_final: bool) -> None:
    assert dialect.is_final(json.dumps(event), document(event)) is is_final
    assert dialect.is_final("[DONE]", None)
    assert not dialect.is_final("x", None)


def test_tokens_become_null() -> None:
    body = {"message": {"content": [{"text": "hi"}]}, "logprobs": [{"token_ids": [1], "text": "hi", "logprobs": [-1]}]}
    assert redacted_answer(V2, body) == masked(body) | {"logprobs": None}


def test_refusals() -> None:
    refusal = blocked("Not that.")
    assert json.loads(V2.refuse(refusal)) == json.loads(V1.refuse(refusal)) == {"message": "Not that."}
    end = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "Not that."}}
    assert V2.refuse_stream(refusal, 3) == b"event: message-end\ndata: " + json.dumps(end).encode() + b"\n\n"
    line = json.loads(V1.refuse_lines(refusal))
    assert (line["event_type"], line["finish_reason"], line["error"]) == ("stream-end", "ERROR", "Not that.")
    assert V1.refuse_stream(refusal, 3) == b"data: " + V1.refuse_lines(refusal).strip() + b"\n\n"


def test_rewritten_answer_of_version_1_loses_its_logprobs() -> None:
    logprobs = [{"token_ids": [1], "text": "h"}, {"token_ids": [2], "text": "i"}]
    assert redacted_answer(V1, {"text": "hi", "logprobs": logprobs}) == {"text": "[X]", "logprobs": None}
    last = {"event_type": "stream-end", "response": {"text": "hi", "logprobs": logprobs}}
    (tokens,) = (leaf for leaf in V1.deltas(document(last)) if leaf.kind is Kind.TOKENS)
    assert (tokens.path, tokens.unit) == (("response", "logprobs"), None)
