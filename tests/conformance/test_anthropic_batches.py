"""Anthropic's SDK with batches: the same objects as without Envoy, and errors that its users know."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.conformance import files
from tests.conformance.harness import MESSAGE, blocks_answers, blocks_requests, same_with_and_without
from tests.conformance.test_anthropic_sdk import client as client
from tests.envoy.case import redacts
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]


def _requests(*texts: str) -> Any:
    params = [{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]} for text in texts]
    return [{"custom_id": name, "params": each} for name, each in zip("abcd", params, strict=False)]


async def _batch(client: anthropic.AsyncAnthropic) -> list[Any]:
    created = await client.messages.batches.create(requests=_requests("Hello", "Bye"))
    seen = await client.messages.batches.retrieve("msgbatch_1")
    results = [result async for result in await client.messages.batches.results("msgbatch_1")]
    return [created.id, created.processing_status, seen.id, results]


async def test_batches_are_the_same(
    chain: Rig, guarded: anthropic.AsyncAnthropic, direct: anthropic.AsyncAnthropic
) -> None:
    chain.upstream.answer = files.message_batches
    *_, results = await same_with_and_without(_batch, guarded, direct)
    assert [(result.custom_id, result.result.message.content[0].text) for result in results] == [
        ("a", files.SAID),
        ("b", files.SAID),
    ]
    asked = sorted(question.body["messages"][0]["content"] for question in chain.aim.asked("pre_call"))
    assert asked == ["Bye", "Hello"]
    assert len(chain.aim.questions) == 2


async def test_batches_and_results_are_redacted(redacting: Rig, redacted: anthropic.AsyncAnthropic) -> None:
    redacting.upstream.answer = files.message_batches
    redacts("Oslo", "[CITY]")(redacting.aim)
    await redacted.messages.batches.create(requests=_requests("In Oslo", "Bye"))
    assert b"In [CITY]" in redacting.upstream.requests[-1].body
    results: list[Any] = [result async for result in await redacted.messages.batches.results("msgbatch_1")]
    assert [result.result.message.content[0].text for result in results] == [files.SAID.replace("Oslo", "[CITY]")] * 2


async def test_a_blocked_record(chain: Rig, guarded: anthropic.AsyncAnthropic) -> None:
    blocks_requests(chain)
    with pytest.raises(anthropic.BadRequestError) as caught:
        await guarded.messages.batches.create(requests=_requests("Hello", "my secret", "Bye"))
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"] == {
        "type": "invalid_request_error",
        "message": f"{MESSAGE} (custom_id: b)",
    }


async def test_blocked_results(chain: Rig, guarded: anthropic.AsyncAnthropic) -> None:
    chain.upstream.answer = files.message_batches
    blocks_answers(chain)
    with pytest.raises(anthropic.BadRequestError) as caught:
        _ = [result async for result in await guarded.messages.batches.results("msgbatch_1")]
    assert MESSAGE in str(caught.value)
