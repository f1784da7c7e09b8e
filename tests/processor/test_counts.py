"""What counts as open and as held, while something fails or Envoy takes nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest

from extproc.aim.client import AimClient
from extproc.processor.servicer import ExternalProcessor
from extproc.telemetry.metrics import Telemetry
from tests.fakes.aim import Answer, Question, ScriptedAim, anonymize, block
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.sidecar import settings_for, sidecar
from tests.processor.test_stream_writer import SlowEnvoy, request

SIZE = 100_000


@pytest.mark.parametrize("name", ["request_body", "immediate_response"])
async def test_message_that_envoy_does_not_take_counts_as_held(aim: ScriptedAim, name: str) -> None:
    async def judge(question: Question) -> Answer:
        return anonymize(question, lambda _: "x" * SIZE) if name == "request_body" else block("x" * SIZE)

    aim.judge = judge
    api = "firewall" if name == "request_body" else "detect"
    settings = settings_for(aim.base, aim={"api": api}, profiles={"default": {"hooks": ["pre_call"]}})
    envoy = SlowEnvoy(*request(streamed=False))
    async with (
        AimClient(settings) as client,
        ExternalProcessor(settings, client, Telemetry()) as service,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
    ):
        stream = service.stream_of(cast("Any", envoy))
        running = group.create_task(stream.run())
        envoy.take(None)
        assert [await envoy.offered.get() for _ in range(2)] == ["request_headers", name]
        assert SIZE < service.load.held_bytes < 3 * SIZE
        envoy.take(None)
        envoy.send(grpc.aio.EOF)
        await running
        stream.end()
        assert service.load.held_bytes == 0


async def test_gauge_that_fails_leaves_no_stream_behind(aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain would wait all its time for a stream that does not exist."""

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    async with sidecar(settings_for(aim.base)) as guard:
        for method in ("inc", "dec", "set"):
            monkeypatch.setattr(guard.service.telemetry.streams, method, full)
        async with asyncio.timeout(20), envoy_stream(f"127.0.0.1:{guard.port}") as stream:
            await stream.request_headers(path="/elsewhere", end=True)
            assert (await stream.read()).HasField("request_headers")
            assert guard.service.load.streams == 1
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.streams == 0
