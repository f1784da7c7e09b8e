"""APIs whose requests hold text and whose answers do not."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.dialects.openai_requests import Embeddings
from extproc.core.dialects.paths import NAMES
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect
from tests.fakes.reading import asked, document

IMAGES, SPEECH, RERANK, EMBEDDINGS = (
    NAMES[name] for name in ("openai-images", "openai-speech", "rerank", "openai-embeddings")
)


@pytest.mark.parametrize(
    ("dialect", "body", "places"),
    [
        (IMAGES, {"prompt": "a", "size": "b", "user": "c"}, ["prompt"]),
        (IMAGES, {"prompt": "a", "negative_prompt": "b"}, ["prompt", "negative_prompt"]),
        (IMAGES, {"prompt": {"text": "a", "image": "QUJD"}}, ["prompt.text"]),
        (SPEECH, {"input": "a", "instructions": "b", "voice": "c"}, ["input", "instructions"]),
        (RERANK, {"query": "a", "documents": ["b", "", "c"]}, ["query", "documents[0]", "documents[2]"]),
        (RERANK, {"documents": [{"text": "a", "id": 7}]}, ["documents[0].text"]),
        # `rank_fields` may name any key of a document.
        (
            RERANK,
            {
                "query": {"text": "a"},
                "documents": [{"Title": "b", "Lines": ["c", {"d": "e"}]}],
                "rank_fields": ["Title"],
            },
            ["query.text", "documents[0].Title", "documents[0].Lines[0]", "documents[0].Lines[1].d"],
        ),
        (
            RERANK,
            {"documents": [{"image": "QUJD", "image_url": {"url": "data:,"}, "video": "x", "audio": "y", "type": "z"}]},
            [],
        ),
        (RERANK, {"documents": [{"price": 1, "new": True, "old": None}]}, []),
        (EMBEDDINGS, {"input": "a", "model": "b"}, ["input"]),
        (EMBEDDINGS, {"input": ["a", "b"]}, ["input[0]", "input[1]"]),
        (
            EMBEDDINGS,
            {"input": [{"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "b"}]}]},
            ["input[0].content[0].text"],
        ),
        (EMBEDDINGS, {"messages": [{"role": "user", "content": "a"}]}, ["messages[0].content"]),
        (EMBEDDINGS, {"input": "", "messages": None}, []),
        (EMBEDDINGS, {}, []),
        (EMBEDDINGS, "7", []),
    ],
)
def test_texts_of_requests_are_found(dialect: Any, body: Any, places: list[str]) -> None:
    assert asked(dialect, body) == [("user", place) for place in places]


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (EMBEDDINGS, {"input": [1, 2]}),
        (EMBEDDINGS, {"input": [[1, 2], [3]]}),
        (EMBEDDINGS, {"input": 1}),
        (SPEECH, {"input": False}),
        (RERANK, {"query": "a", "documents": [1]}),
        (RERANK, '{"documents":[{"text":"a","text":"b"}]}'),
        (IMAGES, '{"prompt":"a","prompt":"b"}'),
        (EMBEDDINGS, {"messages": 1}),
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(dialect: Any, body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(dialect, body)


def test_embeddings_are_inspected_only_on_request() -> None:
    assert Embeddings().opt_in is Inspect.EMBEDDINGS
    assert all(dialect.opt_in is None for dialect in (IMAGES, SPEECH, RERANK))


@pytest.mark.parametrize("dialect", [IMAGES, SPEECH, RERANK, EMBEDDINGS])
def test_answers_are_not_read(dialect: Any) -> None:
    answer = document({"data": [{"b64_json": "QUJD", "revised_prompt": "a"}], "results": [{"document": {"text": "b"}}]})
    assert not dialect.reads_answers
    assert dialect.answers(answer) == dialect.deltas(answer) == []
    assert not dialect.streams(document({"stream": True}), "/v1/images/generations")
