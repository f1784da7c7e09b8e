"""Embeddings and reranking of Cohere and of Hugging Face's servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect
from extproc.core.refusal import UNAVAILABLE, blocked
from tests.fakes.reading import asked, document, masked, redacted_request, said

EMBED, TEI, RERANK, TEI_RERANK = (
    ALL[name] for name in ("cohere-embed", "cohere-embed of TEI", "rerank of Cohere", "rerank of TEI")
)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (
            EMBED,
            {"texts": ["hi a", "hi b"], "input_type": "search_query", "embedding_types": ["float"], "truncate": "END"},
            ["hi a", "hi b"],
        ),
        (EMBED, {"images": [f"data:image/png;base64,{PNG}"], "model": "embed-v4.0"}, []),
        (
            EMBED,
            {
                "inputs": [
                    {
                        "content": [
                            {"type": "text", "text": "hi"},
                            {"type": "image_url", "image_url": {"url": "https://a.example/b"}},
                        ]
                    }
                ]
            },
            ["hi"],
        ),
        (TEI, {"inputs": "hi", "normalize": True, "truncation_direction": "Right"}, ["hi"]),
        (TEI, {"inputs": [["hi a", "hi b"]], "prompt_name": "query"}, ["hi a", "hi b"]),
        (RERANK, {"query": "hi a", "documents": ["hi b", {"text": "hi c"}], "top_n": 2}, ["hi a", "hi b", "hi c"]),
        (TEI_RERANK, {"query": "hi a", "texts": ["hi b"], "raw_scores": True}, ["hi a", "hi b"]),
    ],
)
def test_texts_of_requests(dialect: Any, body: Any, texts: list[str]) -> None:
    assert asked(dialect, body) == [("user", text) for text in texts]
    assert redacted_request(dialect, body) == masked(body)


@pytest.mark.parametrize("body", [{"texts": [1]}, {"inputs": [[1, 2]]}, {"inputs": 1}])
def test_numbers_are_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(EMBED, body)


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (EMBED, {"id": "a", "embeddings": {"float": [[0.5]], "base64": ["zczMPQ=="]}, "texts": ["hi"]}, ["hi"]),
        (
            EMBED,
            {"embeddings": [[0.5]], "response_type": "embeddings_floats", "meta": {"api_version": {"version": "2"}}},
            [],
        ),
        (TEI, [[0.5, 0.25]], []),
        (RERANK, {"id": "a", "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "hi"}}]}, ["hi"]),
        (TEI_RERANK, [{"index": 0, "text": "hi", "score": 0.5}], ["hi"]),
    ],
)
def test_texts_of_answers(dialect: Any, body: Any, texts: list[str]) -> None:
    assert said(dialect, body) == texts


def test_embeddings_are_opt_in() -> None:
    assert EMBED.opt_in is TEI.opt_in is Inspect.EMBEDDINGS
    assert RERANK.opt_in is TEI_RERANK.opt_in is None
    assert not any(each.streams(document({"stream": True}), "/embed") for each in (EMBED, TEI, RERANK, TEI_RERANK))


def test_refusals() -> None:
    assert json.loads(EMBED.refuse(blocked("No."))) == json.loads(RERANK.refuse(blocked("No."))) == {"message": "No."}
    for dialect in (TEI, TEI_RERANK):
        assert json.loads(dialect.refuse(blocked("No."))) == {"error": "No.", "error_type": "validation"}
        assert json.loads(dialect.refuse(UNAVAILABLE))["error_type"] == "overloaded"
