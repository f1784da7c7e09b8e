"""OpenAI's SDK through Envoy and the sidecar: the same objects as without them, and errors that its users know."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import BaseModel

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
from tests.fakes.upstream import whole

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]


class Weather(BaseModel):
    """The structured output that is asked for."""

    city: str
    degrees: int


_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_TOOL: Any = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": _PARAMETERS}}
_FLAT_TOOL: Any = {"type": "function", "name": "weather", "strict": True, "parameters": _PARAMETERS}
_HELLO: Any = [{"role": "user", "content": "Hello"}]
_SECRET: Any = [{"role": "user", "content": "my secret"}]


def client(url: str) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0, http_client=http)


async def _chat(client: openai.AsyncOpenAI) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed; then ask for structured output."""
    create = client.chat.completions.create
    said: Any = [*_HELLO]
    asked = await create(model="m", messages=said, tools=[_TOOL])
    call = asked.choices[0].message
    said += [call.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    told = await create(model="m", messages=said, tools=[_TOOL])
    chunks = [chunk async for chunk in await create(model="m", messages=said, stream=True)]
    async with client.chat.completions.stream(model="m", messages=_HELLO, tools=[_TOOL]) as stream:
        events = [event.type async for event in stream]
        streamed = await stream.get_final_completion()
    parsed = await client.chat.completions.parse(model="m", messages=_HELLO, response_format=Weather)
    async with client.chat.completions.stream(model="m", messages=_HELLO, response_format=Weather) as stream:
        structured = await stream.get_final_completion()
    return [asked, told, chunks, events, streamed, parsed, structured]


async def test_chat_is_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = models.chat
    asked, told, chunks, _, streamed, parsed, structured = await same_with_and_without(_chat, guarded, direct)
    assert asked.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    assert told.choices[0].message.content == "It rains in Oslo."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It rains in Oslo."
    assert streamed.choices[0].message.tool_calls[0].function.parsed_arguments == {"city": "Oslo"}
    assert parsed.choices[0].message.parsed == Weather(city="Oslo", degrees=7) == structured.choices[0].message.parsed
    assert len(chain.aim.asked("pre_call")) == 6
    assert len(chain.aim.asked("output")) == 3
    assert len([session for session in chain.aim.sessions if session.is_done]) == 3


async def _completions(client: openai.AsyncOpenAI) -> list[Any]:
    told = await client.completions.create(model="m", prompt="Hello")
    chunks = [chunk async for chunk in await client.completions.create(model="m", prompt="Hello", stream=True)]
    return [told, chunks]


async def test_completions_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = models.completions
    told, chunks = await same_with_and_without(_completions, guarded, direct)
    assert told.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks) == "It rains in Oslo."


async def _responses(client: openai.AsyncOpenAI) -> list[Any]:
    create = client.responses.create
    asked = await create(model="m", input="Hello", tools=[_FLAT_TOOL])
    said: Any = [
        *_HELLO,
        asked.output[0].model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    ]
    told = await create(model="m", input=said, tools=[_FLAT_TOOL])
    events = [event async for event in await create(model="m", input=said, stream=True)]
    async with client.responses.stream(model="m", input="Hello", tools=[_FLAT_TOOL]) as stream:
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_response()
    parsed = await client.responses.parse(model="m", input="Hello", text_format=Weather)
    return [asked, told, events, kinds, streamed, parsed]


async def test_responses_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = models.responses
    asked, told, events, _, streamed, parsed = await same_with_and_without(_responses, guarded, direct)
    assert asked.output[0].arguments == streamed.output[0].arguments == '{"city": "Oslo"}'
    assert told.output_text == "It rains in Oslo." == events[-1].response.output_text
    assert parsed.output_parsed == Weather(city="Oslo", degrees=7)


def _calls(client: openai.AsyncOpenAI, messages: Any, *, stream: bool) -> dict[str, Any]:
    text = messages[0]["content"]
    return {
        "chat": lambda: client.chat.completions.create(model="m", messages=messages, stream=stream),
        "completions": lambda: client.completions.create(model="m", prompt=text, stream=stream),
        "responses": lambda: client.responses.create(model="m", input=text, stream=stream),
    }


def _message_of(error: openai.APIError) -> str:
    """Return the message of the error object that the SDK read."""
    assert isinstance(error.body, dict)
    return str(error.body["message"])


_MODELS = {"chat": models.chat, "completions": models.completions, "responses": models.responses}
_each_api = pytest.mark.parametrize("api", list(_MODELS))
_streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@_each_api
@_streamed_or_not
async def test_a_blocked_request(chain: Rig, guarded: openai.AsyncOpenAI, api: str, stream: bool) -> None:
    blocks_requests(chain)
    with pytest.raises(openai.BadRequestError) as caught:
        await _calls(guarded, _SECRET, stream=stream)[api]()
    assert MESSAGE in caught.value.message
    assert (caught.value.code, caught.value.type) == ("content_policy_violation", "invalid_request_error")
    assert _message_of(caught.value) == MESSAGE
    assert caught.value.response.headers["x-aim-call-id"]


@_each_api
async def test_a_blocked_answer(chain: Rig, guarded: openai.AsyncOpenAI, api: str) -> None:
    blocks_answers(chain)
    chain.upstream.answer = _MODELS[api]
    with pytest.raises(openai.BadRequestError) as caught:
        await _calls(guarded, _HELLO, stream=False)[api]()
    assert _message_of(caught.value) == MESSAGE


@pytest.mark.parametrize("api", ["chat", "completions"])
async def test_a_block_in_mid_stream(chain: Rig, guarded: openai.AsyncOpenAI, api: str) -> None:
    blocks_answers(chain)
    chain.upstream.answer = _MODELS[api]
    stream = await _calls(guarded, _HELLO, stream=True)[api]()
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        await collect(stream, chunks)
    said = [chunk.choices[0].delta.content if api == "chat" else chunk.choices[0].text for chunk in chunks]
    assert "".join(text or "" for text in said) == "It "
    assert caught.value.message == MESSAGE
    assert caught.value.code == "content_policy_violation"


async def test_a_block_in_mid_stream_of_a_response_is_an_event(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    blocks_answers(chain)
    chain.upstream.answer = models.responses
    stream = await guarded.responses.create(model="m", input="Hello", stream=True)
    events: list[Any] = [event async for event in stream]
    *before, last = events
    assert [event.delta for event in before if event.type == "response.output_text.delta"] == ["It "]
    assert (last.type, last.message, last.code) == ("error", MESSAGE, "content_policy_violation")
    assert [event.sequence_number for event in (*before, last)] == list(range(len(before) + 1))


@_each_api
async def test_a_block_before_the_first_byte(chain: Rig, guarded: openai.AsyncOpenAI, api: str) -> None:
    blocks_at_once(chain)
    chain.upstream.answer = _MODELS[api]
    with pytest.raises(openai.BadRequestError) as caught:
        await _calls(guarded, _HELLO, stream=True)[api]()
    assert _message_of(caught.value) == MESSAGE


def _text_of(api: str, answer: Any) -> str:
    """Return the text of a whole answer."""
    if api == "responses":
        return str(answer.output_text)
    return str(answer.choices[0].message.content if api == "chat" else answer.choices[0].text)


def _deltas(api: str, events: list[Any]) -> str:
    """Return the text of a stream."""
    if api == "responses":
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")
    choices = [choice for event in events for choice in event.choices]
    return "".join((choice.delta.content if api == "chat" else choice.text) or "" for choice in choices)


@_each_api
async def test_redactions(chain: Rig, guarded: openai.AsyncOpenAI, api: str) -> None:
    redacts_the_city(chain)
    chain.upstream.answer = _MODELS[api]
    asked: Any = [{"role": "user", "content": "Is Oslo wet?"}]
    assert _text_of(api, await _calls(guarded, asked, stream=False)[api]()) == "It rains in [CITY]."
    assert "Is [CITY] wet?" in sent(chain)
    events = [event async for event in await _calls(guarded, asked, stream=True)[api]()]
    assert _deltas(api, events) == "It rains in [CITY]."
    assert "Is [CITY] wet?" in sent(chain)


@_each_api
@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: openai.AsyncOpenAI, api: str, stream: bool) -> None:
    is_down(chain)
    with pytest.raises(openai.InternalServerError) as caught:
        await _calls(guarded, _HELLO, stream=stream)[api]()
    assert (caught.value.status_code, caught.value.code) == (503, "guardrail_unavailable")


async def test_unreadable_answer_is_not_asked_for_again(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = whole(b'{"choices": [')
    with pytest.raises(openai.InternalServerError) as caught:
        await guarded.with_options(max_retries=2).chat.completions.create(model="m", messages=_HELLO)
    assert caught.value.code == "guardrail_unreadable_response"
    assert len(chain.upstream.requests) == 1
