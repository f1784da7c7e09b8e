"""The client of one Aim: its tasks, and what its end closes."""

from __future__ import annotations

import asyncio
import json

from structlog.testing import capture_logs

from extproc.core.verdict import Allow
from extproc.core.vocabulary import Hook
from tests.fakes.aim import ScriptedAim, chunk_of
from tests.fakes.aim_client import ASKED, CALLER, Events, client_of


async def test_failed_task_does_not_end_the_others(aim: ScriptedAim) -> None:
    async def fail(number: int) -> None:
        raise ValueError(number)

    async with client_of(aim.base) as client:
        with capture_logs() as logs:
            await client.start(fail, 1)
        assert [record["event"] for record in logs] == ["internal_error"]
        assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()


async def test_leaving_the_client_closes_its_sessions(aim: ScriptedAim) -> None:
    events = Events()
    async with client_of(aim.base) as client:
        session = client.open_session(1, CALLER, events)
        session.submit(json.dumps(chunk_of("a")))
        await events.next()
    await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)
