"""Google's SDK and its interactions through Envoy and the sidecar: the same objects, and errors that its users know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conformance import other_models
from tests.conformance.harness import (
    MESSAGE,
    blocks_answers,
    blocks_at_once,
    blocks_requests,
    is_down,
    redacts_the_city,
    same_with_and_without,
    sent,
)
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig

genai = pytest.importorskip("google.genai", reason="no google-genai here")
errors = pytest.importorskip("google.genai._interactions", reason="this google-genai has no interactions")

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]

_TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    options = {"base_url": url, "async_client_args": {"trust_env": False}, "retry_options": {"attempts": 1}}
    opened = genai.Client(api_key="k", http_options=options).aio
    yield opened.interactions
    await opened.aclose()


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = other_models.interactions


async def _talk(client: Any) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed."""
    asked = await client.create(model="gemini-pro", input="Hello", tools=[_TOOL], system_instruction="Be kind.")
    said = [{"type": "function_result", "call_id": "c1", "name": "weather", "result": "rain"}]
    told = await client.create(model="gemini-pro", input=said, previous_interaction_id=asked.id)
    events = [event async for event in await client.create(model="gemini-pro", input=said, stream=True)]
    calls = [
        event async for event in await client.create(model="gemini-pro", input="Hello", tools=[_TOOL], stream=True)
    ]
    return [answer.model_dump() for answer in (asked, told, *events, *calls)]


async def test_interactions_are_the_same(chain: Rig, guarded: Any, direct: Any) -> None:
    asked, told, *events = await same_with_and_without(_talk, guarded, direct)
    assert asked["steps"][0]["arguments"] == {"city": "Oslo"}
    assert told["steps"][0]["content"][0]["text"] == "It rains in Oslo."
    deltas = [event["delta"] for event in events if event["event_type"] == "step.delta"]
    assert "".join(delta["text"] for delta in deltas if delta["type"] == "text") == "It rains in Oslo."
    assert "".join(delta["arguments"] for delta in deltas if "arguments" in delta) == '{"city": "Oslo"}'
    assert len(chain.aim.asked("pre_call")) == 4
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


async def _ask(client: Any, text: str, *, stream: bool) -> list[str]:
    """Return the texts of an answer."""
    told = await client.create(model="gemini-pro", input=text, stream=stream)
    if not stream:
        return [told.steps[0].content[0].text]
    return [event.delta.text async for event in told if event.event_type == "step.delta"]


_streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@_streamed_or_not
async def test_a_blocked_request(chain: Rig, guarded: Any, stream: bool) -> None:
    blocks_requests(chain)
    with pytest.raises(errors.BadRequestError) as caught:
        await _ask(guarded, "my secret", stream=stream)
    assert caught.value.body["error"]["message"] == MESSAGE


async def test_a_blocked_answer(chain: Rig, guarded: Any) -> None:
    blocks_answers(chain)
    with pytest.raises(errors.BadRequestError) as caught:
        await _ask(guarded, "Hello", stream=False)
    assert caught.value.body["error"]["message"] == MESSAGE


async def test_a_block_before_the_first_byte(chain: Rig, guarded: Any) -> None:
    blocks_at_once(chain)
    with pytest.raises(errors.BadRequestError) as caught:
        await _ask(guarded, "Hello", stream=True)
    assert caught.value.body["error"]["message"] == MESSAGE


async def test_a_block_in_mid_stream_is_an_event(chain: Rig, guarded: Any) -> None:
    blocks_answers(chain)
    events = [event async for event in await guarded.create(model="gemini-pro", input="Hello", stream=True)]
    assert [event.delta.text for event in events if event.event_type == "step.delta"] == ["It "]
    assert (events[-1].event_type, events[-1].error.message) == ("error", MESSAGE)


async def test_redactions(chain: Rig, guarded: Any) -> None:
    redacts_the_city(chain)
    assert await _ask(guarded, "Is Oslo wet?", stream=False) == ["It rains in [CITY]."]
    assert "Is [CITY] wet?" in sent(chain)
    assert await _ask(guarded, "Is Oslo wet?", stream=True) == ["It ", "rains in", " [CITY]."]
    assert "Is [CITY] wet?" in sent(chain)


@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: Any, stream: bool) -> None:
    is_down(chain)
    with pytest.raises(errors.InternalServerError) as caught:
        await _ask(guarded, "Hello", stream=stream)
    assert caught.value.status_code == 503
