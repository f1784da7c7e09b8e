"""OpenAI's legacy completions: prompts, texts of every choice, streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.errors import MalformedBody
from extproc.core.refusal import UNAVAILABLE, blocked
from tests.fakes.reading import asked, document, heard, rewritten, said

COMPLETIONS = OpenAICompletions()


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"prompt": "a"}, ["prompt"]),
        ({"prompt": ["a", "", "b"]}, ["prompt[0]", "prompt[2]"]),
        ({"prompt": [["a"], ["b"]]}, ["prompt[0][0]", "prompt[1][0]"]),
        ({"prompt": {"text": "a", "n": 1}}, ["prompt.text"]),
        ({"prompt": "a", "suffix": "b", "user": "c", "stop": ["d"], "model": "e"}, ["prompt", "suffix"]),
        ({"suffix": "b"}, ["suffix"]),
        ({"prompt": ""}, []),
        ({"prompt": None}, []),
        ({"prompt": []}, []),
        ({}, []),
        ([], []),
    ],
)
def test_texts_of_requests_are_found(body: Any, places: list[str]) -> None:
    assert asked(COMPLETIONS, body) == [("user", place) for place in places]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": ["a", 1]},
        {"prompt": 7},
        {"prompt": True},
        {"suffix": [0]},
        '{"prompt":"a","prompt":"b"}',
        '{"prompt":{"text":"a","text":"b"}}',
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(COMPLETIONS, body)


@pytest.mark.parametrize(
    ("choices", "places"),
    [
        ([{"text": "a"}, {"text": "b"}], ["choices[0].text", "choices[1].text"]),
        ([{"text": "", "finish_reason": "stop"}], []),
        ([{"text": None}], []),
        ([{"text": ["a", {"text": "b"}]}], ["choices[0].text[0]", "choices[0].text[1].text"]),
        ([{"text": "a", "reasoning": "b"}], ["choices[0].text", "choices[0].reasoning"]),
        ([{"message": {"content": "a"}, "index": 3}], ["choices[0].message.content"]),
        ([7, {"text": "a"}], ["choices[1].text"]),
        ([], []),
        ({"text": "a"}, ["choices.text"]),
        (None, []),
    ],
)
def test_texts_of_answers_and_events_are_found(choices: Any, places: list[str]) -> None:
    body = {"id": "cmpl-1", "object": "text_completion", "choices": choices, "usage": {"total_tokens": 1}}
    assert said(COMPLETIONS, body) == places
    assert heard(COMPLETIONS, body) == places


def test_answers_of_unknown_shape_are_searched() -> None:
    assert said(COMPLETIONS, {"content": "a", "model": "b", "inner": [{"text": "c"}]}) == ["content", "inner[0].text"]
    assert said(COMPLETIONS, [{"text": "b"}, {"n": "c"}]) == ["[0].text"]


def test_running_texts_of_a_choice_have_its_index() -> None:
    """Choices take turns, each alone in its event. Texts of different choices are never joined."""
    first = document({"choices": [{"index": 0, "text": "a", "reasoning": "b"}]})
    second = document({"choices": [{"index": 1, "text": "a", "reasoning": "b"}]})
    assert [leaf.place for leaf in COMPLETIONS.deltas(first)] == [(0, "text"), (0, "reasoning")]
    assert [leaf.place for leaf in COMPLETIONS.deltas(second)] == [(1, "text"), (1, "reasoning")]
    assert [leaf.place for leaf in COMPLETIONS.deltas(document({"choices": [{"text": "a"}]}))] == [(0, "text")]
    # In a whole answer the position counts: two choices with the same index are two texts.
    twice = {"choices": [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}]}
    assert [leaf.place for leaf in COMPLETIONS.answers(document(twice))] == [(0, "text"), (1, "text")]


def test_rewritten_choice_loses_its_logprobs() -> None:
    logprobs = {"tokens": ["secret"], "top_logprobs": [{"secret": -0.1}], "token_logprobs": [-0.1], "text_offset": [0]}
    body = {"choices": [{"index": 0, "text": "secret", "logprobs": logprobs, "finish_reason": "stop"}], "n": 1.50}
    after = rewritten(COMPLETIONS, body)
    assert after == {"choices": [{"index": 0, "text": "[X]", "logprobs": None, "finish_reason": "stop"}], "n": 1.5}
    (leaf,) = COMPLETIONS.deltas(document({"choices": [{"reasoning": "secret", "logprobs": logprobs}]}))
    assert leaf.nulled == (("choices", 0, "logprobs"),)


def test_repeated_key_on_the_way_to_a_text_is_unreadable() -> None:
    for body in (
        '{"choices":[{"text":"a","text":"b"}]}',
        '{"choices":[],"choices":[{"text":"b"}]}',
        '{"choices":[{"more":{"content":"a","content":"b"}}]}',
    ):
        with pytest.raises(MalformedBody):
            said(COMPLETIONS, body)
        with pytest.raises(MalformedBody):
            heard(COMPLETIONS, body)


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
