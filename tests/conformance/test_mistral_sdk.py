"""Mistral's SDK through Envoy and the sidecar: the same objects as without them, and errors that its users know."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import MistralError, SDKError

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
_MODELS: Any = {"chat": other_models.mistral, "conversations": other_models.conversations}


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Mistral]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        yield Mistral(api_key="k", server_url=url, async_client=http)


def _say(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def _chat(client: Mistral) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed; then ask for structured output."""
    asked = await client.chat.complete_async(model="m", messages=_say("Hello"), tools=[_TOOL])
    said = [*_say("Hello"), asked.choices[0].message, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    told = await client.chat.complete_async(model="m", messages=said, tools=[_TOOL])
    events = [event async for event in await client.chat.stream_async(model="m", messages=said, tools=[_TOOL])]
    calls = [event async for event in await client.chat.stream_async(model="m", messages=_say("Hello"), tools=[_TOOL])]
    json_object: Any = {"type": "json_object"}
    structured = await client.chat.complete_async(model="m", messages=_say("Hello"), response_format=json_object)
    return [asked, told, events, calls, structured]


async def test_chat_is_the_same(chain: Rig, guarded: Mistral, direct: Mistral) -> None:
    chain.upstream.answer = other_models.mistral
    asked, told, events, calls, structured = await same_with_and_without(_chat, guarded, direct)
    assert asked.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    assert told.choices[0].message.content == "It rains in Oslo." == "".join(_texts("chat", events))
    assert calls[1].data.choices[0].delta.tool_calls == asked.choices[0].message.tool_calls
    assert structured.choices[0].message.content == '{"city": "Oslo", "degrees": 7}'
    assert len(chain.aim.asked("pre_call")) == 5
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


async def _converse(client: Mistral) -> list[Any]:
    """Begin a conversation, call a tool, tell its result; whole and streamed."""
    talk = client.beta.conversations
    asked = await talk.start_async(model="m", inputs="Hello", tools=[_TOOL])
    result: Any = [{"type": "function.result", "tool_call_id": "call_1", "result": "rain"}]
    told = await talk.append_async(conversation_id="conv_1", inputs=result)
    events = [event async for event in await talk.append_stream_async(conversation_id="conv_1", inputs=result)]
    calls = [event async for event in await talk.start_stream_async(model="m", inputs="Hello", tools=[_TOOL])]
    return [asked, told, events, calls]


async def test_conversations_are_the_same(chain: Rig, guarded: Mistral, direct: Mistral) -> None:
    chain.upstream.answer = other_models.conversations
    asked, told, events, calls = await same_with_and_without(_converse, guarded, direct)
    assert asked.outputs[0].arguments == '{"city": "Oslo"}'
    assert told.outputs[0].content == "It rains in Oslo." == "".join(_texts("conversations", events))
    assert "".join(each.data.arguments for each in calls if each.event == "function.call.delta") == '{"city": "Oslo"}'
    assert len(chain.aim.asked("pre_call")) == 4
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


def _texts(api: str, events: list[Any]) -> list[str]:
    if api == "conversations":
        return [event.data.content for event in events if event.event == "message.output.delta"]
    said = [choice.delta.content for event in events for choice in event.data.choices]
    return [text for text in said if text]


async def _ask(client: Mistral, api: str, text: str) -> Any:
    if api == "chat":
        answer: Any = await client.chat.complete_async(model="m", messages=_say(text))
        return answer.choices[0].message.content
    told: Any = await client.beta.conversations.start_async(model="m", inputs=text)
    return told.outputs[0].content


async def _stream(client: Mistral, api: str, text: str) -> Any:
    if api == "chat":
        return await client.chat.stream_async(model="m", messages=_say(text))
    return await client.beta.conversations.start_stream_async(model="m", inputs=text)


_each_api = pytest.mark.parametrize("api", list(_MODELS))
_streamed_or_not = pytest.mark.parametrize("ask", [_ask, _stream], ids=["whole", "stream"])


@_each_api
@_streamed_or_not
async def test_a_blocked_request(chain: Rig, guarded: Mistral, api: str, ask: Any) -> None:
    blocks_requests(chain)
    with pytest.raises(SDKError) as caught:
        await ask(guarded, api, "my secret")
    assert caught.value.status_code == 400
    assert MESSAGE in caught.value.message
    assert MESSAGE in _errors(caught.value)
    assert caught.value.headers["x-aim-call-id"]


def _errors(error: MistralError) -> Any:
    """Return the messages of an error's body."""
    body = json.loads(error.body)
    return body.get("message") or body["error"]["message"]


@_each_api
async def test_a_blocked_answer(chain: Rig, guarded: Mistral, api: str) -> None:
    blocks_answers(chain)
    chain.upstream.answer = _MODELS[api]
    with pytest.raises(SDKError) as caught:
        await _ask(guarded, api, "Hello")
    assert MESSAGE in caught.value.message


@_each_api
async def test_a_block_before_the_first_byte(chain: Rig, guarded: Mistral, api: str) -> None:
    blocks_at_once(chain)
    chain.upstream.answer = _MODELS[api]
    with pytest.raises(SDKError) as caught:
        await _stream(guarded, api, "Hello")
    assert MESSAGE in caught.value.message


async def test_a_block_in_mid_stream(chain: Rig, guarded: Mistral) -> None:
    blocks_answers(chain)
    chain.upstream.answer = other_models.mistral
    events: list[Any] = []
    with pytest.raises(MistralError) as caught:
        await collect(await _stream(guarded, "chat", "Hello"), events)
    assert _texts("chat", events) == ["It "]
    assert MESSAGE in caught.value.body


async def test_a_block_in_mid_stream_of_a_conversation_is_an_event(chain: Rig, guarded: Mistral) -> None:
    blocks_answers(chain)
    chain.upstream.answer = other_models.conversations
    events = [event async for event in await _stream(guarded, "conversations", "Hello")]
    assert _texts("conversations", events) == ["It "]
    assert (events[-1].event, events[-1].data.message, events[-1].data.code) == (
        "conversation.response.error",
        MESSAGE,
        400,
    )


@_each_api
async def test_redactions(chain: Rig, guarded: Mistral, api: str) -> None:
    redacts_the_city(chain)
    chain.upstream.answer = _MODELS[api]
    assert await _ask(guarded, api, "Is Oslo wet?") == "It rains in [CITY]."
    assert "Is [CITY] wet?" in sent(chain)
    events = [event async for event in await _stream(guarded, api, "Is Oslo wet?")]
    assert _texts(api, events) == ["It ", "rains in", " [CITY]."]
    assert "Is [CITY] wet?" in sent(chain)


@_each_api
@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: Mistral, api: str, ask: Any) -> None:
    is_down(chain)
    with pytest.raises(SDKError) as caught:
        await ask(guarded, api, "Hello")
    assert caught.value.status_code == 503
