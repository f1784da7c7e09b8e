"""Google's Interactions API: what is read of requests, interactions and events, and how they end in a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.endpoints import ALL
from extproc.core.dialects.gemini_interactions import GeminiInteractions
from extproc.core.refusal import UNAVAILABLE, blocked
from extproc.core.release_queue import ReleaseQueue
from tests.fakes.reading import (
    asked,
    document,
    heard,
    is_redactable,
    masked,
    places,
    redacted_answer,
    redacted_event,
    redacted_request,
    said,
)
from tests.fakes.world import World

API = ALL["gemini-interactions"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"model": "m", "input": "hi", "stream": True, "store": False}, [("user", "hi")]),
        ({"input": {"type": "text", "text": "hi"}}, [("user", "hi")]),
        (
            {"input": [{"type": "text", "text": "hi"}, {"type": "image", "mime_type": "image/png", "data": PNG}]},
            [("user", "hi")],
        ),
        (
            {
                "system_instruction": "hi a",
                "previous_interaction_id": "v1_a",
                "generation_config": {"thinking_level": "low", "stop_sequences": ["hi b"]},
                "input": [
                    {"role": "user", "content": "hi c"},
                    {"role": "model", "content": [{"type": "text", "text": "hi d"}]},
                ],
            },
            [("system", "hi a"), ("user", "hi b"), ("user", "hi c"), ("assistant", "hi d")],
        ),
        (
            {
                "input": [
                    {"type": "user_input", "content": [{"type": "text", "text": "hi a"}]},
                    {"type": "model_output", "content": [{"type": "text", "text": "hi b"}]},
                    {"type": "function_call", "id": "c", "name": "f", "arguments": {"q": "hi c"}},
                    {"type": "function_result", "call_id": "c", "name": "f", "result": {"rows": ["hi d"]}},
                    {"type": "function_result", "call_id": "c", "result": [{"type": "text", "text": "hi e"}]},
                    {"type": "code_execution_call", "arguments": {"code": "hi f"}},
                    {"type": "google_search_result", "result": "hi g"},
                ]
            },
            [
                ("user", "hi a"),
                ("assistant", "hi b"),
                ("assistant", '{"q": "hi c"}'),
                ("tool", "hi d"),
                ("tool", "hi e"),
                ("assistant", '{"code": "hi f"}'),
                ("user", "hi g"),
            ],
        ),
    ],
)
def test_texts_of_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(API, body) == texts
    assert redacted_request(API, body) == masked(body)


def test_tools_and_formats_are_definitions() -> None:
    body = {
        "input": "hi",
        "tools": [{"type": "function", "name": "f", "description": "hi a", "parameters": {"type": "object"}}],
        "response_format": {"type": "object", "properties": {"a": {"description": "hi b"}}},
    }
    assert asked(API, body) == [("user", "hi")]
    assert sorted(asked(API, body, tools=True)) == [("system", "hi a"), ("system", "hi b"), ("user", "hi")]


def test_signed_thought_cannot_be_redacted_in_a_request() -> None:
    thought = {"type": "thought", "signature": "c2ln", "summary": [{"type": "text", "text": "hi"}]}
    assert asked(API, {"input": [thought]}) == [("assistant", "hi")]
    assert not is_redactable(API, {"input": [thought]})


INTERACTION = {
    "id": "v1_a",
    "object": "interaction",
    "status": "completed",
    "service_tier": "standard",
    "updated": "2026-05-15T18:51:55Z",
    "usage": {"input_tokens_by_modality": [{"modality": "text", "tokens": 7}]},
    "steps": [
        {"type": "thought", "signature": "c2ln", "summary": [{"type": "text", "text": "hi a"}]},
        {"type": "function_call", "id": "c", "name": "f", "arguments": {"q": "hi b"}},
        {"type": "model_output", "content": [{"type": "text", "text": "hi c", "annotations": [{"title": "hi d"}]}]},
    ],
}


def test_texts_of_interactions() -> None:
    assert said(API, INTERACTION) == ["hi a", '{"q": "hi b"}', "hi c", "hi d"]
    expected = masked(INTERACTION)
    expected["steps"][0]["signature"] = ""
    assert redacted_answer(API, INTERACTION) == expected
    assert said(API, {"outputs": [{"type": "text", "text": "hi"}], "input": "hi there"}) == ["hi", "hi there"]


@pytest.mark.parametrize(
    ("event", "texts"),
    [
        ({"event_type": "interaction.created", "interaction": {"id": "a", "status": "in_progress"}}, []),
        ({"event_type": "interaction.status_update", "interaction_id": "a", "status": "in_progress"}, []),
        ({"event_type": "step.start", "index": 0, "step": {"type": "thought"}}, []),
        ({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "hi"}}, ["hi"]),
        (
            {
                "event_type": "step.delta",
                "index": 0,
                "delta": {"type": "thought_summary", "content": {"type": "text", "text": "hi"}},
            },
            ["hi"],
        ),
        (
            {"event_type": "step.delta", "index": 0, "delta": {"type": "thought_signature", "signature": "c2ln"}},
            ["~c2ln"],
        ),
        (
            {"event_type": "step.delta", "index": 0, "delta": {"type": "arguments_delta", "arguments": '"hi"'}},
            ['"hi"'],
        ),
        ({"event_type": "step.delta", "index": 0, "delta": {"type": "image", "data": PNG, "mime_type": "a/b"}}, []),
        ({"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": "hi"}}, ["hi"]),
        ({"event_type": "error", "error": {"code": "INTERNAL", "message": "hi there"}}, ["hi there"]),
        (
            {
                "event_type": "interaction.completed",
                "interaction": {"id": "a", "steps": [{"content": [{"text": "hi a"}]}], "note": "hi b"},
            },
            ["=hi a", "=hi b"],
        ),
    ],
)
def test_texts_of_events(event: Any, texts: list[str]) -> None:
    assert heard(API, event) == texts
    assert redacted_event(API, event) == masked(event)


def test_event_that_is_only_a_text_has_a_place() -> None:
    assert places(API, json.dumps("hi there")) == [("",)]


def test_places_of_a_step_are_the_same_in_all_events() -> None:
    delta = {"event_type": "step.delta", "index": 1, "delta": {"text": "a"}}
    start = {"event_type": "step.start", "index": 1, "step": {"content": [{"text": "b"}]}}
    whole = {"interaction": {"steps": [{}, {"content": [{"text": "c"}, {"text": "d"}], "summary": [{"text": "e"}]}]}}
    assert places(API, delta, start) == [(1, "text")] * 2
    assert places(API, whole) == [(1, "text"), (1, "content", 1, "text"), (1, "thought")]
    seal = {"event_type": "step.delta", "index": 1, "delta": {"signature": "c2ln"}}
    thought = {"event_type": "step.delta", "index": 1, "delta": {"content": {"text": "f"}}}
    assert places(API, seal, thought) == [(1, "thought")] * 2
    assert places(API, {"event_type": "step.delta", "delta": {"text": "a b"}}) == [(0, "text")]


@pytest.mark.parametrize(
    ("event", "is_final"),
    [
        ({"event_type": "interaction.completed"}, True),
        ({"event_type": "interaction.complete"}, True),
        ({"event_type": "step.stop"}, False),
        ({"event_type": []}, False),
    ],
)
def test_end_of_a_stream(event: Any, is_final: bool) -> None:
    assert API.is_final("", document(event)) is is_final
    assert API.is_final("[DONE]", None)


def test_refusals() -> None:
    assert json.loads(API.refuse(blocked("No."))) == {
        "error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}
    }
    error = {"event_type": "error", "error": {"code": "UNAVAILABLE", "message": UNAVAILABLE.message}}
    assert API.refuse_stream(UNAVAILABLE, 0) == b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"


def test_stored_interaction_is_read() -> None:
    it = World().request(None, path="/v1beta/interactions/v1_a", method="GET")
    it.head("application/json").body(json.dumps(INTERACTION).encode(), end=True)
    (question,) = it.asked
    assert [each.output for each in question.inputs] == ["hi a", '{"q": "hi b"}', "hi c", "hi d"]
    assert it.record.dialect == "gemini-interactions"


def test_stored_interaction_is_read_as_a_stream() -> None:
    it = World().request(None, path="/v1beta/interactions/v1_a?stream=true", method="GET").head()
    event = {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "hi"}}
    it.body(f"data: {json.dumps(event)}\n\n".encode())
    assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["hi"]


def test_whole_call_at_the_end_is_rewritten_with_its_pieces() -> None:
    call = {"type": "function_call", "name": "f", "arguments": {"city": "Oslo"}}
    events = [
        {"event_type": "step.delta", "index": 0, "delta": {"type": "arguments_delta", "arguments": '{"city": "Oslo"}'}},
        {"event_type": "interaction.completed", "interaction": {"id": "i1", "steps": [call]}},
    ]
    queue, decoder = ReleaseQueue(GeminiInteractions(), "c"), EventDecoder(1 << 20)
    (first,), none = [
        queue.add(unit) for event in events for unit in decoder.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    ]
    assert none == []
    chunk = json.loads(first)
    (choice,) = chunk["choices"]
    queue.verified(((choice["index"], '{"city": "[CITY]"}'),), chunk)
    queue.finish()
    released = queue.take_ready()
    assert released.count(b"[CITY]") == 2
    assert b"Oslo" not in released
