"""Dynamic metadata for Envoy's access log, through a real Envoy: facts that are sent one after the other add up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.aim import Answer, Question, allow, block
from tests.fakes.rig import Rigs, chat_answer, manager_of
from tests.fakes.upstream import Received, whole


def logging_metadata(tree: Any) -> None:
    """Let the access log show all metadata of the sidecar."""
    log = manager_of(tree)["access_log"][0]["typed_config"]["log_format"]["json_format"]
    log["aim"] = "%DYNAMIC_METADATA(aim)%"


HOOKS = {"default": {"hooks": ["pre_call", "moderation", "output"]}}


@pytest.mark.parametrize("blocked", [None, "pre_call", "output"])
@pytest.mark.asyncio(loop_scope="package")
async def test_access_log_shows_every_fact_of_an_exchange(rigs: Rigs, blocked: str | None) -> None:
    chain = await rigs.get("metadata", edit=logging_metadata, profiles=HOOKS)

    async def judge(question: Question) -> Answer:
        return block("no") if question.headers["x-aim-litellm-hook"] == blocked else await allow(question)

    chain.aim.judge, chain.upstream.answer = judge, whole(chat_answer("Hi"))
    before = len(await chain.envoy.access_log(0))
    response = await chain.chat("Hello")
    assert response.status_code == (200 if blocked is None else 400)
    aim = (await chain.envoy.access_log(before + 1))[-1]["aim"]
    assert aim["call_id"] == response.headers["x-aim-call-id"]
    assert (aim["profile"], aim["dialect"]) == ("default", "openai-chat")
    legs = {leg: aim[leg]["action"] for leg in ("request", "response") if leg in aim}
    assert (
        legs
        == {
            None: {"request": "allow", "response": "allow"},
            "pre_call": {"request": "block"},
            "output": {"request": "allow", "response": "block"},
        }[blocked]
    )
    assert all(set(aim[leg]) == {"action", "policies", "ms"} for leg in legs)


@pytest.mark.parametrize("hook", ["pre_call", "output", None])
@pytest.mark.asyncio(loop_scope="package")
async def test_access_log_shows_what_is_known_when_the_client_leaves(rigs: Rigs, hook: str | None) -> None:
    """The client leaves while Aim judges the request or the answer, or while the model works."""
    chain = await rigs.get("metadata", edit=logging_metadata, profiles=HOOKS)
    has_come = asyncio.Event()

    async def judge(question: Question) -> Answer:
        if question.headers["x-aim-litellm-hook"] == hook:
            has_come.set()
            await asyncio.Event().wait()
        return await allow(question)

    async def work(request: Received) -> None:
        if hook is None:
            has_come.set()
            await request.gone.wait()
        else:
            await whole(chat_answer("Hi"))(request)

    chain.aim.judge, chain.upstream.answer = judge, work
    before = len(await chain.envoy.access_log(0))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(chain.chat("Hello"))
        await has_come.wait()
        asking.cancel()
    aim = (await chain.envoy.access_log(before + 1))[-1]["aim"]
    assert aim["call_id"] == chain.aim.questions[0].headers["x-aim-call-id"]
    assert (aim["profile"], aim["dialect"]) == ("default", "openai-chat")
    assert "response" not in aim
    assert aim.get("request", {}).get("action") == (None if hook == "pre_call" else "allow")
