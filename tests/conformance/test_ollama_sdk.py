"""Ollama's SDK through Envoy and the sidecar: the same objects as without them, and errors that its users know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import ollama
import pytest

from tests.conformance import other_models
from tests.conformance.harness import (
    MESSAGE,
    blocks_answers,
    blocks_at_once,
    blocks_requests,
    collect,
    is_down,
    redacts_the_city,
    same_with_and_without,
    sent,
)
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]

_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": _PARAMETERS}}


@asynccontextmanager
async def client(url: str) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(url, trust_env=False) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = other_models.ollama


def _say(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def _chat(client: ollama.AsyncClient) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed; then ask for structured output."""
    asked = await client.chat("m", _say("Hello"), tools=[_TOOL])
    said = [*_say("Hello"), asked.message, {"role": "tool", "tool_name": "weather", "content": "rain"}]
    told = await client.chat("m", said, tools=[_TOOL])
    parts = [part async for part in await client.chat("m", said, tools=[_TOOL], stream=True)]
    calls = [part async for part in await client.chat("m", _say("Hello"), tools=[_TOOL], stream=True)]
    structured = await client.chat("m", _say("Hello"), format="json")
    return [asked, told, parts, calls, structured]


async def test_chat_is_the_same(chain: Rig, guarded: ollama.AsyncClient, direct: ollama.AsyncClient) -> None:
    asked, told, parts, calls, structured = await same_with_and_without(_chat, guarded, direct)
    assert asked.message.tool_calls[0].function.arguments == {"city": "Oslo"}
    assert calls[0].message.tool_calls == asked.message.tool_calls
    assert told.message.content == "It rains in Oslo." == "".join(part.message.content for part in parts)
    assert structured.message.content == '{"city": "Oslo", "degrees": 7}'
    assert len(chain.aim.asked("pre_call")) == 5
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


async def _generate(client: ollama.AsyncClient) -> list[Any]:
    told = await client.generate("m", "Hello", system="Be kind.")
    parts = [part async for part in await client.generate("m", "Hello", stream=True)]
    return [told, parts, await client.embed("m", "Hello")]


async def test_generation_is_the_same(chain: Rig, guarded: ollama.AsyncClient, direct: ollama.AsyncClient) -> None:
    told, parts, embedded = await same_with_and_without(_generate, guarded, direct)
    assert told.response == "It rains in Oslo." == "".join(part.response for part in parts)
    assert embedded.embeddings == [[0.25, -0.5]]
    assert len(chain.aim.asked("pre_call")) == 2


def _heard(part: Any) -> str:
    """Return the text of an answer or a part of one, in either API."""
    text = part.message.content if isinstance(part, ollama.ChatResponse) else part.response
    assert isinstance(text, str)
    return text


async def _stream(client: ollama.AsyncClient, api: str, text: str) -> AsyncIterator[Any]:
    if api == "chat":
        return await client.chat("m", _say(text), stream=True)
    return await client.generate("m", text, stream=True)


async def _drain(client: ollama.AsyncClient, api: str, text: str, *, stream: bool) -> list[str]:
    """Return the texts of an answer."""
    if stream:
        return [_heard(part) async for part in await _stream(client, api, text)]
    return [_heard(await (client.chat("m", _say(text)) if api == "chat" else client.generate("m", text)))]


_each_api = pytest.mark.parametrize("api", ["chat", "generate"])
_streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@_each_api
@pytest.mark.parametrize(
    ("behave", "text", "stream"),
    [
        pytest.param(blocks_requests, "my secret", False, id="request"),
        pytest.param(blocks_requests, "my secret", True, id="request for a stream"),
        pytest.param(blocks_answers, "Hello", False, id="answer"),
        pytest.param(blocks_at_once, "Hello", True, id="stream before its first byte"),
    ],
)
async def test_a_block(
    chain: Rig, guarded: ollama.AsyncClient, api: str, behave: Callable[[Rig], None], text: str, stream: bool
) -> None:
    behave(chain)
    with pytest.raises(ollama.ResponseError) as caught:
        await _drain(guarded, api, text, stream=stream)
    assert (caught.value.error, caught.value.status_code) == (MESSAGE, 400)


@_each_api
async def test_a_block_in_mid_stream(chain: Rig, guarded: ollama.AsyncClient, api: str) -> None:
    blocks_answers(chain)
    parts: list[Any] = []
    with pytest.raises(ollama.ResponseError) as caught:
        await collect(await _stream(guarded, api, "Hello"), parts)
    assert list(map(_heard, parts)) == ["It "]
    assert caught.value.error == MESSAGE


@_each_api
async def test_redactions(chain: Rig, guarded: ollama.AsyncClient, api: str) -> None:
    redacts_the_city(chain)
    assert await _drain(guarded, api, "Is Oslo wet?", stream=False) == ["It rains in [CITY]."]
    assert "Is [CITY] wet?" in sent(chain)
    assert await _drain(guarded, api, "Is Oslo wet?", stream=True) == ["It ", "rains in", " [CITY].", ""]
    assert "Is [CITY] wet?" in sent(chain)


@_each_api
@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: ollama.AsyncClient, api: str, stream: bool) -> None:
    is_down(chain)
    with pytest.raises(ollama.ResponseError) as caught:
        await _drain(guarded, api, "Hello", stream=stream)
    assert caught.value.status_code == 503
