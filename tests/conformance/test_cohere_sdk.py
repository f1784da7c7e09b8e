"""Cohere's SDK through Envoy and the sidecar: the same objects as without them, and errors that its users know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cohere
import httpx
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
_DOCUMENTS: Any = [{"data": {"title": "Norway"}}, "It is wet."]
_JSON: Any = {"type": "json_object"}
_HELLO: Any = [{"role": "user", "content": "Hello"}]
_SECRET: Any = [{"role": "user", "content": "my secret"}]
_CITY: Any = [{"role": "user", "content": "Is Oslo wet?"}]


@asynccontextmanager
async def client(url: str) -> AsyncIterator[cohere.AsyncClientV2]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield cohere.AsyncClientV2("k", base_url=url, max_retries=0, httpx_client=http)


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = other_models.cohere


async def _talk(client: cohere.AsyncClientV2) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed; then ask for structured output."""
    asked = await client.chat(model="m", messages=_HELLO, tools=[_TOOL])
    call: Any = {"role": "assistant", "tool_calls": asked.message.tool_calls, "tool_plan": asked.message.tool_plan}
    said = [*_HELLO, call, {"role": "tool", "tool_call_id": "t1", "content": "rain"}]
    told = await client.chat(model="m", messages=said, tools=[_TOOL], documents=_DOCUMENTS)
    events = [event async for event in client.chat_stream(model="m", messages=said, tools=[_TOOL])]
    calls = [event async for event in client.chat_stream(model="m", messages=_HELLO, tools=[_TOOL])]
    structured = await client.chat(model="m", messages=_HELLO, response_format=_JSON)
    return [asked, told, events, calls, structured]


async def test_chat_is_the_same(chain: Rig, guarded: cohere.AsyncClientV2, direct: cohere.AsyncClientV2) -> None:
    asked, told, events, calls, structured = await same_with_and_without(_talk, guarded, direct)
    assert asked.message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    assert told.message.content[0].text == "It rains in Oslo."
    assert _texts(events) == ["It ", "rains in", " Oslo."]
    pieces = [each.delta.message.tool_calls.function.arguments for each in calls if each.type == "tool-call-delta"]
    assert "".join(pieces) == '{"city": "Oslo"}'
    assert structured.message.content[0].text == '{"city": "Oslo", "degrees": 7}'
    assert len(chain.aim.asked("pre_call")) == 5
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


async def _search(client: cohere.AsyncClientV2) -> list[Any]:
    embedded = await client.embed(model="m", input_type="search_query", texts=["Hello"], embedding_types=["float"])
    ranked = await client.rerank(model="m", query="weather", documents=["It rains.", "It snows."])
    return [embedded, ranked]


async def test_search_is_the_same(chain: Rig, guarded: cohere.AsyncClientV2, direct: cohere.AsyncClientV2) -> None:
    embedded, ranked = await same_with_and_without(_search, guarded, direct)
    assert embedded.embeddings.float_ == [[0.25, -0.5]]
    assert [result.index for result in ranked.results] == [0, 1]
    assert len(chain.aim.asked("pre_call")) == 1


def _texts(events: list[Any]) -> list[str]:
    return [event.delta.message.content.text for event in events if event.type == "content-delta"]


async def _chat(client: cohere.AsyncClientV2, messages: Any, *, stream: bool) -> None:
    if stream:
        await collect(client.chat_stream(model="m", messages=messages), [])
    else:
        await client.chat(model="m", messages=messages)


_streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@_streamed_or_not
async def test_a_blocked_request(chain: Rig, guarded: cohere.AsyncClientV2, stream: bool) -> None:
    blocks_requests(chain)
    with pytest.raises(cohere.BadRequestError) as caught:
        await _chat(guarded, _SECRET, stream=stream)
    assert caught.value.body == {"message": MESSAGE}
    assert caught.value.headers is not None
    assert caught.value.headers["x-aim-call-id"]


async def test_a_blocked_search(chain: Rig, guarded: cohere.AsyncClientV2) -> None:
    blocks_requests(chain)
    with pytest.raises(cohere.BadRequestError) as caught:
        await guarded.rerank(model="m", query="weather", documents=["a secret"])
    assert caught.value.body == {"message": MESSAGE}


async def test_a_blocked_answer(chain: Rig, guarded: cohere.AsyncClientV2) -> None:
    blocks_answers(chain)
    with pytest.raises(cohere.BadRequestError) as caught:
        await _chat(guarded, _HELLO, stream=False)
    assert caught.value.body == {"message": MESSAGE}


async def test_a_block_in_mid_stream_is_the_end_of_the_message(chain: Rig, guarded: cohere.AsyncClientV2) -> None:
    """The SDK has no exception for it: it gives the error of the last event to its user."""
    blocks_answers(chain)
    events = [event async for event in guarded.chat_stream(model="m", messages=_HELLO)]
    assert _texts(events) == ["It "]
    assert events[-1].type == "message-end"
    assert events[-1].delta is not None
    assert (events[-1].delta.finish_reason, events[-1].delta.error) == ("ERROR", MESSAGE)


async def test_a_block_before_the_first_byte(chain: Rig, guarded: cohere.AsyncClientV2) -> None:
    blocks_at_once(chain)
    with pytest.raises(cohere.BadRequestError) as caught:
        await _chat(guarded, _HELLO, stream=True)
    assert caught.value.body == {"message": MESSAGE}


async def test_redactions(chain: Rig, guarded: cohere.AsyncClientV2) -> None:
    redacts_the_city(chain)
    told = await guarded.chat(model="m", messages=_CITY)
    assert "Is [CITY] wet?" in sent(chain)
    content: Any = told.message.content
    assert content[0].text == "It rains in [CITY]."
    events = [event async for event in guarded.chat_stream(model="m", messages=_CITY)]
    assert "Is [CITY] wet?" in sent(chain)
    assert _texts(events) == ["It ", "rains in", " [CITY]."]
    await guarded.rerank(model="m", query="rain in Oslo", documents=["Oslo is wet.", "Bergen is wetter."])
    assert "rain in [CITY]" in sent(chain)
    assert "[CITY] is wet." in sent(chain)


@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: cohere.AsyncClientV2, stream: bool) -> None:
    is_down(chain)
    with pytest.raises(cohere.ServiceUnavailableError) as caught:
        await _chat(guarded, _HELLO, stream=stream)
    assert caught.value.status_code == 503
