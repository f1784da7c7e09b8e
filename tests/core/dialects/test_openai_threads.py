"""OpenAI's assistants, threads and runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.endpoints import ALL
from extproc.core.dialects.leaf import Kind
from extproc.core.refusal import blocked
from extproc.core.release_queue import ReleaseQueue
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

API = ALL["openai-threads"]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "messages": [
                    {"role": "user", "content": "hi a", "attachments": [{"file_id": "f", "tools": [{"type": "x"}]}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "hi b"}]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "https://a.example/b", "detail": "low"}}
                        ],
                    },
                ],
                "metadata": {"note": "hi c"},
            },
            [("user", "hi a"), ("assistant", "hi b"), ("user", "hi c")],
        ),
        ({"role": "user", "content": "hi"}, [("user", "hi")]),
        ({"role": "user", "content": [{"type": "text", "text": "hi"}]}, [("user", "hi")]),
        (
            {
                "assistant_id": "asst_1",
                "instructions": "hi a",
                "additional_instructions": "hi b",
                "additional_messages": [{"role": "user", "content": "hi c"}],
                "thread": {"messages": [{"role": "assistant", "content": "hi d"}]},
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "truncation_strategy": {"type": "auto"},
            },
            [("system", "hi a"), ("system", "hi b"), ("user", "hi c"), ("assistant", "hi d")],
        ),
        (
            {"tool_outputs": [{"tool_call_id": "c", "output": "hi a"}, {"output": "hi b"}]},
            [("tool", "hi a"), ("user", "hi b")],
        ),
        (
            {"model": "m", "name": "Helper", "description": "hi a", "instructions": "hi b"},
            [("user", "Helper"), ("user", "hi a"), ("system", "hi b")],
        ),
    ],
)
def test_texts_of_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(API, body) == texts
    assert redacted_request(API, body) == masked(body)


def test_tools_are_read_on_request() -> None:
    body = {"assistant_id": "a", "tools": [{"type": "function", "function": {"name": "f", "description": "hi"}}]}
    assert asked(API, body) == []
    assert asked(API, body, tools=True) == [("system", "hi")]


MESSAGE = {
    "id": "msg_1",
    "object": "thread.message",
    "content": [
        {
            "type": "text",
            "text": {"value": "hi a", "annotations": [{"text": "hi b", "file_citation": {"file_id": "f"}}]},
        }
    ],
}
STEP = {
    "id": "step_1",
    "object": "thread.run.step",
    "step_details": {
        "type": "tool_calls",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '"hi"', "output": "hi c"}},
            {
                "id": "b",
                "type": "code_interpreter",
                "code_interpreter": {"input": "hi d", "outputs": [{"logs": "hi e"}]},
            },
            {"id": "c", "type": "file_search", "file_search": {"results": [{"content": [{"text": "hi f"}]}]}},
        ],
    },
}


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (MESSAGE, ["hi a", "hi b"]),
        ({"object": "list", "data": [MESSAGE], "first_id": "msg_1", "has_more": False}, ["hi a", "hi b"]),
        (STEP, ['"hi"', "hi c", "hi d", "hi e", "hi f"]),
        (
            {
                "id": "run_1",
                "instructions": "hi a",
                "required_action": {
                    "submit_tool_outputs": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '"hi"'}}]}
                },
                "last_error": {"code": "server_error", "message": "hi b"},
                "incomplete_details": {"reason": "max_completion_tokens"},
                "tool_choice": "auto",
            },
            ["hi a", '"hi"', "hi b"],
        ),
    ],
)
def test_texts_of_answers(body: Any, texts: list[str]) -> None:
    assert said(API, body) == texts
    assert redacted_answer(API, body) == masked(body)


def delta(index: int, text: str) -> dict[str, Any]:
    content = [{"index": index, "type": "text", "text": {"value": text}}]
    return {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": content}}


def call(arguments: str) -> dict[str, Any]:
    calls = [{"index": 1, "type": "function", "function": {"arguments": arguments}}]
    return {"id": "step_1", "object": "thread.run.step.delta", "delta": {"step_details": {"tool_calls": calls}}}


@pytest.mark.parametrize(
    ("event", "texts"),
    [
        (delta(0, "hi"), ["hi"]),
        (call('"hi"'), ['"hi"']),
        (MESSAGE, ["=hi a", "=hi b"]),
        ({"id": "run_1", "object": "thread.run", "status": "queued", "instructions": "hi there"}, ["=hi there"]),
        ({"error": {"message": "hi there", "code": "server_error", "param": None}}, ["hi there"]),
    ],
)
def test_texts_of_events(event: Any, texts: list[str]) -> None:
    assert heard(API, event) == texts
    assert redacted_event(API, event) == masked(event)


def test_object_repeats_its_deltas() -> None:
    assert places(API, delta(0, "a"), MESSAGE)[:2] == [("msg_1", "content", 0, "text", "value")] * 2
    whole = {
        "id": "step_1",
        "object": "thread.run.step",
        "step_details": {"tool_calls": [{}, {"function": {"arguments": '"a"'}}]},
    }
    assert places(API, call('"'), whole) == [("step_1", "step_details", "tool_calls", 1, "function", "arguments")] * 2
    (leaf,) = API.deltas(document(whole))
    assert leaf.kind is Kind.REPEAT


def test_end_and_refusals() -> None:
    assert API.is_final("[DONE]", None)
    assert not API.is_final("", document({"object": "thread.run"}))
    refusal = blocked("No.")
    assert json.loads(API.refuse(refusal))["error"]["message"] == "No."
    assert API.refuse_stream(refusal, 0) == (
        b"event: error\ndata: " + API.refuse(refusal) + b"\n\nevent: done\ndata: [DONE]\n\n"
    )


def test_call_whose_pieces_something_else_interrupts_is_read_again_as_a_whole() -> None:
    """Aim has not read `Oslo` in one piece."""

    def step(kind: str, arguments: Any, **more: Any) -> dict[str, Any]:
        call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        details = {"step_details": {"type": "tool_calls", "tool_calls": [call]}}
        return {"id": "s1", "object": kind, **(details if not more else {"delta": details})}

    events = [
        step("thread.run.step.delta", '{"city": "Os', of="delta"),
        step("thread.run.step.delta", {"zq": "a b"}, of="delta"),
        step("thread.run.step.delta", 'lo"}', of="delta"),
        step("thread.run.step", '{"city": "Oslo"}'),
    ]
    queue, decoder = ReleaseQueue(API, "c"), EventDecoder(1 << 20)
    chunks = [
        json.loads(chunk)
        for event in events
        for unit in decoder.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
        for chunk in queue.add(unit)
    ]
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert texts == ['{"city": "Os', '{"zq": "a b"}', 'lo"}', '{"city": "Oslo"}']
