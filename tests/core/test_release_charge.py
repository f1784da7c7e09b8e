"""What a stream counts as held, compared with the memory that it takes."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.release_queue import ReleaseQueue

EVENTS = 400


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def delta(**content: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": content}]})


def anthropic(index: int, **content: str) -> bytes:
    return event({"type": "content_block_delta", "index": index, "delta": content})


PART = {"output_index": 0, "content_index": 0}
SHAPES: dict[str, tuple[Dialect, list[bytes]]] = {
    "no text": (OpenAIChat(), [b"data:{}\n\n"]),
    "a role": (OpenAIChat(), [delta(role="assistant")]),
    "a token": (OpenAIChat(), [delta(content="a")]),
    "an emoji": (OpenAIChat(), [delta(content="a" * 100 + "\U0001f600")]),
    "a long text": (OpenAIChat(), [delta(content="a" * 5000)]),
    "a refusal": (OpenAIChat(), [delta(refusal="a")]),
    "arguments": (OpenAIChat(), [delta(tool_calls=[{"index": 0, "function": {"arguments": "a"}}])]),
    "token ids": (OpenAIChat(), [event({"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [1]}]})]),
    "many choices": (
        OpenAIChat(),
        [event({"choices": [{"index": index, "delta": {"content": "a"}} for index in range(20)]})],
    ),
    "a foreign line": (Generic(), [b"x\n\n"]),
    "an unknown text": (Generic(), [event({"a": "x y"})]),
    "many unknown texts": (Generic(), [event({"a": ["x"] * 20})]),
    "joined texts": (Generic(), [event({"a": ["x"] * 100})]),
    "a delta": (OpenAIResponses(), [event({"type": "response.output_text.delta", **PART, "delta": "a"})]),
    "repeats": (
        OpenAIResponses(),
        [
            event({"type": "response.output_text.delta", **PART, "delta": "a"}),
            event({"type": "response.output_text.done", **PART, "text": "a"}),
        ],
    ),
    "signatures": (
        AnthropicMessages(),
        [
            anthropic(0, type="thinking_delta", thinking="a"),
            anthropic(0, type="signature_delta", signature="abcdefgh"),
        ],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_held_bytes_are_about_the_memory_that_small_events_take(name: str) -> None:
    dialect, shape = SHAPES[name]
    queue, decoder = ReleaseQueue(dialect, "c"), EventDecoder(1 << 20)

    def take(times: int) -> None:
        for _ in range(times):
            for raw in shape:
                for unit in decoder.feed(bytes(bytearray(raw))):  # each event has bytes of its own
                    queue.add(unit)

    take(5)  # what is kept once
    before = queue.held + queue.kept
    tracemalloc.start()
    try:
        take(EVENTS)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    counted = queue.held + queue.kept - before
    assert taken / 1.1 < counted < 2 * taken


def test_repeats_of_a_long_text_are_held_only_as_they_came() -> None:
    """They wait for the last word of Aim, however late it says it, so the limit must have room for several of them."""
    dialect, said = OpenAIResponses(), "a" * 100_000
    repeat = event({"type": "response.output_text.done", **PART, "text": said})
    raws = [event({"type": "response.output_text.delta", **PART, "delta": said}), *[repeat] * 4]
    queue, decoder = ReleaseQueue(dialect, "c"), EventDecoder(1 << 20)
    for raw in raws:
        for unit in decoder.feed(raw):
            queue.add(unit)
    assert queue.held < 3 * len(raws[0]) + 4 * 2.1 * len(repeat)
