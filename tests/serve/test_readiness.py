"""Readiness that depends on whether Aim can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from structlog.testing import capture_logs

from extproc.serve.instance import Instance, start_client
from extproc.serve.readiness import Readiness
from extproc.telemetry.snapshot import Phase
from tests.fakes.process import free_port
from tests.fakes.sidecar import settings_for, sidecar


class Address:
    """A server at Aim's address. It answers every request with the same status."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 404
        self.heads: list[str] = []
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                self.heads.append(head.lower())
                self.asked.set()
                await self.answers.wait()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        async with server:
            yield


@asynccontextmanager
async def watching(
    base: str, *, aim: bool, pause_seconds: float
) -> AsyncIterator[tuple[Readiness, asyncio.Queue[bool]]]:
    """Serve and watch Aim; yield the readiness and a queue of its changes."""
    changes: asyncio.Queue[bool] = asyncio.Queue()
    settings = settings_for(base, readiness={"aim": aim})
    async with sidecar(settings) as guard, asyncio.TaskGroup() as group:
        readiness = Readiness(needs_aim=aim, on_change=changes.put_nowait)
        instance = Instance(guard.service, None, group, readiness)
        readiness.enter(Phase.SERVING)
        task = group.create_task(readiness.watch_aim(instance.is_aim_reachable, pause_seconds))
        try:
            yield readiness, changes
        finally:
            task.cancel()


async def change(changes: asyncio.Queue[bool]) -> bool:
    return await asyncio.wait_for(changes.get(), 30)


def phase_of(readiness: Readiness) -> str:
    return readiness.phase.value


async def test_process_is_ready_while_aim_answers_whatever_it_says() -> None:
    there = Address()
    async with watching(there.base, aim=True, pause_seconds=0.02) as (readiness, changes):
        assert phase_of(readiness) == "not ready"
        async with there.listening():
            assert await change(changes) is True
            assert phase_of(readiness) == "serving"
            there.status = 502  # a proxy's answer if its upstream cannot be reached
            assert await change(changes) is False
            there.status = 401
            assert await change(changes) is True
            readiness.enter(Phase.DRAINING)
            assert await change(changes) is False
            assert phase_of(readiness) == "draining"
    assert all(head.startswith("head / ") for head in there.heads)
    assert not any("authorization" in head or "test-key" in head for head in there.heads)


async def test_aim_is_not_probed_unless_readiness_depends_on_it() -> None:
    there = Address()
    async with there.listening(), watching(there.base, aim=False, pause_seconds=0) as (readiness, changes):
        assert await change(changes) is True
        for _ in range(100):
            await asyncio.sleep(0)
        assert readiness.is_ready
        assert changes.empty()
    assert there.heads == []


async def test_client_that_is_retired_during_a_probe_still_gets_its_answer() -> None:
    there = Address()
    there.answers.clear()
    async with there.listening(), asyncio.TaskGroup() as group:
        client = start_client(settings_for(there.base), group)
        probe = group.create_task(client.is_reachable())
        await asyncio.wait_for(there.asked.wait(), 10)
        client.retire()  # as a reload does
        there.answers.set()
        assert await probe is True


async def test_unforeseen_error_of_a_probe_does_not_end_the_watch() -> None:
    probes = 0
    enough = asyncio.Event()

    async def probe() -> bool:
        nonlocal probes
        probes += 1
        if probes == 2:
            enough.set()
        raise LookupError

    readiness = Readiness(needs_aim=True)
    readiness.enter(Phase.SERVING)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(readiness.watch_aim(probe, pause_seconds=0))
            await asyncio.wait_for(enough.wait(), 30)
            task.cancel()
    assert not readiness.is_ready
    assert [record["event"] for record in logs].count("aim_unreachable") == 1
    assert {record["type"] for record in logs if record["event"] == "internal_error"} == {"LookupError"}
