"""Anthropic's SDK through Envoy and the sidecar: the same objects as without them, and errors that its users know."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.conformance import models
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

_TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
_HELLO: Any = [{"role": "user", "content": "Hello"}]
_SECRET: Any = [{"role": "user", "content": "my secret"}]
_SCHEMA: Any = {"format": {"type": "json_schema", "schema": {"type": "object"}}}


def client(url: str) -> anthropic.AsyncAnthropic:
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    return anthropic.AsyncAnthropic(base_url=url, api_key="sk-test", max_retries=0, http_client=http)


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = models.messages


async def _talk(client: anthropic.AsyncAnthropic) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed; then ask for structured output."""
    usual: Any = {"model": "m", "max_tokens": 64}
    create = client.messages.create
    asked = await create(**usual, messages=_HELLO, tools=[_TOOL], system="Be kind.")
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
    said = [
        *_HELLO,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in asked.content]},
        {"role": "user", "content": [result]},
    ]
    told = await create(**usual, messages=said, tools=[_TOOL])
    events = [event async for event in await create(**usual, messages=said, tools=[_TOOL], stream=True)]
    async with client.messages.stream(**usual, messages=_HELLO, tools=[_TOOL]) as stream:
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_message()
    structured = await create(**usual, messages=_HELLO, extra_body={"output_config": _SCHEMA})
    return [asked, told, events, kinds, streamed, structured]


async def test_messages_are_the_same(
    chain: Rig, guarded: anthropic.AsyncAnthropic, direct: anthropic.AsyncAnthropic
) -> None:
    asked, told, events, _, streamed, structured = await same_with_and_without(_talk, guarded, direct)
    assert asked.content[0].input == streamed.content[0].input == {"city": "Oslo"}
    assert told.content[0].text == "It rains in Oslo."
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == "It rains in Oslo."
    assert structured.content[0].text == '{"city": "Oslo", "degrees": 7}'
    assert len(chain.aim.asked("pre_call")) == 5
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


_streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@_streamed_or_not
async def test_a_blocked_request(chain: Rig, guarded: anthropic.AsyncAnthropic, stream: bool) -> None:
    blocks_requests(chain)
    with pytest.raises(anthropic.BadRequestError) as caught:
        await guarded.messages.create(model="m", max_tokens=64, messages=_SECRET, stream=stream)
    assert MESSAGE in caught.value.message
    assert caught.value.body == {"type": "error", "error": {"type": "invalid_request_error", "message": MESSAGE}}
    assert caught.value.response.headers["x-aim-call-id"]


async def test_a_blocked_answer(chain: Rig, guarded: anthropic.AsyncAnthropic) -> None:
    blocks_answers(chain)
    with pytest.raises(anthropic.BadRequestError) as caught:
        await guarded.messages.create(model="m", max_tokens=64, messages=_HELLO)
    assert MESSAGE in caught.value.message


async def test_a_block_in_mid_stream(chain: Rig, guarded: anthropic.AsyncAnthropic) -> None:
    blocks_answers(chain)
    texts: list[Any] = []
    async with guarded.messages.stream(model="m", max_tokens=64, messages=_HELLO) as stream:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await collect(stream.text_stream, texts)
    assert texts == ["It "]
    assert caught.value.body == {"type": "error", "error": {"type": "invalid_request_error", "message": MESSAGE}}
    assert MESSAGE in caught.value.message


async def test_a_block_before_the_first_byte(chain: Rig, guarded: anthropic.AsyncAnthropic) -> None:
    blocks_at_once(chain)
    with pytest.raises(anthropic.BadRequestError) as caught:
        await guarded.messages.create(model="m", max_tokens=64, messages=_HELLO, stream=True)
    assert MESSAGE in caught.value.message


async def test_redactions(chain: Rig, guarded: anthropic.AsyncAnthropic) -> None:
    redacts_the_city(chain)
    asked: Any = [{"role": "user", "content": "Is Oslo wet?"}]
    told = await guarded.messages.create(model="m", max_tokens=64, messages=asked)
    assert told.content[0].type == "text"
    assert told.content[0].text == "It rains in [CITY]."
    assert "Is [CITY] wet?" in sent(chain)
    async with guarded.messages.stream(model="m", max_tokens=64, messages=asked) as stream:
        assert await stream.get_final_text() == "It rains in [CITY]."
    assert "Is [CITY] wet?" in sent(chain)


@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: anthropic.AsyncAnthropic, stream: bool) -> None:
    is_down(chain)
    with pytest.raises(anthropic.InternalServerError) as caught:
        await guarded.messages.create(model="m", max_tokens=64, messages=_HELLO, stream=stream)
    assert caught.value.status_code == 503
    body: Any = caught.value.body
    assert body["error"]["type"] == "api_error"
