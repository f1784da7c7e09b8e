"""APIs whose answers are data: embeddings, images, speech, reranking."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.dialects.openai_requests import Embeddings, Images, Moderations, RealtimeSecrets, Rerank, Speech
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect
from tests.fakes.reading import asked, document, heard, masked, redacted_answer, redacted_request, said

IMAGES, SPEECH, RERANK, EMBEDDINGS = Images(), Speech(), Rerank(), Embeddings()
MODERATIONS, REALTIME = Moderations(), RealtimeSecrets()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
"""An image in base64."""


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (IMAGES, {"prompt": "hi a", "size": "b", "user": "c", "quality": "hd", "model": "d"}, ["hi a"]),
        (IMAGES, {"prompt": "hi a", "negative_prompt": "hi b", "note": "hi"}, ["hi a", "hi b", "hi"]),
        (IMAGES, {"prompt": {"text": "hi a", "image": PNG}}, ["hi a"]),
        (IMAGES, {"prompt": {"text": "hi a", "image": "hi b"}}, ["hi a", "hi b"]),
        (IMAGES, {"prompt": "hi a", "seconds": "8", "size": "720x1280", "model": "sora-2"}, ["hi a"]),
        (
            IMAGES,
            {"prompt": "hi", "images": [{"image_url": f"data:image/png;base64,{PNG}"}], "input_fidelity": "high"},
            ["hi"],
        ),
        (MODERATIONS, {"input": "hi", "model": "omni-moderation-latest"}, ["hi"]),
        (
            MODERATIONS,
            {
                "input": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": "https://a.example/b"}},
                ]
            },
            ["hi"],
        ),
        (MODERATIONS, {"input": [[{"role": "user", "content": "hi"}]]}, ["hi"]),
        (SPEECH, {"input": "hi a", "instructions": "hi b", "voice": "c", "response_format": "d"}, ["hi a", "hi b"]),
        (RERANK, {"query": "hi a", "documents": ["hi b", "", "hi c"]}, ["hi a", "hi b", "hi c"]),
        (RERANK, {"query": "hi a", "texts": ["hi b"]}, ["hi a", "hi b"]),
        (RERANK, {"documents": [{"text": "hi a", "id": 7}]}, ["hi a"]),
        (
            RERANK,
            {"query": {"text": "hi a"}, "documents": [{"Title": "hi b", "Lines": ["hi", {"d": "hi"}]}]},
            ["hi a", "hi b", "hi", "hi"],
        ),
        (RERANK, {"documents": [{"image": PNG, "image_url": {"url": f"data:image/png;base64,{PNG}"}}]}, []),
        (RERANK, {"documents": [{"price": 1, "new": True, "old": None}]}, []),
        (EMBEDDINGS, {"input": "hi", "model": "b", "encoding_format": "base64", "user": "u"}, ["hi"]),
        (EMBEDDINGS, {"input": ["hi a", "hi b"]}, ["hi a", "hi b"]),
        (
            EMBEDDINGS,
            {
                "input": [
                    {"content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": "https://a/b"}]}
                ]
            },
            ["hi"],
        ),
        (EMBEDDINGS, {"messages": [{"role": "user", "content": "hi"}], "title": "hi"}, ["hi", "hi"]),
        (EMBEDDINGS, {"input": "", "messages": None}, []),
        (EMBEDDINGS, {}, []),
    ],
)
def test_texts_of_requests(dialect: Any, body: Any, texts: list[str]) -> None:
    assert asked(dialect, body) == [("user", text) for text in texts]
    assert redacted_request(dialect, body) == masked(body)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (EMBEDDINGS, {"input": [1, 2]}),
        (EMBEDDINGS, {"input": [[1, 2], [3]]}),
        (EMBEDDINGS, {"input": 1}),
        (EMBEDDINGS, "7"),
        (SPEECH, {"input": False}),
        (RERANK, {"query": "a", "documents": [1]}),
        (EMBEDDINGS, {"messages": 1}),
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(dialect: Any, body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(dialect, body)


def test_embeddings_are_inspected_only_on_request() -> None:
    assert EMBEDDINGS.opt_in is Inspect.EMBEDDINGS
    assert all(dialect.opt_in is None for dialect in (IMAGES, SPEECH, RERANK))


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (IMAGES, {"created": 1, "size": "1024x1024", "data": [{"b64_json": PNG, "revised_prompt": "hi"}]}, ["hi"]),
        (IMAGES, {"data": [{"url": "https://example.com/a.png", "note": "hi"}]}, ["hi"]),
        (IMAGES, {"id": "video_1", "object": "video", "status": "queued", "prompt": "hi", "seconds": "8"}, ["hi"]),
        (
            MODERATIONS,
            {"id": "m", "results": [{"flagged": True, "category_applied_input_types": {"hate": ["text"]}}]},
            [],
        ),
        (REALTIME, {"value": "ek_1", "session": {"type": "realtime", "instructions": "hi", "audio": {}}}, ["hi"]),
        (REALTIME, {"client_secret": {"value": "ek_1"}, "instructions": "hi", "voice": "a", "tracing": None}, ["hi"]),
        (RERANK, {"results": [{"index": 0, "document": {"text": "hi"}, "score": 0.5}], "id": "r"}, ["hi"]),
        (
            EMBEDDINGS,
            {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": "zczMPQAAgD8="}]},
            [],
        ),
        (EMBEDDINGS, {"embeddings": {"float": [[0.5]], "base64": ["zczMPQ=="]}, "texts": ["hi"]}, ["hi"]),
        (EMBEDDINGS, {"error": {"code": "c", "param": "p", "type": "t", "message": "hi"}}, ["hi"]),
    ],
)
def test_texts_of_answers(dialect: Any, body: Any, texts: list[str]) -> None:
    assert said(dialect, body) == heard(dialect, body) == texts
    assert redacted_answer(dialect, body) == masked(body)


def test_instructions_of_a_realtime_session_are_read() -> None:
    session = {
        "type": "realtime",
        "instructions": "hi a",
        "output_modalities": ["audio"],
        "audio": {"output": {"voice": "marin"}, "input": {"transcription": {"model": "m", "prompt": "hi b"}}},
        "tools": [{"type": "function", "name": "f", "description": "hi c"}],
    }
    body = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session}
    assert asked(REALTIME, body) == [("system", "hi a"), ("user", "hi b")]
    assert asked(REALTIME, body, tools=True)[0] == ("system", "hi c")
    assert redacted_request(REALTIME, body) == masked(body) | {"session": masked(session) | {"tools": session["tools"]}}
    assert asked(REALTIME, {"instructions": "hi", "voice": "ash"}) == [("system", "hi")]


@pytest.mark.parametrize("dialect", [IMAGES, SPEECH, RERANK, EMBEDDINGS, MODERATIONS, REALTIME])
def test_no_session_is_opened_in_advance(dialect: Any) -> None:
    assert not dialect.streams(document({"stream": True}), "/v1/images/generations")
    assert dialect.answers_media is (dialect in (IMAGES, SPEECH))
