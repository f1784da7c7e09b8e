"""What counts as open and as held, while something fails or Envoy takes nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest

from extproc.aim.client import AimClient
from extproc.config.settings import Settings
from extproc.processor.servicer import ExternalProcessor
from extproc.telemetry.metrics import Telemetry
from tests.fakes.aim import AimSession, Answer, Question, ScriptedAim, anonymize, block, chunk_of
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.rig import chat_answer
from tests.fakes.sidecar import settings_for, sidecar
from tests.processor.test_stream_writer import JSON, SSE, SlowEnvoy, body, piece, request

SIZE = 100_000
PIECE = 50_000
"""Less than the largest message in which a body leaves."""


async def check_held(settings: Settings, envoy: SlowEnvoy, names: list[str], size: int) -> None:
    """Serve a stream of `envoy`, which does not take the last of these messages; that one has about `size` bytes."""
    async with (
        AimClient(settings) as client,
        ExternalProcessor(settings, client, Telemetry()) as service,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
    ):
        stream = service.stream_of(cast("Any", envoy))
        running = group.create_task(stream.run())
        envoy.take(*[None] * (len(names) - 1))
        assert [await envoy.offered.get() for _ in names] == names
        assert size < service.load.held_bytes < 3 * size
        envoy.take(None)
        envoy.send(grpc.aio.EOF)
        await running
        stream.end()
        assert service.load.held_bytes == 0


@pytest.mark.parametrize("name", ["request_body", "immediate_response"])
async def test_message_that_envoy_does_not_take_counts_as_held(aim: ScriptedAim, name: str) -> None:
    async def judge(question: Question) -> Answer:
        return anonymize(question, lambda _: "x" * SIZE) if name == "request_body" else block("x" * SIZE)

    aim.judge = judge
    api = "firewall" if name == "request_body" else "detect"
    settings = settings_for(aim.base, aim={"api": api}, profiles={"default": {"hooks": ["pre_call"]}})
    envoy = SlowEnvoy(*request(streamed=False))
    await check_held(settings, envoy, ["request_headers", name], SIZE)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_rewritten_answer_that_envoy_does_not_take_counts_as_held(
    aim: ScriptedAim, streamed: bool, opens: bool
) -> None:
    async def judge(question: Question) -> Answer:
        return anonymize(question, lambda _: "x" * PIECE)

    async def rewrite(session: AimSession) -> None:
        if await session.receive() is not None:
            await session.verify(chunk_of("x" * PIECE))

    aim.judge, aim.script = judge, rewrite
    profile = {"hooks": ["output"], "failure_mode_allow": opens}
    settings = settings_for(aim.base, aim={"api": "firewall"}, profiles={"default": profile})
    answer = [SSE, piece("Hi")] if streamed else [JSON, body("response_body", chat_answer("Hi"))]
    envoy = SlowEnvoy(*request(streamed=streamed), *answer)
    await check_held(settings, envoy, ["request_headers", "request_body", "response_headers", "response_body"], PIECE)


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
