"""Answers of blocks have the types that the SDKs of OpenAI and Anthropic declare, and complete what a stream began."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from anthropic.types.message import Message
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from extproc.core.block_answers.base import DONE
from tests.core.block_answers.test_recorded import MESSAGE, RECORDINGS, STREAMS, answer_of, cuts
from tests.fakes.planted import Recording


def _of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recording", [each for each in STREAMS if each.name in names], ids=lambda e: e.name)


def _validates(kind: Any, values: list[Any]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in values:
        adapter.validate_python(value)


@_of("responses.sse", "responses-tools.sse")
def test_items_of_a_response_begin_and_end(recording: Recording) -> None:
    for before, events in cuts(recording):
        ours = [value for _, value in events]
        if not before:
            _validates(ResponseStreamEvent, ours)
        open_items: set[int] = set()
        for value in (*before, *ours):
            if value["type"] == "response.output_item.added":
                open_items.add(value["output_index"])
            elif value["type"] == "response.output_item.done":
                open_items.remove(value["output_index"])
        assert not open_items
        assert [value["sequence_number"] for value in ours] == list(range(len(before), len(before) + len(ours)))
        done = [value["item"] for value in (*before, *ours) if value["type"] == "response.output_item.done"]
        assert ours[-1]["response"]["output"] == done
        assert ours[-1]["response"]["status"] == "completed"


@_of("chat.sse", "chat-tools.sse")
def test_choices_of_a_chat_end(recording: Recording) -> None:
    for before, events in cuts(recording):
        ours = [value for _, value in events if value != DONE]
        _validates(ChatCompletionChunk, ours)
        finishes: dict[int, Any] = {}
        for value in (*before, *ours):
            finishes |= {each["index"]: each.get("finish_reason") for each in value["choices"]}
        assert set(finishes.values()) <= {"content_filter", "stop", "tool_calls"}
        assert "content_filter" in finishes.values()
        assert len({value["id"] for value in (*before, *ours)}) == 1


@_of("anthropic.sse")
def test_blocks_of_a_message_begin_and_end(recording: Recording) -> None:
    for before, events in cuts(recording):
        ours = [value for _, value in events]
        _validates(RawMessageStreamEvent, ours)
        steps = [value for value in (*before, *ours) if value["type"].startswith("content_block_st")]
        assert [value["type"] for value in steps[::2]] == ["content_block_start"] * (len(steps) // 2)
        assert [value["index"] for value in steps[::2]] == [value["index"] for value in steps[1::2]]
        assert [value["index"] for value in steps[::2]] == list(range(len(steps) // 2))
        assert ours[-2]["delta"]["stop_reason"] == "refusal"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/chat/completions", ChatCompletion),
        ("/v1/completions", Completion),
        ("/v1/responses", Response),
        ("/v1/messages", Message),
    ],
)
def test_whole_answers_have_all_fields_of_the_sdk(path: str, model: Any) -> None:
    (recording, *_) = (each for each in RECORDINGS if each.path == path)
    model.model_validate(answer_of(recording).whole(MESSAGE), strict=True)
