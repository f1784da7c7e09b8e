"""Ways past the reader that were found by trying."""

from __future__ import annotations

import json

import pytest

from extproc.core.content.arguments import decode, put_back
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.paths import route
from extproc.core.policy import Unmatched
from extproc.core.verdict import Anonymize
from tests.fakes.rig import chat_request
from tests.fakes.world import World, policy

TEXT = "Jane Roe, born in 1970"
REQUEST = json.dumps(chat_request("Hello")).encode()


def test_empty_key_beside_the_choices_of_a_chunk_is_read() -> None:
    chat = OpenAIChat()
    chunk = {"choices": [{"index": 0, "delta": {"content": "b"}}], "": TEXT}
    assert [leaf.text for leaf in chat.deltas(chat.parse(json.dumps(chunk)))] == ["b", TEXT]


def test_escaped_backslash_does_not_stop_the_decoding() -> None:
    assert decode(r'{"q":"\u0041\u0042\u005c"}') == '{"q":"AB\\"}'


@pytest.mark.parametrize("path", ["/v1/chat/completions%3F/embeddings", "/v1/chat/completions%23/embeddings"])
def test_dialect_that_is_not_inspected_does_not_hide_another(path: str) -> None:
    found = route("POST", path, {})
    assert found.dialect is not None
    assert found.dialect.name == "openai-chat"


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("/v1/models", "/v1/models%3F/../chat/completions"), ("*/health", "/v1/chat/completions%3F/health")],
)
def test_path_passes_only_if_it_matches_however_it_is_read(pattern: str, path: str) -> None:
    found = route("POST", path, {pattern: "pass"}, Unmatched.INSPECT)
    assert found.dialect is not None or found.unmatched is Unmatched.INSPECT


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/some/rows"])
def test_redaction_of_a_long_list_of_an_answer_is_put_back(path: str) -> None:
    answer = json.dumps({"rows": ["a b"] * 5000 + [TEXT]}).encode()
    it = World(policy()).request(REQUEST, ("content-type", "application/json"), path=path).judge()
    it.head("application/json").body(answer, end=True)
    (asked,) = it.asked[-1].inputs
    it.judge(Anonymize((*(None for _ in asked.messages), str(asked.output).replace(TEXT, "[X]"))))
    assert it.response.body == answer.replace(TEXT.encode(), b"[X]")


@pytest.mark.parametrize("key", ["citations", "models"])
def test_sentences_in_a_list_of_addresses_or_names_are_redacted_at_their_places(key: str) -> None:
    listed = ["a b", "https://a.example/b", "", "data:text/plain,c d", TEXT, "Köln"] * 60
    answer = json.dumps({key: listed}, ensure_ascii=False)
    it = World(policy()).request(REQUEST).judge().head("application/json").body(answer.encode(), end=True)
    (asked,) = it.asked[-1].inputs
    assert asked.output is not None
    assert asked.output.count(TEXT) == 60
    it.judge(Anonymize((*(None for _ in asked.messages), asked.output.replace(TEXT, "[X]"))))
    assert it.response.body == answer.replace(TEXT, "[X]").encode()


@pytest.mark.parametrize("count", [3, 400])
def test_sentences_in_a_list_of_addresses_of_a_request_are_redacted(count: int) -> None:
    request = json.dumps({**chat_request("Hello"), "citations": ["a b", TEXT] * count}).encode()
    it = World(policy()).request(request)
    messages = it.asked[-1].inputs[0].messages
    it.judge(Anonymize(tuple(str(one["content"]).replace(TEXT, "[X]") for one in messages)))
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body == request.replace(TEXT.encode(), b"[X]")


def test_seal_that_is_a_list_resets_no_stream() -> None:
    request = json.dumps({"stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    it = World(policy()).request(request, path="/v1/messages").judge().head()
    event = {"type": "content_block_delta", "index": 0, "delta": {"signature": ["abc"], "thinking": "a"}}
    it.body(f"data: {json.dumps(event)}\n\n".encode()).verify_all()
    assert it.response.body == f"data: {json.dumps(event)}\n\n".encode()


def test_arguments_that_end_in_a_backslash_are_put_back_in_time() -> None:
    """If it took quadratic time, the time limit of a test would end it."""
    raw = '{"a":"x","b":"' + '\\"' * 200_000 + "\\"
    assert put_back(raw, decode(raw).replace("x", "[X]", 1)) == {0: "[X]"}
