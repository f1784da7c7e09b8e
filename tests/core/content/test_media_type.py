"""Which media types are JSON, or lines of it."""

from __future__ import annotations

import pytest

from extproc.core.content.media_type import is_json, is_json_lines


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "text/json",
        "text/x-json",
        "application/x-json",
        "application/x-amz-json-1.0",
        "application/x-amz-json-1.1",
        "application/problem+json",
        "model/gltf+json",
    ],
)
def test_types_of_json(media_type: str) -> None:
    assert is_json(media_type)


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/stream+json", "application/x-amz-json-", "+json"]
)
def test_other_types(media_type: str) -> None:
    assert not is_json(media_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/x-ndjson",
        "application/jsonl",
        "application/json-seq",
        "application/geo+json-seq",
        "application/vnd.x+ndjson",
        "application/vnd.x+jsonl",
    ],
)
def test_types_of_json_lines(media_type: str) -> None:
    assert is_json_lines(media_type)
    assert not is_json(media_type)
