"""OpenAI's legacy completions: prompts, texts of every choice, streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.errors import MalformedBody
from extproc.core.refusal import UNAVAILABLE, blocked
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

COMPLETIONS = OpenAICompletions()


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"prompt": "hi a"}, ["hi a"]),
        ({"prompt": ["hi a", "", "hi b"]}, ["hi a", "hi b"]),
        ({"prompt": [["hi a"], ["hi b"]]}, ["hi a", "hi b"]),
        ({"prompt": {"text": "hi a", "note": "hi", "n": 1}}, ["hi a", "hi"]),
        ({"prompt": "hi a", "suffix": "hi b", "user": "c", "model": "e"}, ["hi a", "hi b"]),
        ({"prompt": "hi a", "stop": ["hi"]}, ["hi a", "hi"]),
        ({"prompt": "hi a", "user": "say hi"}, ["hi a", "say hi"]),
        ({"suffix": "hi"}, ["hi"]),
        ({"input": ["hi a", "hi b"]}, ["hi a", "hi b"]),
        ({"messages": [{"role": "user", "content": "hi"}]}, ["hi"]),
        ({"prompt": ""}, []),
        ({"prompt": None}, []),
        ({"prompt": []}, []),
        ({}, []),
    ],
)
def test_texts_of_requests(body: Any, texts: list[str]) -> None:
    assert asked(COMPLETIONS, body) == [("user", text) for text in texts]
    assert redacted_request(COMPLETIONS, body) == masked(body)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": ["a", 1]},
        {"prompt": 7},
        {"prompt": [*["a"] * 300, 7]},
        {"prompt": [*["a"] * 300, [7]]},
        {"prompt": [*["a"] * 300, {"Text": 7}, ["b", 7]]},
        {"prompt": True},
        {"suffix": [0]},
        {"prompt_embeds": "AAAA"},
        {"prompt_token_ids": [1]},
        {"Prompt": "a"},
        {"messages": 1},
        [],
        "7",
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    for locates in (False, True):
        with pytest.raises(MalformedBody):
            COMPLETIONS.prompts(document(body), tools=False, locates=locates)


@pytest.mark.parametrize(
    ("choices", "texts"),
    [
        ([{"text": "hi a"}, {"text": "hi b"}], ["hi a", "hi b"]),
        ([{"text": "", "finish_reason": "stop"}], []),
        ([{"text": None}], []),
        ([{"text": ["hi a", "hi b"]}], ["hi a", "hi b"]),
        ([{"text": "hi a", "reasoning": "hi b"}], ["hi a", "hi b"]),
        ([{"message": {"content": "hi"}, "index": 3}], ["hi"]),
        ([7, {"text": "hi"}], ["hi"]),
        ([], []),
        ({"text": "hi"}, ["hi"]),
        ("hi", ["hi"]),
        (None, []),
    ],
)
def test_texts_of_answers_and_events(choices: Any, texts: list[str]) -> None:
    body = {"id": "cmpl-1", "object": "text_completion", "choices": choices, "usage": {"total_tokens": 1}}
    assert said(COMPLETIONS, body) == heard(COMPLETIONS, body) == texts
    assert redacted_answer(COMPLETIONS, body) == redacted_event(COMPLETIONS, body) == masked(body)


def test_unnamed_texts_of_an_answer_are_one() -> None:
    body = {"more": ["hi a", {"n": "hi b"}], "choices": [{"text": "hi c", "note": "hi d"}], "model": "m"}
    assert said(COMPLETIONS, body) == ["hi c", "hi a\nhi b\nhi d"]
    assert redacted_answer(COMPLETIONS, body) == masked(body)
    assert heard(COMPLETIONS, body) == ["hi a", "hi b", "hi c", "hi d"]
    assert said(COMPLETIONS, [{"text": "hi a"}, {"n": "hi b"}]) == ["hi a\nhi b"]


def test_running_texts_of_a_choice_have_its_index() -> None:
    """Choices take turns, each alone in its event. Texts of different choices are never joined."""
    first = {"choices": [{"index": 0, "text": "a", "reasoning": "b"}]}
    second = {"choices": [{"index": 1, "text": "a", "reasoning": "b"}]}
    assert places(COMPLETIONS, first) == [("choices", 0, "text"), ("choices", 0, "reasoning")]
    assert places(COMPLETIONS, second) == [("choices", 1, "text"), ("choices", 1, "reasoning")]
    assert places(COMPLETIONS, {"choices": [{"text": "a"}]}) == [("choices", 0, "text")]


LOGPROBS = {"tokens": ["hi"], "top_logprobs": [{"hi": -0.1}], "token_logprobs": [-0.1], "text_offset": [0]}


def test_rewritten_choice_loses_its_tokens_in_every_spelling() -> None:
    choice = {"index": 0, "text": "hi", "logprobs": LOGPROBS, "token_ids": [1], "prompt_logprobs": None}
    other = {"index": 1, "text": "a", "logprobs": {"tokens": ["a"]}}
    after = {"choices": [{**choice, "text": "[X]", "logprobs": None, "token_ids": None}, other], "n": 1.5}
    assert redacted_answer(COMPLETIONS, {"choices": [choice, other], "n": 1.50}) == after
    event = {"choices": [{"reasoning": "hi", "logprobs": LOGPROBS}]}
    assert heard(COMPLETIONS, event) == ["hi", "#"]
    leaves = COMPLETIONS.deltas(document(event))
    assert [leaf.unit for leaf in leaves] == [("choices", 0)] * 2


def test_sentence_in_place_of_a_token_is_read() -> None:
    prompt_logprobs = [None, {"1001": {"rank": 1, "decoded_token": "hi to all"}}]
    body = {"choices": [{"text": "a", "prompt_logprobs": prompt_logprobs}]}
    assert said(COMPLETIONS, body) == ["a", "hi to all"]
    assert redacted_answer(COMPLETIONS, body) == {"choices": [{"text": "a", "prompt_logprobs": None}]}


def test_done_mark_ends_a_stream() -> None:
    assert COMPLETIONS.streams(document({"stream": True}), "/v1/completions")
    assert not COMPLETIONS.streams(document({"stream": False}), "/v1/completions")
    assert not COMPLETIONS.streams(document({}), "/v1/completions")
    assert COMPLETIONS.is_final("[DONE]", None)
    assert not COMPLETIONS.is_final("{}", None)
    assert not COMPLETIONS.is_final("{}", document({}))
    # Aim reads only `delta.content`, so texts are submitted one by one.
    assert not COMPLETIONS.is_submitted_whole(document({"choices": [{"text": "a"}]}))


def test_refusals_have_the_shape_of_the_api() -> None:
    error = {"message": "no", "type": "invalid_request_error", "param": None, "code": "content_policy_violation"}
    assert json.loads(COMPLETIONS.refuse(blocked("no"))) == {"error": error}
    assert COMPLETIONS.refuse_stream(UNAVAILABLE, 5) == (
        b'data: {"error": {"message": "The AI security service is unavailable.", "type": "api_error", '
        b'"param": null, "code": "guardrail_unavailable"}}\n\ndata: [DONE]\n\n'
    )
