"""Answers with reasoning, calls, references and usage: each client reads the same with and without the sidecar.

The answers are those of `tests/fixtures/recordings`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import cohere
import httpx
import ollama
import openai
import pytest
from mistralai.client import Mistral

from tests.conformance import (
    test_anthropic_sdk,
    test_cohere_sdk,
    test_google_genai_sdk,
    test_interactions_sdk,
    test_mistral_sdk,
    test_ollama_sdk,
    test_openai_sdk,
)
from tests.conformance.harness import redacts_the_city, same_with_and_without
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig
from tests.fakes.upstream import Answer, pieces, whole

pytestmark = [
    *needs_envoy,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
]

_FOLDER = Path(__file__).parents[1] / "fixtures" / "recordings"
_TYPES = {".json": "application/json", ".sse": "text/event-stream", ".jsonl": "application/x-ndjson"}
_HELLO: Any = [{"role": "user", "content": "Hello"}]
_PIECE = 61


class Clients:
    """A client of each provider."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    gemini: Any
    interactions: Any
    cohere: cohere.AsyncClientV2
    cohere1: Any
    mistral: Mistral
    ollama: ollama.AsyncClient


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:
        opened = Clients()
        opened.openai = await stack.enter_async_context(test_openai_sdk.client(url))
        opened.anthropic = await stack.enter_async_context(test_anthropic_sdk.client(url))
        opened.gemini = await stack.enter_async_context(test_google_genai_sdk.client(url))
        opened.interactions = await stack.enter_async_context(test_interactions_sdk.client(url))
        opened.cohere = await stack.enter_async_context(test_cohere_sdk.client(url))
        opened.mistral = await stack.enter_async_context(test_mistral_sdk.client(url))
        opened.ollama = await stack.enter_async_context(test_ollama_sdk.client(url))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        opened.cohere1 = cohere.AsyncClient("k", base_url=url, max_retries=0, httpx_client=http)
        yield opened


def _recorded(name: str) -> Answer:
    """Answer with a recording, in pieces that end anywhere."""
    body = (_FOLDER / name).read_bytes()
    kind = _TYPES[Path(name).suffix]
    if kind == "application/json":
        return whole(body)
    return pieces([body[at : at + _PIECE] for at in range(0, len(body), _PIECE)], content_type=kind)


_RUN: Any = {"thread_id": "thread_1", "assistant_id": "asst_1"}
_MESSAGES: Any = {"model": "m", "max_tokens": 64, "messages": _HELLO}
_CALLS: dict[str, Callable[[Clients], Any]] = {
    "chat.json": lambda to: to.openai.chat.completions.create(model="m", messages=_HELLO),
    "chat.sse": lambda to: to.openai.chat.completions.create(model="m", messages=_HELLO, stream=True),
    "chat-tools.sse": lambda to: to.openai.chat.completions.create(model="m", messages=_HELLO, stream=True),
    "completions.json": lambda to: to.openai.completions.create(model="m", prompt="Hello"),
    "completions.sse": lambda to: to.openai.completions.create(model="m", prompt="Hello", stream=True),
    "responses.json": lambda to: to.openai.responses.create(model="m", input="Hello"),
    "responses.sse": lambda to: to.openai.responses.create(model="m", input="Hello", stream=True),
    "responses-tools.sse": lambda to: to.openai.responses.create(model="m", input="Hello", stream=True),
    "threads.json": lambda to: to.openai.beta.threads.runs.create(**_RUN),
    "threads.sse": lambda to: to.openai.beta.threads.runs.create(**_RUN, stream=True),
    "anthropic.json": lambda to: to.anthropic.messages.create(**_MESSAGES),
    "anthropic.sse": lambda to: to.anthropic.messages.create(**_MESSAGES, stream=True),
    "gemini.json": lambda to: to.gemini.models.generate_content(model="gemini-pro", contents="Hello"),
    "gemini.sse": lambda to: to.gemini.models.generate_content_stream(model="gemini-pro", contents="Hello"),
    "interactions.json": lambda to: to.interactions.create(model="gemini-pro", input="Hello"),
    "interactions.sse": lambda to: to.interactions.create(model="gemini-pro", input="Hello", stream=True),
    "interactions-tools.sse": lambda to: to.interactions.create(model="gemini-pro", input="Hello", stream=True),
    "cohere.json": lambda to: to.cohere.chat(model="m", messages=_HELLO),
    "cohere.sse": lambda to: to.cohere.chat_stream(model="m", messages=_HELLO),
    "cohere-tools.sse": lambda to: to.cohere.chat_stream(model="m", messages=_HELLO),
    "cohere1.json": lambda to: to.cohere1.chat(model="m", message="Hello"),
    "cohere1.jsonl": lambda to: to.cohere1.chat_stream(model="m", message="Hello"),
    "mistral.json": lambda to: to.mistral.beta.conversations.start_async(model="m", inputs="Hello"),
    "mistral.sse": lambda to: to.mistral.beta.conversations.start_stream_async(model="m", inputs="Hello"),
    "ollama.json": lambda to: to.ollama.chat("m", _HELLO),
    "ollama.jsonl": lambda to: to.ollama.chat("m", _HELLO, stream=True),
}

_each_recording = pytest.mark.parametrize("name", list(_CALLS))


def _plain(answer: Any) -> Any:
    """Return an object as JSON's types, without what Google's client adds of the HTTP response."""
    if isinstance(answer, tuple):  # a stream of Cohere yields what is not in its model as it is
        return answer
    plain = answer.model_dump()
    plain.pop("sdk_http_response", None)
    return plain


def _talk(name: str) -> Callable[[Clients], Awaitable[list[Any]]]:
    async def talk(to: Clients) -> list[Any]:
        answer = _CALLS[name](to)
        if not hasattr(answer, "__aiter__"):
            answer = await answer
        return [_plain(each) async for each in answer] if hasattr(answer, "__aiter__") else [_plain(answer)]

    return talk


@_each_recording
async def test_it_is_the_same(chain: Rig, guarded: Clients, direct: Clients, name: str) -> None:
    chain.upstream.answer = _recorded(name)
    said = await same_with_and_without(_talk(name), guarded, direct)
    assert len(said) == 1 if name.endswith(".json") else len(said) > 2
    judged = [*chain.aim.asked("output"), *(session for session in chain.aim.sessions if session.is_done)]
    assert judged


_WITH_THE_CITY = [name for name in _CALLS if b"Oslo" in (_FOLDER / name).read_bytes()]
_WITH_THE_CITY.remove("threads.sse")  # which first says it in two pieces: the stand-in for Aim does not know those


@pytest.mark.parametrize("name", _WITH_THE_CITY)
async def test_a_client_reads_what_was_redacted(chain: Rig, guarded: Clients, direct: Clients, name: str) -> None:
    chain.upstream.answer = _recorded(name)
    plain = await _talk(name)(direct)
    redacts_the_city(chain)
    redacted = await _talk(name)(guarded)
    assert str(plain).replace("Oslo", "[CITY]") == str(redacted)
