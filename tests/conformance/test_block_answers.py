"""Blocks as answers (`refusal: {as: answer}`) in the SDKs: the message is ordinary text, whole and streamed."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance import models, other_models
from tests.conformance.harness import MESSAGE, blocks_answers, blocks_at_once, blocks_requests
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig, rig

pytestmark = [
    *needs_envoy,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Told = tuple[str, Any]
"""The text that a client was told, and why it ended."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def answering() -> AsyncIterator[Rig]:
    """Yield a chain whose blocks are answers."""
    async with rig(profiles={"default": {"refusal": {"as": "answer"}}}) as chain:
        yield chain


@asynccontextmanager
async def _client(module: str, chain: Rig) -> AsyncIterator[Any]:
    """Open the client of a module with the tests of an SDK."""
    tests = importlib.import_module(f"tests.conformance.{module}")
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(tests.client(chain.envoy.url))


def _say(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def _chat(client: Any, text: str, stream: bool) -> Told:
    got = await client.chat.completions.create(model="m", messages=_say(text), stream=stream)
    if not stream:
        return got.choices[0].message.content, got.choices[0].finish_reason
    choices = [chunk.choices[0] async for chunk in got if chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason


async def _completions(client: Any, text: str, stream: bool) -> Told:
    got = await client.completions.create(model="m", prompt=text, stream=stream)
    if not stream:
        return got.choices[0].text, got.choices[0].finish_reason
    choices = [chunk.choices[0] async for chunk in got]
    return "".join(choice.text for choice in choices), choices[-1].finish_reason


async def _responses(client: Any, text: str, stream: bool) -> Told:
    if stream:
        async with client.responses.stream(model="m", input=text) as events:
            got = await events.get_final_response()
    else:
        got = await client.responses.create(model="m", input=text)
    parts = [part for item in got.output for part in item.content]
    return "".join(part.refusal if part.type == "refusal" else part.text for part in parts), parts[-1].type


async def _messages(client: Any, text: str, stream: bool) -> Told:
    usual: Any = {"model": "m", "max_tokens": 64, "messages": _say(text)}
    if stream:
        async with client.messages.stream(**usual) as events:
            got = await events.get_final_message()
    else:
        got = await client.messages.create(**usual)
    return "".join(block.text for block in got.content), got.stop_reason


async def _gemini(client: Any, text: str, stream: bool) -> Told:
    usual: Any = {"model": "gemini-pro", "contents": text}
    if not stream:
        got = await client.models.generate_content(**usual)
        return got.text, got.candidates[0].finish_reason.value
    pieces = [piece async for piece in await client.models.generate_content_stream(**usual)]
    return "".join(piece.text or "" for piece in pieces), pieces[-1].candidates[0].finish_reason.value


async def _interactions(client: Any, text: str, stream: bool) -> Told:
    got = await client.create(model="gemini-pro", input=text, stream=stream)
    if not stream:
        return got.steps[0].content[0].text, got.status
    events = [event async for event in got]
    deltas = [event.delta.text for event in events if event.event_type == "step.delta"]
    return "".join(deltas), events[-1].interaction.status


async def _cohere(client: Any, text: str, stream: bool) -> Told:
    usual: Any = {"model": "m", "messages": _say(text)}
    if not stream:
        got = await client.chat(**usual)
        return got.message.content[0].text, got.finish_reason
    events = [event async for event in client.chat_stream(**usual)]
    deltas = [event.delta.message.content.text for event in events if event.type == "content-delta"]
    return "".join(deltas), events[-1].delta.finish_reason


async def _ollama(client: Any, text: str, stream: bool) -> Told:
    got = await client.chat(model="m", messages=_say(text), stream=stream)
    if not stream:
        return got.message.content, got.done_reason
    lines = [line async for line in got]
    return "".join(line.message.content for line in lines), lines[-1].done_reason


async def _ollama_generate(client: Any, text: str, stream: bool) -> Told:
    got = await client.generate(model="m", prompt=text, stream=stream)
    if not stream:
        return got.response, got.done_reason
    lines = [line async for line in got]
    return "".join(line.response for line in lines), lines[-1].done_reason


async def _mistral(client: Any, text: str, stream: bool) -> Told:
    usual: Any = {"model": "m", "messages": _say(text)}
    if not stream:
        got = await client.chat.complete_async(**usual)
        return got.choices[0].message.content, got.choices[0].finish_reason
    choices = [event.data.choices[0] async for event in await client.chat.stream_async(**usual) if event.data.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason


async def _conversations(client: Any, text: str, stream: bool) -> Told:
    if not stream:
        got = await client.beta.conversations.start_async(model="m", inputs=text)
        return got.outputs[0].content, None
    events = [event.data async for event in await client.beta.conversations.start_stream_async(model="m", inputs=text)]
    return "".join(event.content for event in events if event.type == "message.output.delta"), None


async def _converse(client: Any, text: str, stream: bool) -> Told:
    usual: Any = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": text}]}]}

    def talk() -> Told:
        if not stream:
            got = client.converse(**usual)
            return got["output"]["message"]["content"][0]["text"], got["stopReason"]
        events = list(client.converse_stream(**usual)["stream"])
        deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
        return "".join(deltas), next(event["messageStop"]["stopReason"] for event in events if "messageStop" in event)

    return await asyncio.to_thread(talk)


async def _claude(client: Any, text: str, stream: bool) -> Told:
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": _say(text)})

    def talk() -> Told:
        if not stream:
            got = json.loads(client.invoke_model(modelId="m", body=body)["body"].read())
            return got["content"][0]["text"], got["stop_reason"]
        chunks = client.invoke_model_with_response_stream(modelId="m", body=body)["body"]
        events = [json.loads(each["chunk"]["bytes"]) for each in chunks]
        deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
        stops = [event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"]
        return "".join(deltas), stops[-1]

    return await asyncio.to_thread(talk)


Talk = Callable[[Any, str, bool], Awaitable[Told]]

SDKS: list[tuple[str, Any, Talk, str | None]] = [
    ("test_openai_sdk", models.chat, _chat, "content_filter"),
    ("test_openai_sdk", models.completions, _completions, "content_filter"),
    ("test_openai_sdk", models.responses, _responses, "refusal"),
    ("test_anthropic_sdk", models.messages, _messages, "refusal"),
    ("test_google_genai_sdk", models.gemini, _gemini, "SAFETY"),
    ("test_interactions_sdk", other_models.interactions, _interactions, "completed"),
    ("test_cohere_sdk", other_models.cohere, _cohere, "ERROR"),
    ("test_ollama_sdk", other_models.ollama, _ollama, "content_filter"),
    ("test_ollama_sdk", other_models.ollama, _ollama_generate, "content_filter"),
    ("test_mistral_sdk", other_models.mistral, _mistral, "content_filter"),
    ("test_mistral_sdk", other_models.conversations, _conversations, None),
    ("test_boto3", models.bedrock, _converse, "guardrail_intervened"),
    ("test_boto3", models.bedrock, _claude, "refusal"),
]

each_sdk = pytest.mark.parametrize(
    ("module", "model", "talk", "finish"), SDKS, ids=[talk.__name__.strip("_") for _, _, talk, _ in SDKS]
)


@each_sdk
async def test_message_is_ordinary_text(
    answering: Rig, module: str, model: Any, talk: Talk, finish: str | None
) -> None:
    """A blocked request, a blocked answer, and a stream that is blocked at its first words and in its midst."""
    async with _client(module, answering) as client:
        for stream in (False, True):
            answering.reset()
            blocks_requests(answering)
            assert await talk(client, "my secret", stream) == (MESSAGE, finish)
            assert answering.upstream.requests == []
        answering.upstream.answer = model
        blocks_answers(answering)
        assert await talk(client, "Hello", False) == (MESSAGE, finish)
        assert await talk(client, "Hello", True) == (f"It {MESSAGE}", finish)
        blocks_at_once(answering)
        assert await talk(client, "Hello", True) == (MESSAGE, finish)
