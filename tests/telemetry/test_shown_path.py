"""The form in which paths are shown: it names APIs, and no person, thing or markup that a client put into a path."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.core.dialects.endpoints import ENDPOINTS
from extproc.telemetry.shown_path import shown_method, shown_path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/models", "/v1/models"),
        ("/internal/summarize?token=secret#here", "/internal/summarize"),
        ("//api///tags/", "/api/tags"),
        ("/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server"),
        ("/favicon.ico", "/favicon.ico"),
        ("/v1beta1/projects/p-1/locations/eu", "/v1beta1/projects/{id}/locations/{id}"),
        ("/v1/models/gemini-2.5-pro:streamGenerateContent", "/v1/models/{id}:streamgeneratecontent"),
        ("/v1/models/gemini:jane", "/v1/models/{id}"),
        ("/v1/models/:predict", "/v1/models/{id}"),
        ("/agents/a/agentAliases/b", "/agents/{id}/agentaliases/{id}"),
        ("", "/"),
        ("/", "/"),
        ("*", "/{id}"),
        ("/a/../b", "/a/{id}/b"),
        ("/" + "a/" * 30, "/a" * 10 + "/*"),
        ("/" + "/".join(["abcdefghijklmnop-abcdefghijkl"] * 4), "/{id}" * 4),
        ("/" + "/".join(["summary-of-everything"] * 9), "/summary-of-everything" * 5 + "/*"),
        ("/" * 100 + "jane", "/{id}"),
    ],
)
def test_path_is_shown_as_words_of_apis(path: str, shown: str) -> None:
    assert shown_path(path) == shown


@pytest.mark.parametrize(
    "segment",
    [
        "42",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "deadbeef",
        "a1b2c3",
        "jane@example.com",
        "jane%40example.com",
        "%7bid%7d",
        "Jane",
        "jane.doe",
        "jane;doe",
        "jane+doe",
        "+4915112345678",
        "sk-proj-abc123",
        "kqzxwvbnmrt",
        "abcdefghijklmnopqr",
        "the-title-of-my-novel",
        "QWxhZGRpbjpvcGVu",
        "eyJhbGciOiJIUzI1NiJ9.e30",
        "<script>",
        "\"'&",
        "größe",
        "{id}",
        "\uff4a\uff41ne",
        "x\n",
    ],
)
def test_segment_that_is_no_word_is_an_id(segment: str) -> None:
    assert shown_path(f"/internal/{segment}/x") == "/internal/{id}/x"


@pytest.mark.parametrize("collection", ["users", "people", "customer", "u", "files", "accounts", "tenants"])
def test_word_that_names_one_of_several_is_an_id(collection: str) -> None:
    assert shown_path(f"/{collection}/jane/search") == f"/{collection}/{{id}}/search"
    assert shown_path(f"/{collection}/search") == f"/{collection}/search"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_path_of_the_built_in_table_is_shown_as_it_is(endpoint: tuple[str, str, tuple[str, ...]]) -> None:
    for pattern in endpoint[2]:
        path = pattern.replace("v1beta*", "v1beta").replace("*:", "{id}:").removeprefix("*").replace("*", "{id}")
        assert shown_path(path) == (path if path.startswith("/") else f"/{path}")


@pytest.mark.parametrize(
    ("method", "shown"), [("GET", "GET"), ("POST", "POST"), ("get", "other"), ("JANE", "other"), ("", "other")]
)
def test_only_common_methods_are_shown(method: str, shown: str) -> None:
    assert shown_method(method) == shown


_SEGMENTS = (
    st.text(max_size=40)
    | st.text(string.ascii_letters + string.digits + "-_.:~%@+", max_size=60)
    | st.text(string.digits, min_size=1, max_size=20)
    | st.emails()
    | st.uuids().map(str)
    | st.sampled_from(["v1", "models", "users", "jane", "predict", "search", "v1beta", "x:predict"])
)
PATHS = st.lists(_SEGMENTS, max_size=30).map(lambda segments: "/" + "/".join(segments)) | st.text(max_size=400)


@given(PATHS)
@example("/1234/jane@example.com/AbC/%41")
@example("/" + "x" * 100_000)
@example("/x" + ":predict" * 10_000)
@example("/1:predict/2:PREDICT/a:b:predict/@:predict")
def test_shown_path_never_tells_more_than_words(path: str) -> None:
    shown = shown_path(path)
    assert len(shown) <= 120
    assert shown.count("/") <= 11
    assert re.fullmatch(r"[a-z0-9/{}*:._-]+", shown)
    for segment in shown.removesuffix("/*").split("/")[1:]:
        name = segment.partition(":")[0]
        assert name == "{id}" or "{" not in segment
        assert not any(digit in name for digit in string.digits) or re.fullmatch(
            r"v\d{1,2}((alpha|beta)\d{0,2}|internal)?", name
        )


@given(PATHS)
def test_shown_path_is_shown_as_it_is_once_its_ids_are(path: str) -> None:
    """What is shown does not depend on what an id was."""
    shown = shown_path(path)
    assert shown_path(shown.removesuffix("/*")) == shown.removesuffix("/*") or shown == "/*"
