"""Which models a request names, by its path and its body."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.dialects.model_name import model_names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/openai/deployments/My-GPT/chat/completions?api-version=2024-10-21", "my-gpt"),
        ("/x/openai/deployments/a%20b/responses", "a b"),
        ("/v1/engines/davinci/completions", "davinci"),
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "gemini-2.5-pro"),
        ("/v1beta/tunedModels/mine-1:generateContent", "mine-1"),
        ("/v1/projects/p/locations/l/publishers/mistralai/models/mistral-large@2411:rawPredict", "mistral-large@2411"),
        ("/model/anthropic.claude-v2%3A0/invoke", "anthropic.claude-v2:0"),
        ("/model/anthropic.claude-v2%253A0/converse-stream", "anthropic.claude-v2:0"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.meta.llama/converse",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.meta.llama",
        ),
        ("/serving-endpoints/dbrx/invocations", "dbrx"),
        ("/endpoints/llama-3/invocations-response-stream/", "llama-3"),
    ],
)
def test_model_in_the_path_wins_over_the_body(path: str, name: str) -> None:
    assert model_names({"model": "other"}, path) == (name,)


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/lax/../strict/chat/completions",
        "/openai/deployments/lax%2F..%2Fstrict/chat/completions",
        "//openai//deployments//strict/chat/completions",
        "/openai/deployments/strict;a=b/chat/completions",
        "/openai/deployments/strict%3Fa/chat/completions",
        "/openai/deployments/strict%20/chat/completions",
        "\\openai\\deployments\\STRICT\\chat\\completions",
        "/v1beta/models/./strict:generateContent",
        "/v1beta/models/strict:generateContent;a=b",
        "/v1beta/models/strict:generateContent/.",
        "/model/lax/../strict/converse",
        "/model/strict/./converse",
        "/model//strict/converse",
        "/model/strict/converse;a=b",
        "/model/strict/converse.json",
        "/model/strict/converse%3Fa/b",
    ],
)
def test_odd_spellings_of_a_path_name_the_model_that_an_upstream_would_find(path: str) -> None:
    assert model_names({"model": "lax"}, path) == ("strict",)


@pytest.mark.parametrize(
    "path", ["", "/v1/chat/completions", "/deployments/x/chat/completions", "/v1/models/x", "/model//converse"]
)
def test_other_paths_leave_it_to_the_body(path: str) -> None:
    assert model_names({"model": "gpt-4o"}, path) == ("gpt-4o",)


@pytest.mark.parametrize(
    ("root", "names"),
    [
        ({}, ()),
        ([{"model": "x"}], ()),
        (None, ()),
        ({"model": None}, ()),
        ({"model": {"id": "x"}}, ()),
        ({"model": ["a", 1, "b"]}, ("a", "b")),
        ({"model": "a", "models": ["b", "c"]}, ("a", "b", "c")),
        ({"models": ["b"]}, ("b",)),
        ({"models": {"b": "c"}}, ()),
        ({"model": "x" * 513}, ()),
        ({"model": list("abcdefghijklmnopqrstuvwxyz")}, tuple("abcdefghijklmnop")),
    ],
)
def test_body_names_strings_within_limits(root: Any, names: tuple[str, ...]) -> None:
    assert model_names(root, "/v1/chat/completions") == names
