"""Code Assist, Gemini's embeddings and token counts, Vertex AI's predictions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
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

ASSIST, EMBED, PREDICT = (ALL[name] for name in ("gemini of Code Assist", "gemini embeddings", "generic of Vertex"))
GEMINI = ALL["gemini"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (
            ASSIST,
            {
                "model": "m",
                "project": "p-1",
                "user_prompt_id": "a",
                "request": {
                    "systemInstruction": {"role": "user", "parts": [{"text": "hi a"}]},
                    "contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"q": "hi b"}}}]}],
                    "generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}},
                    "session_id": "s",
                },
            },
            [("system", "hi a"), ("assistant", '{"q": "hi b"}')],
        ),
        (EMBED, {"content": {"parts": [{"text": "hi"}]}, "taskType": "RETRIEVAL_QUERY"}, ["hi"]),
        (EMBED, {"content": {"parts": [{"inline_data": {"data": PNG, "mime_type": "image/png"}}]}}, []),
        (
            EMBED,
            {"requests": [{"model": "models/m", "content": {"parts": [{"text": "hi"}]}, "task_type": "A"}]},
            ["hi"],
        ),
        (EMBED, {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "title": "hi b"}, ["hi", "hi b"]),
        (EMBED, {"generateContentRequest": {"contents": [{"parts": [{"text": "hi"}]}]}}, ["hi"]),
        (
            PREDICT,
            {"instances": [{"prompt": "hi a"}, {"content": "hi b"}], "parameters": {"sampleCount": 1}},
            ["hi a", "hi b"],
        ),
        (PREDICT, {"instances": [{"image": {"bytesBase64Encoded": PNG, "mimeType": "image/png"}}]}, []),
    ],
)
def test_texts_of_requests(dialect: Any, body: Any, texts: list[Any]) -> None:
    assert asked(dialect, body) == [text if isinstance(text, tuple) else ("user", text) for text in texts]
    assert redacted_request(dialect, body) == masked(body)


def test_tools_of_code_assist_are_read_on_request() -> None:
    body = {"request": {"tools": [{"functionDeclarations": [{"name": "f", "description": "hi"}]}]}}
    assert asked(ASSIST, body, tools=True) == [("system", "hi")]


def answer(*parts: dict[str, Any]) -> dict[str, Any]:
    return {
        "response": {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0}]},
        "traceId": "t",
    }


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (
            ASSIST,
            answer({"text": "hi a"}, {"functionCall": {"name": "f", "args": {"q": "hi b"}}}),
            ["hi a", '{"q": "hi b"}'],
        ),
        (ASSIST, {"response": "hi", "note": "hi there"}, ["hi\nhi there"]),
        (EMBED, {"embeddings": [{"values": [0.5]}]}, []),
        (EMBED, {"totalTokens": 3, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}]}, []),
        (PREDICT, {"predictions": [{"bytesBase64Encoded": PNG, "mimeType": "image/png", "prompt": "hi"}]}, ["hi"]),
        (PREDICT, {"predictions": ["hi a", "hi b"], "deployedModelId": "1"}, ["hi a\nhi b"]),
    ],
)
def test_texts_of_answers(dialect: Any, body: Any, texts: list[str]) -> None:
    assert said(dialect, body) == texts
    assert redacted_answer(dialect, body) == masked(body)


def test_events_of_code_assist_run_like_those_of_gemini() -> None:
    first, thought = answer({"text": "hi a"}), answer({"text": "hi b", "thought": True})
    assert heard(ASSIST, first) == ["hi a"]
    assert redacted_event(ASSIST, first) == masked(first)
    inner = [("response", *place) for place in places(GEMINI, first["response"], thought["response"])]
    assert places(ASSIST, first, thought) == inner
    assert places(ASSIST, {"note": "hi there"}, {"response": "hi there"}) == [("note",), ("response",)]


def test_redacted_candidate_of_code_assist_loses_its_tokens() -> None:
    body = answer({"text": "hi"})
    body["response"]["candidates"][0]["logprobsResult"] = {"chosenCandidates": [{"token": "hi"}]}
    expected = masked(answer({"text": "hi"}))
    expected["response"]["candidates"][0]["logprobsResult"] = None
    assert redacted_answer(ASSIST, body) == expected
    text, tokens = ASSIST.deltas(document(body))
    assert text.unit == tokens.unit == ("response", "candidates", 0)


def test_path_asks_for_a_stream() -> None:
    assert ASSIST.streams(document({}), "/v1internal:streamGenerateContent?alt=sse")
    assert not ASSIST.streams(document({}), "/v1internal:generateContent")
    assert not EMBED.streams(document({}), "/v1beta/models/m:embedContent")
    assert PREDICT.streams(document({"stream": True}), "/v1/x:streamRawPredict")


def test_embeddings_are_opt_in() -> None:
    assert EMBED.opt_in is Inspect.EMBEDDINGS
    assert ASSIST.opt_in is PREDICT.opt_in is ALL["gemini for token counts"].opt_in is None


def test_refusals_are_googles() -> None:
    refusal = blocked("No.")
    for dialect in (ASSIST, EMBED, PREDICT):
        assert json.loads(dialect.refuse(refusal))["error"]["status"] == "INVALID_ARGUMENT"
        assert dialect.refuse_stream(refusal, 0) == b"data: " + dialect.refuse(refusal) + b"\n\n"
