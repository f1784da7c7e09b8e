"""Ollama's own API: what is read of requests, answers and lines, and how they end in a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect
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

OLLAMA, EMBED = ALL["ollama"], ALL["ollama embeddings"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
CALL = {"function": {"name": "f", "arguments": {"city": "hi there"}}}


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "model": "llama3.2:3b",
                "keep_alive": "5m",
                "think": "high",
                "options": {"temperature": 0.5, "num_ctx": 9},
                "messages": [
                    {"role": "system", "content": "hi a"},
                    {"role": "user", "content": "hi b", "images": [PNG]},
                    {"role": "assistant", "content": "", "thinking": "hi c", "tool_calls": [CALL]},
                    {"role": "tool", "tool_name": "f", "content": "hi d"},
                ],
            },
            [
                ("system", "hi a"),
                ("user", "hi b"),
                ("assistant", "hi c"),
                ("assistant", '{"city": "hi there"}'),
                ("user", "hi d"),
            ],
        ),
        (
            {
                "model": "m",
                "prompt": "hi a",
                "suffix": "hi b",
                "system": "hi c",
                "template": "hi d",
                "images": [PNG],
                "raw": True,
            },
            [("user", "hi a"), ("user", "hi b"), ("system", "hi c"), ("system", "hi d")],
        ),
        ({"prompt": "hi", "options": {"stop": ["hi there"]}, "format": "json"}, [("user", "hi"), ("user", "hi there")]),
        ({"prompt": "hi", "images": ["aGkgdGhlcmU="]}, [("user", "hi"), ("user", "hi there")]),
        ({"prompt": "hi", "context": []}, [("user", "hi")]),
    ],
)
def test_texts_of_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(OLLAMA, body) == texts
    expected = json.dumps(masked(body)).replace("aGkgdGhlcmU=", "W1hdIHRoZXJl")  # base64 of the redacted text
    assert redacted_request(OLLAMA, body) == json.loads(expected)


def test_format_and_tools_are_definitions() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "description": "hi a"}}}
    body = {
        "prompt": "hi",
        "format": schema,
        "tools": [{"type": "function", "function": {"name": "f", "description": "hi b"}}],
    }
    assert asked(OLLAMA, body) == [("user", "hi")]
    assert asked(OLLAMA, body, tools=True) == [("system", "hi a"), ("system", "hi b"), ("user", "hi")]


@pytest.mark.parametrize("body", [{"prompt": "a", "context": [1, 2]}, {"prompt": 1}, {"Messages": []}])
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(OLLAMA, body)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "model": "m",
                "created_at": "2025-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": "hi a", "thinking": "hi b", "tool_calls": [CALL]},
                "done": True,
                "done_reason": "stop",
                "total_duration": 9,
            },
            ["hi a", "hi b", '{"city": "hi there"}'],
        ),
        ({"response": "hi a", "thinking": "hi b", "note": "hi c", "done": True}, ["hi a", "hi b", "hi c"]),
    ],
)
def test_texts_of_answers_and_lines(body: Any, texts: list[str]) -> None:
    assert said(OLLAMA, body) == texts
    assert redacted_answer(OLLAMA, body) == masked(body)
    assert heard(OLLAMA, body) == texts
    assert redacted_event(OLLAMA, body) == masked(body)


def test_tokens_become_null() -> None:
    body = {
        "response": "hi",
        "context": [1, 2],
        "logprobs": [{"token": "hi", "logprob": -1, "bytes": [104]}],
        "done": True,
    }
    assert redacted_answer(OLLAMA, body) == masked(body) | {"context": None, "logprobs": None}


def test_content_and_thinking_run_through_the_lines() -> None:
    first, second = ({"message": {"content": text}} for text in "ab")
    thought = {"message": {"thinking": "c"}}
    one, two, three = places(OLLAMA, first, second, thought)
    assert one == two != three


@pytest.mark.parametrize(
    ("body", "streams"), [({}, True), ({"stream": True}, True), ({"stream": None}, True), ({"stream": False}, False)]
)
def test_request_streams_unless_it_says_no(body: Any, streams: bool) -> None:
    assert OLLAMA.streams(document(body), "/api/chat") is streams
    assert not EMBED.streams(document(body), "/api/embed")


def test_end_of_a_stream() -> None:
    assert OLLAMA.is_final("", document({"done": True}))
    assert not OLLAMA.is_final("", document({"done": False}))
    assert OLLAMA.is_final("[DONE]", None)


@pytest.mark.parametrize(
    ("body", "texts"),
    [({"input": "hi"}, ["hi"]), ({"input": ["hi a", "hi b"]}, ["hi a", "hi b"]), ({"prompt": "hi"}, ["hi"])],
)
def test_texts_of_embeddings(body: Any, texts: list[str]) -> None:
    assert EMBED.opt_in is Inspect.EMBEDDINGS
    assert asked(EMBED, body) == [("user", text) for text in texts]
    assert redacted_request(EMBED, body) == masked(body)
    assert said(EMBED, {"model": "m", "embeddings": [[0.5]], "total_duration": 1}) == []


def test_refusals() -> None:
    assert json.loads(OLLAMA.refuse(blocked("No."))) == json.loads(EMBED.refuse(blocked("No."))) == {"error": "No."}
    assert OLLAMA.refuse_lines(blocked("No.")) == b'{"error": "No."}\n'
    assert OLLAMA.refuse_stream(blocked("No."), 0) == b'data: {"error": "No."}\n\n'
