"""Threads, runs and moderations of OpenAI's SDK through Envoy and the sidecar."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.conformance import other_models
from tests.conformance.harness import (
    MESSAGE,
    blocks_answers,
    blocks_requests,
    collect,
    is_down,
    redacts_the_city,
    same_with_and_without,
    sent,
)
from tests.conformance.test_openai_sdk import client
from tests.envoy.case import blocks
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig

pytestmark = [
    *needs_envoy,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
]

__all__ = ["client"]  # which the fixtures look for in this module

_RUN: Any = {"thread_id": "thread_1", "assistant_id": "asst_1"}


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = other_models.threads


async def _talk(client: openai.AsyncOpenAI) -> list[Any]:
    """Say something in a thread, run its assistant, whole and streamed, and read what the thread then says."""
    threads = client.beta.threads
    said = await threads.messages.create("thread_1", role="user", content="Hello")
    run = await threads.runs.create(**_RUN, instructions="Be kind.")
    events = [event async for event in await threads.runs.create(**_RUN, stream=True)]
    async with threads.runs.stream(**_RUN) as stream:
        await stream.until_done()
        messages = await stream.get_final_messages()
    listed = await threads.messages.list("thread_1")
    return [said, run, events, messages, listed.data]


async def test_threads_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    said, run, events, messages, listed = await same_with_and_without(_talk, guarded, direct)
    assert said.content[0].text.value == "Hello"
    assert run.status == "queued"
    assert "".join(_texts(events)) == messages[0].content[0].text.value == listed[0].content[0].text.value
    assert listed[0].content[0].text.value == "It rains in Oslo."
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


def _texts(events: list[Any]) -> list[str]:
    return [event.data.delta.content[0].text.value for event in events if event.event == "thread.message.delta"]


async def _moderate(client: openai.AsyncOpenAI) -> list[Any]:
    return [await client.moderations.create(input=["Hello", "It rains."])]


async def test_moderations_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = other_models.moderations
    (moderated,) = await same_with_and_without(_moderate, guarded, direct)
    assert not moderated.results[0].flagged
    assert len(chain.aim.asked("pre_call")) == 1


def _calls(client: openai.AsyncOpenAI, text: str) -> dict[str, Any]:
    threads = client.beta.threads
    return {
        "message": lambda: threads.messages.create("thread_1", role="user", content=text),
        "run": lambda: threads.runs.create(**_RUN, additional_instructions=text),
        "stream": lambda: threads.runs.create(**_RUN, additional_instructions=text, stream=True),
        "moderation": lambda: client.moderations.create(input=text),
    }


_each_call = pytest.mark.parametrize("call", ["message", "run", "stream", "moderation"])


def _body(error: openai.APIError) -> Any:
    return error.body


@_each_call
async def test_a_blocked_request(chain: Rig, guarded: openai.AsyncOpenAI, call: str) -> None:
    blocks_requests(chain)
    with pytest.raises(openai.BadRequestError) as caught:
        await _calls(guarded, "my secret")[call]()
    assert _body(caught.value)["message"] == MESSAGE
    assert caught.value.code == "content_policy_violation"


async def test_a_blocked_answer(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    blocks_answers(chain)
    with pytest.raises(openai.BadRequestError) as caught:
        await guarded.beta.threads.messages.list("thread_1")
    assert _body(caught.value)["message"] == MESSAGE


async def test_a_block_before_the_first_byte(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    blocks("Be kind.", MESSAGE)(chain.aim)  # the first event repeats the run's instructions
    with pytest.raises(openai.BadRequestError) as caught:
        await _calls(guarded, "Hello")["stream"]()
    assert _body(caught.value)["message"] == MESSAGE


async def test_a_block_in_mid_stream(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    blocks_answers(chain)
    events: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        await collect(await _calls(guarded, "Hello")["stream"](), events)
    assert _texts(events) == ["It "]
    assert MESSAGE in caught.value.message


async def test_redactions(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    redacts_the_city(chain)
    await _calls(guarded, "Is Oslo wet?")["message"]()
    assert "Is [CITY] wet?" in sent(chain)
    (said,) = (await guarded.beta.threads.messages.list("thread_1")).data
    assert said.content[0].type == "text"
    assert said.content[0].text.value == "It rains in [CITY]."
    events = [event async for event in await _calls(guarded, "Is Oslo wet?")["stream"]()]
    assert "Is [CITY] wet?" in sent(chain)
    assert _texts(events) == ["It ", "rains in", " [CITY]."]
    chain.upstream.answer = other_models.moderations
    await _calls(guarded, "Is Oslo wet?")["moderation"]()
    assert "Is [CITY] wet?" in sent(chain)


@_each_call
async def test_aim_is_down(chain: Rig, guarded: openai.AsyncOpenAI, call: str) -> None:
    is_down(chain)
    with pytest.raises(openai.InternalServerError) as caught:
        await _calls(guarded, "Hello")[call]()
    assert (caught.value.status_code, caught.value.code) == (503, "guardrail_unavailable")
