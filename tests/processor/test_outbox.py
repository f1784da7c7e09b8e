"""The messages to Envoy: they are in order, joined if possible, and none follows a lost one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from extproc.core.commands import ImmediateResponse, ReleaseBody, ReleaseBuffered, ReleaseHeaders, Reset, ToEnvoy
from extproc.core.identity import NOBODY
from extproc.core.vocabulary import Leg
from extproc.processor import wire
from extproc.processor.outbox import Outbox
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.observation import Observation
from extproc.telemetry.record import ExchangeRecord


def sent() -> None:
    """Ignore the notification."""


HEADERS = ReleaseHeaders(Leg.RESPONSE)
REPLY = ImmediateResponse(400, (), b"no", "blocked")


class SlowEnvoy:
    """An Envoy that takes each message, or raises an exception, when the test tells it to."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.offered = asyncio.Event()
        self._answers: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        self.offered.set()
        if (error := await self._answers.get()) is not None:
            raise error
        self.taken.append(wire.Response.FromString(data))

    def take(self, *answers: Exception | None) -> None:
        for answer in answers:
            self._answers.put_nowait(answer)

    @property
    def bodies(self) -> list[bytes]:
        return [reply.response_body.response.body_mutation.streamed_response.body for reply in self.taken]


def outbox(envoy: SlowEnvoy, *commands: ToEnvoy) -> Outbox:
    observation = Observation(Telemetry(), ExchangeRecord("call-1", "default"), NOBODY, began=0.0, is_dry_run=False)
    made = Outbox(cast("Any", envoy), observation)
    for command in commands:
        made.put(command)
    return made


def body(data: bytes, *, end: bool = False) -> ReleaseBody:
    return ReleaseBody(Leg.RESPONSE, data, end)


async def test_active_writer_also_sends_messages_queued_meanwhile() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, HEADERS)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(box.flush(sent))
        await envoy.offered.wait()
        box.put(body(b"a"))
        assert not box.is_due
        await box.flush(sent)  # it returns at once
        assert not envoy.taken
        settled = group.create_task(box.settled())
        envoy.take(None, None)
        await settled
        assert envoy.bodies == [b"", b"a"]
        assert box.unsent == 0
        assert not box.is_due
        await box.settled()  # no task writes


async def test_pieces_of_one_body_are_joined() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, body(b"a"), body(b"b"), ReleaseBody(Leg.REQUEST, b"c"), body(b"d", end=True))
    assert box.unsent == 4
    envoy.take(None, None, None)
    await box.flush(sent)
    assert [reply.WhichOneof("response") for reply in envoy.taken] == ["response_body", "request_body", "response_body"]
    assert envoy.bodies[0] == b"ab"
    assert envoy.taken[2].response_body.response.body_mutation.streamed_response.end_of_stream
    assert box.unsent == 0


@pytest.mark.parametrize(
    ("command", "size"), [(ReleaseBuffered(Leg.REQUEST, b"abc"), 3), (ReleaseBuffered(Leg.REQUEST), 0), (REPLY, 2)]
)
async def test_body_counts_as_unsent_until_envoy_has_taken_it(command: ToEnvoy, size: int) -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, HEADERS, command)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(box.flush(sent))
        await envoy.offered.wait()
        assert box.unsent == size
        envoy.offered.clear()
        envoy.take(None)
        await envoy.offered.wait()
        assert box.unsent == size  # it is being written
        envoy.take(None)
    assert box.unsent == 0


async def test_outbox_of_a_stream_that_is_over_keeps_nothing() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, body(b"a"), HEADERS, body(b"bcd"))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(box.flush(sent))
        await envoy.offered.wait()
        box.close()
        assert box.unsent == 1
        box.put(body(b"e"))
        envoy.take(None)
    assert box.unsent == 0
    assert len(envoy.taken) == 1


@pytest.mark.parametrize("error", [grpc.aio.InternalError("gone"), ValueError("odd")])
async def test_nothing_is_written_after_a_failed_write(error: Exception) -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, HEADERS, body(b"a"))
    envoy.take(error, None)
    await box.flush(sent)
    assert box.reset is not None
    assert box.unsent == 0
    await box.flush(sent)
    assert not envoy.taken


async def test_nothing_is_written_after_a_cancelled_write() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, HEADERS, body(b"a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await box.flush(sent)
    assert box.reset is not None
    envoy.take(None, None)
    await box.flush(sent)
    assert not envoy.taken


async def test_failed_write_after_the_end_of_the_stream_is_ignored() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, HEADERS, body(b"a"))
    with capture_logs() as logs:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(box.flush(sent))
            await envoy.offered.wait()
            box.close()
            envoy.take(grpc.aio.InternalError("gone"), None)
    await box.flush(sent)
    assert not envoy.taken
    assert not logs


async def test_reset_ends_the_outbox() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, REPLY, Reset("out of order"), HEADERS)
    envoy.take(None, None)
    await box.flush(sent)
    assert box.reset == Reset("out of order")
    assert [reply.WhichOneof("response") for reply in envoy.taken] == ["immediate_response"]


async def test_task_that_waits_for_the_writer_may_be_cancelled() -> None:
    envoy = SlowEnvoy()
    box = outbox(envoy, HEADERS)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        writing = group.create_task(box.flush(sent))
        await envoy.offered.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await box.settled()
        envoy.take(None)
        await writing
    assert box.reset is None
    assert len(envoy.taken) == 1
