"""Paths that are not specific to one API: the body decides which dialect reads, or whether the path is unmatched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.choice import choose
from extproc.core.dialects.endpoints import ALL, GENERIC
from extproc.core.dialects.paths import route
from extproc.core.errors import BodyTooLarge
from extproc.core.policy import Limits
from extproc.core.verdict import Block
from extproc.core.vocabulary import CALL_ID_HEADER, BodyMode, Hook, Leg
from tests.fakes.world import World, policy

CHAT = "/api/chat"
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
OTHER = {"note": "Hello"}
JSON = ("content-type", "application/json")


def sent(
    body: Any, *headers: tuple[str, str], path: str = CHAT, mode: BodyMode = BodyMode.BUFFERED, **profile: Any
) -> World:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return World(policy(**profile), Limits(), mode).request(data, *(headers or (JSON,)), path=path)


def asked(it: World) -> list[str]:
    return [message["content"] for question in it.asked for one in question.inputs for message in one.messages]


# -- the rule ------------------------------------------------------------------------------------------------------

OLLAMA, EMBED = ALL["ollama"], ALL["openai-embeddings"]
OPEN = ((("messages",), OLLAMA),)
CLOSED = (*OPEN, ((), EMBED))


@pytest.mark.parametrize(
    ("body", "of_open", "of_closed"),
    [
        (b'{"messages": []}', OLLAMA, OLLAMA),
        (b'{"Messages": []}', OLLAMA, OLLAMA),
        (b'\xef\xbb\xbf {"messages": 1}', OLLAMA, OLLAMA),
        (b'{"note": {"messages": []}}', None, EMBED),
        (b'["messages"]', None, EMBED),
        (b"messages=1", None, EMBED),
        (b"", None, EMBED),
        (b'{"messages": [', OLLAMA, EMBED),
        (b'{"messages": [], "messages": []}', OLLAMA, EMBED),
        (b'{"messages": []} {}', OLLAMA, EMBED),
        ('{"messages": []}'.encode("utf-16"), OLLAMA, EMBED),
        ('{"messages": []}'.encode("utf-32-be"), OLLAMA, EMBED),
        (b'{"messages": "\xff"}', OLLAMA, EMBED),
    ],
)
def test_first_dialect_whose_key_the_body_has_is_chosen(body: bytes, of_open: Any, of_closed: Any) -> None:
    assert choose(OPEN, body, 100)[0] is of_open
    assert choose(CLOSED, body, 100)[0] is of_closed


def test_document_is_parsed_once() -> None:
    _, document = choose(OPEN, b'{"messages": 1}', 100)
    assert document is not None
    assert document.root == {"messages": 1}
    with pytest.raises(BodyTooLarge):
        choose(OPEN, json.dumps({"messages": ["a"] * 200}).encode(), 100)


# -- exchanges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize("unmatched", ["inspect", "pass", "block"])
def test_body_of_the_api_is_read_by_its_dialect(mode: BodyMode, unmatched: str) -> None:
    it = sent(ASK, mode=mode, unmatched=unmatched)
    assert asked(it) == ["Hello"]
    it.judge(Block("No."))
    assert it.reply is not None
    assert json.loads(it.reply.body) == {"error": "No."}
    assert (it.record.dialect, it.record.outcome) == ("ollama", "blocked")


@pytest.mark.parametrize("kind", ["image/png", "text/plain", "multipart/form-data"])
def test_content_type_does_not_hide_a_body_of_the_api(kind: str) -> None:
    assert asked(sent(ASK, ("content-type", kind), unmatched="pass")) == ["Hello"]


@pytest.mark.parametrize("key", ["Messages", "MESSAGES", "mes\u017fages"])
def test_key_in_another_letter_case_is_of_the_api_and_unreadable(key: str) -> None:
    it = sent({key: ASK["messages"]}, unmatched="pass")
    assert it.record.code == "invalid_body"
    assert it.asked == []


@pytest.mark.parametrize("mode", list(BodyMode))
def test_other_json_is_read_by_the_generic_dialect(mode: BodyMode) -> None:
    it = sent(OTHER, mode=mode)
    assert asked(it) == ["Hello"]
    it.judge(Block("No."))
    assert it.reply is not None
    assert json.loads(it.reply.body)["error"]["code"] == "content_policy_violation"
    assert it.record.dialect == "generic"


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n.", "image/png"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"--x", "multipart/form-data"),
    ],
)
def test_other_body_passes_unread(mode: BodyMode, body: bytes, kind: str) -> None:
    it = sent(body, ("content-type", kind), mode=mode)
    buffered = it.upstream.buffered
    assert (body if buffered is not None and buffered.body is None else it.upstream.body) == body
    it.head("text/html").body(b"<p>Hi there.</p>", end=True)
    assert it.response.headers is not None
    assert CALL_ID_HEADER not in dict(it.response.headers.set)
    assert (it.record.dialect, it.record.outcome, it.asked) == ("", "unmatched", [])


def test_lines_of_json_are_read_line_by_line() -> None:
    it = sent(b'{"note": "Hello"}\n{"note": "again"}\n', ("content-type", "application/x-ndjson"))
    assert it.record.code == "invalid_body"  # it begins like a request of the API
    it = sent(b'"Hello"\n"again"\n', ("content-type", "application/x-ndjson"))
    assert asked(it) == ["Hello\nagain"]  # one value may run over several lines


@pytest.mark.parametrize("blanks", [63, 64, 10_000])
def test_white_space_before_the_body_decides_nothing(blanks: int) -> None:
    body = b" " * blanks + b'{"messages": [{"role": "user", "content": "Hello"}]}'
    it = sent(body, ("content-type", "application/octet-stream"), unmatched="pass")
    assert asked(it) == ["Hello"]


def test_unmatched_pass_lets_other_json_through() -> None:
    it = sent(OTHER, unmatched="pass")
    assert it.upstream.buffered is not None
    it.head("application/json").body(b'{"note": "Hi"}', end=True)
    assert it.asked == []
    assert (it.response.body, it.record.outcome) == (b'{"note": "Hi"}', "unmatched")


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize("body", [OTHER, b""])
def test_unmatched_block_refuses_other_json(mode: BodyMode, body: Any) -> None:
    it = (
        sent(body, mode=mode, unmatched="block")
        if body
        else World(policy(unmatched="block"), mode=mode).request(None, path=CHAT)
    )
    assert (it.status, it.code) == (403, "path_not_allowed")
    assert it.upstream.buffered is None
    assert it.upstream.body == b""


def test_request_without_a_body_is_unmatched() -> None:
    it = World().request(None, path=CHAT)
    it.head("text/html").body(b"<p>Hi there.</p>", end=True)
    assert (it.record.dialect, it.record.outcome) == ("", "unmatched")


def test_request_that_was_not_read_has_the_shape_of_the_first_api() -> None:
    it = World(limits=Limits(request_bytes=8)).request(json.dumps(ASK).encode(), path=CHAT)
    assert it.reply is not None
    assert json.loads(it.reply.body) == {"error": "The request body is too large."}


def test_profile_without_hooks_reads_nothing() -> None:
    it = World(policy(hooks=())).request(json.dumps(ASK).encode(), path=CHAT)
    assert (it.asked, it.record.outcome) == ([], "unmatched")
    assert it.upstream.headers is not None
    assert it.upstream.headers.replace_body


def test_hook_output_alone_reads_the_request_for_its_dialect() -> None:
    it = World(policy(hooks=("output",))).request(json.dumps(ASK | {"stream": False}).encode(), path=CHAT)
    it.head("application/json").body(b'{"message": {"content": "Hi"}}', end=True)
    (question,) = it.asked
    assert (question.hook, question.inputs[0].output, it.record.dialect) == (Hook.OUTPUT, "Hi", "ollama")


# -- choices that the settings switch off ---------------------------------------------------------------------------


def test_embeddings_of_a_shared_path_pass_unless_they_are_inspected() -> None:
    it = sent({"input": "Hello"}, path="/api/embed")
    assert (it.asked, it.record.outcome) == ([], "unmatched")
    assert it.out[Leg.REQUEST].buffered is not None
    it = sent({"input": "Hello"}, path="/api/embed", inspect=("embeddings",))
    assert asked(it) == ["Hello"]
    assert it.record.dialect == "ollama"


def test_shared_path_of_embeddings_alone_is_not_even_held() -> None:
    it = sent({"prompt": "Hello"}, path="/api/embeddings")
    assert it.upstream.headers is not None
    assert it.upstream.headers.replace_body
    it = sent({"prompt": "Hello"}, path="/api/embeddings", inspect=("embeddings",)).judge(Block("No."))
    assert it.reply is not None
    assert json.loads(it.reply.body) == {"error": "No."}
    it = sent({"input": "Hello"}, path="/api/embeddings", inspect=("embeddings",))
    assert it.record.dialect == "openai-embeddings"


# -- the table -----------------------------------------------------------------------------------------------------

SHARED = [
    ("/api/chat", {"messages": []}, "ollama"),
    ("/x/api/generate", {"prompt": ""}, "ollama"),
    ("/api/embed", {"input": ""}, "ollama embeddings"),
    ("/api/embeddings", {"prompt": ""}, "ollama embeddings"),
    ("/api/embeddings", {"input": ""}, "openai-embeddings"),
    ("/embed", {"inputs": ""}, "cohere-embed of TEI"),
    ("/embed", {"texts": []}, "cohere-embed"),
    ("/v1/chat", {"message": ""}, "cohere-chat v1"),
    ("/rerank", {"texts": []}, "rerank of TEI"),
    ("/v1/conversations", {"inputs": ""}, "mistral-conversations"),
    ("/v1/conversations", {"items": []}, "openai-responses"),
    ("/v1/conversations", {"metadata": {}}, "openai-responses"),
    ("/openai/conversations", {"items": []}, "openai-responses"),
    ("/v1/conversations/conv_1", {"inputs": ""}, "mistral-conversations"),
    ("/v1/agents", {"instructions": ""}, "mistral-conversations"),
    ("/discord/interactions", {"input": ""}, "gemini-interactions"),
    ("/generate", {"inputs": ""}, "text-generation"),
    ("/generate_stream", {"inputs": ""}, "text-generation"),
    ("/generate", {"text": ""}, "text-generation of SGLang"),
    ("/generate", {"prompt": ""}, "text-generation of SGLang"),
    ("/generate", {"input_ids": []}, "text-generation of SGLang"),
    ("/v1/threads", {"messages": []}, "openai-threads"),
    ("/v1/threads/runs", {"assistant_id": ""}, "openai-threads"),
    ("/v1/threads/thread_1/runs", {"assistant_id": ""}, "openai-threads"),
    ("/openai/threads/thread_1/messages", {"content": ""}, "openai-threads"),
    ("/v1/threads/thread_1/runs/run_1/submit_tool_outputs", {"tool_outputs": []}, "openai-threads"),
    ("/v1/assistants", {"model": ""}, "openai-threads"),
    ("/v1/assistants/asst_1", {"instructions": ""}, "openai-threads"),
    ("/v1/videos", {"prompt": ""}, "openai-images"),
    ("/v1/videos/video_1/remix", {"prompt": ""}, "openai-images"),
    ("/v1/moderations", {"input": ""}, "openai-moderations"),
    ("/serving-endpoints/m/invocations", {"messages": []}, "openai-chat"),
    ("/invocations", {"prompt": ""}, "openai-completions"),
    ("/endpoints/m/invocations", {"inputs": ""}, "text-generation"),
    ("/serving-endpoints/agent/invocations", {"input": []}, "openai-responses"),
    ("/v1/projects/p/locations/l/endpoints/1:predict", {"instances": []}, "generic of Vertex"),
    ("/v1/p/publishers/mistralai/models/m:rawPredict", {"messages": []}, "openai-chat"),
    ("/v1/p/publishers/mistralai/models/m:streamRawPredict", {"prompt": ""}, "openai-completions"),
    ("/v1/p/endpoints/1:rawPredict", {"anthropic_version": "", "messages": []}, "anthropic-messages"),
    ("/v1/p/endpoints/1:rawPredict", {"other": ""}, "generic of Vertex"),
    ("/completion", {"prompt": ""}, "text-generation of llama.cpp"),
    ("/infill", {"input_prefix": ""}, "text-generation of llama.cpp"),
    ("/rerank", {"documents": []}, "rerank"),
]


_OF_ANY_BODY = {
    "/v1/conversations",
    "/api/embeddings",
    "/rerank",
    *(path for path, _, _ in SHARED if path.lower().endswith("rawpredict")),
}


@pytest.mark.parametrize(("path", "body", "name"), SHARED)
def test_paths_of_the_table(path: str, body: Any, name: str) -> None:
    found = route("POST", path, {})
    assert choose(found.choices, json.dumps(body).encode(), 100)[0] is ALL[name]


@pytest.mark.parametrize("path", sorted({path for path, _, _ in SHARED} - _OF_ANY_BODY))
def test_bodies_of_other_apis_are_of_no_dialect(path: str) -> None:
    assert choose(route("POST", path, {}).choices, b'{"other": 1}', 100)[0] is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/rerank", "rerank"),
        ("/v1/p/endpoints/1:rawPredict", "generic of Vertex"),
        ("/model/m/invoke", "bedrock-invoke"),
        ("/invocations", "openai-chat"),  # no API takes any request there: the first
    ],
)
def test_early_refusals_are_those_of_the_api_that_takes_any_request(path: str, name: str) -> None:
    assert route("POST", path, {}).dialect is ALL[name]


def test_settings_choose_without_looking_at_the_body() -> None:
    found = route("POST", CHAT, {"/api/*": "generic"})
    assert (found.dialect, found.choices) == (GENERIC, ())


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v2/chat", "cohere-chat"),
        ("POST", "/v1/embed", "cohere-embed"),
        ("POST", "/v2/rerank", "rerank of Cohere"),
        ("POST", "/v1beta/interactions", "gemini-interactions"),
        ("POST", "/v1beta1/projects/p/locations/l/interactions", "gemini-interactions"),
        ("POST", "/v1beta/interactions/v1_a/cancel", "gemini-interactions"),
        ("GET", "/v1beta/interactions/v1_a?stream=true", "gemini-interactions"),
        ("POST", "/v1internal:streamGenerateContent?alt=sse", "gemini of Code Assist"),
        ("POST", "/v1beta/models/m:batchEmbedContents", "gemini embeddings"),
        ("POST", "/v1beta/models/m:countTokens", "gemini for token counts"),
        ("POST", "/v1/p/publishers/anthropic/models/m:streamRawPredict", "anthropic-messages"),
        ("POST", "/v1/agents/completions", "openai-chat"),
        ("POST", "/v1/prompts/pp-1/completions", "openai-chat"),
        ("POST", "/v1/fim/completions", "openai-completions"),
        ("POST", "/v1/ocr", "mistral-conversations"),
        ("GET", "/v1/conversations/conv_1/history", "mistral-conversations"),
        ("POST", "/api/v2/cortex/inference:complete", "openai-chat"),
        ("POST", "/v1/threads/thread_1/runs/run_1/cancel", "openai-threads"),
        ("GET", "/v1/threads/thread_1/messages", "openai-threads"),
        ("GET", "/v1/threads/thread_1/runs/run_1/steps/step_1", "openai-threads"),
        ("GET", "/v1/assistants/asst_1", "openai-threads"),
        ("GET", "/v1/videos/video_1", "openai-images"),
        ("POST", "/v1/images/edits", "openai-images"),
        ("POST", "/v1/images/variations", "openai-images"),
        ("POST", "/v1/audio/transcriptions", "openai-transcriptions"),
        ("POST", "/v1/audio/translations", "openai-transcriptions"),
        ("POST", "/v1/realtime/client_secrets", "openai-responses of realtime"),
        ("POST", "/v1/complete", "anthropic-complete"),
    ],
)
def test_paths_of_one_api(method: str, path: str, name: str) -> None:
    found = route(method, path, {})
    assert (found.dialect, found.choices) == (ALL[name], ())
