"""Large documents: a thread reads them, other exchanges go on meanwhile, and whatever comes waits for the thread."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from extproc.aim.client import AimClient, Caller
from extproc.core.commands import Command
from extproc.core.dry_run import DryRun
from extproc.core.events import BodyReceived, ChunkVerified, Event, HeadersReceived, TrailersReceived, VerdictReached
from extproc.core.exchange import Exchange
from extproc.core.identity import NOBODY
from extproc.core.policy import Limits
from extproc.core.verdict import Anonymize
from extproc.core.vocabulary import Leg
from extproc.processor import wire
from extproc.processor.driver import Driver
from extproc.processor.load import Load
from extproc.processor.outbox import Outbox
from extproc.processor.steps import HEAVY_BYTES, Steps
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.observation import Observation
from extproc.telemetry.record import ExchangeRecord
from tests.fakes.aim import Answer, Question, ScriptedAim, allow
from tests.fakes.rig import chat_request
from tests.fakes.sidecar import settings_for
from tests.fakes.world import policy
from tests.processor.test_stream_writer import settled

HEAD = HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions")))
LARGE = BodyReceived(Leg.REQUEST, json.dumps(chat_request("x" * HEAVY_BYTES)).encode(), True)
SMALL = BodyReceived(Leg.REQUEST, json.dumps(chat_request("x")).encode(), True)


class HeldThread(Executor):
    """A thread that does what it was given when the test says so."""

    def __init__(self) -> None:
        self._work: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._work.append((future, lambda: work(*args, **options)))
        return future

    @property
    def is_asked(self) -> bool:
        return bool(self._work)

    @property
    def is_cancelled(self) -> bool:
        """Return whether the oldest work is not to be begun."""
        return self._work[0][0].cancelled()

    def cancel(self) -> None:
        """Drop all work, as a thread does that is shut down."""
        for future, _ in self._work:
            future.cancel()

    def go_on(self, error: Exception | None = None) -> None:
        """Do the oldest work, or fail with `error`."""
        future, work = self._work.pop(0)
        if future.set_running_or_notify_cancel():
            future.set_result(work() if error is None else error)


@dataclass
class Envoy:
    """The other end of a stream, which takes everything at once."""

    taken: list[str] = field(default_factory=list)

    async def write(self, data: bytes) -> None:
        self.taken.append(wire.Response.FromString(data).WhichOneof("response") or "")


@dataclass
class Guard:
    """What the drivers of a test share."""

    client: AimClient
    load: Load
    thread: HeldThread = field(default_factory=HeldThread)
    record: ExchangeRecord | None = None
    """That of the last driver."""

    def drive(self, envoy: Envoy, kind: type[Exchange | DryRun] = Exchange) -> Driver:
        self.record = ExchangeRecord("call-1", "default")
        observation = Observation(Telemetry(), self.record, NOBODY, began=0.0, is_dry_run=kind is DryRun)
        return Driver(
            kind("call-1", policy(), Limits()),
            observation,
            Outbox(cast("Any", envoy), observation),
            self.load,
            self.client,
            Caller("default", "call-1", NOBODY),
            self.thread,
        )


@asynccontextmanager
async def guarding(aim: ScriptedAim, **limits: int) -> AsyncIterator[Guard]:
    settings = settings_for(aim.base, limits=limits)
    async with AimClient(settings) as client, asyncio.timeout(20):
        yield Guard(client, Load(lambda: settings.limits))


async def test_others_go_on_while_the_thread_has_a_document(aim: ScriptedAim) -> None:
    first, second = Envoy(), Envoy()
    async with guarding(aim) as guard, asyncio.TaskGroup() as group:
        slow, quick = guard.drive(first), guard.drive(second)
        await slow.take_and_write(HEAD)
        reading = group.create_task(slow.take_and_write(LARGE))
        await asyncio.sleep(0)
        assert guard.thread.is_asked
        assert guard.load.held_bytes >= len(LARGE.data)
        await quick.take_and_write(HEAD)
        await quick.take_and_write(SMALL)
        await until(lambda: second.taken == ["request_headers", "request_body"])
        assert not reading.done()
        guard.thread.go_on()
        await reading
        held = guard.load.held_bytes
        await until(lambda: guard.thread.is_asked)  # the verdict
        assert guard.load.held_bytes <= held  # the body counts once, though it is read again
        guard.thread.go_on()
        await until(lambda: first.taken == ["request_headers", "request_body"])
        slow.leave_stream()
        quick.leave_stream()
        assert guard.load.held_bytes == 0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds`; the test ends after 20 seconds."""
    while not holds():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


async def test_stream_that_ends_takes_its_document_out_of_the_queue(aim: ScriptedAim) -> None:
    """Else a client that sends and leaves would make all others wait."""
    envoy = Envoy()
    async with guarding(aim) as guard:
        driver = guard.drive(envoy)
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        driver.leave_stream()
        assert driver.is_settled
        assert guard.load.held_bytes == 0
        await asyncio.sleep(0)
        assert guard.thread.is_cancelled
        assert guard.record is not None
        assert guard.record.outcome == "aborted"
        guard.thread.go_on()
        await asyncio.sleep(0)
        assert envoy.taken == ["request_headers"]
        assert not aim.questions


async def test_dry_run_goes_on_without_its_stream_unless_room_is_needed(aim: ScriptedAim) -> None:
    async with guarding(aim) as guard:
        stays, yields = guard.drive(Envoy(), DryRun), guard.drive(Envoy(), DryRun)
        for driver in (stays, yields):
            await driver.take_and_write(HEAD)
            driver.take(LARGE)
            driver.leave_stream()
            assert not driver.is_settled
        guard.thread.go_on()
        await until(lambda: bool(aim.questions))
        list(guard.load.shares)[-1].yield_room()
        assert yields.is_settled
        stays.abandon()
        assert guard.load.held_bytes == 0


async def test_events_that_come_meanwhile_are_handled_in_order(aim: ScriptedAim) -> None:
    async def judge(question: Question) -> Answer:
        await asyncio.Event().wait()  # the test gives the verdict
        return await allow(question)

    aim.judge = judge
    envoy = Envoy()
    async with guarding(aim) as guard:
        driver = guard.drive(envoy)
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        # Local replies of Envoy come in any order after the body.
        driver.take(HeadersReceived(Leg.RESPONSE, ((":status", "504"), ("content-type", "text/plain"))))
        driver.take(BodyReceived(Leg.RESPONSE, b"late", True))
        assert envoy.taken == ["request_headers"]
        guard.thread.go_on()
        await until(lambda: envoy.taken[1:] == ["response_headers", "response_body"])
        driver.leave_stream()
        await settled(driver)


async def test_error_in_the_thread_resets_the_exchange(aim: ScriptedAim) -> None:
    envoy = Envoy()
    async with guarding(aim) as guard, asyncio.TaskGroup() as group:
        driver = guard.drive(envoy)
        await driver.take_and_write(HEAD)
        reading = group.create_task(driver.take_and_write(LARGE))
        await asyncio.sleep(0)
        guard.thread.go_on(MemoryError())
        await reading
        assert driver.is_closed
        assert driver.outbox.reset is not None
        driver.leave_stream()
        assert guard.load.held_bytes == 0


async def test_cancelled_reader_leaves_the_document_to_the_thread(aim: ScriptedAim) -> None:
    """gRPC cancels the stream's task, which waits for the thread."""
    async with guarding(aim) as guard, asyncio.TaskGroup() as group:
        driver = guard.drive(Envoy())
        await driver.take_and_write(HEAD)
        reading = group.create_task(driver.take_and_write(LARGE))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not guard.thread.is_cancelled
        driver.leave_stream()
        assert guard.load.held_bytes == 0


async def test_end_of_the_thread_resets_the_exchange(aim: ScriptedAim) -> None:
    """The rest of a body must not be handled as if nothing were missing."""
    envoy = Envoy()
    async with guarding(aim) as guard:
        driver = guard.drive(envoy)
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        driver.take(TrailersReceived(Leg.REQUEST))
        guard.thread.cancel()
        await until(lambda: driver.is_closed)
        await until(lambda: driver.outbox.reset is not None)
        assert envoy.taken == ["request_headers"]
        driver.leave_stream()


async def test_clocks_start_when_the_thread_begins(aim: ScriptedAim) -> None:
    """Aim must not be taken for silent because the thread was busy before."""
    async with guarding(aim) as guard:
        loop = asyncio.get_running_loop()
        times: list[float] = []

        def handle(_: Event, now: float) -> list[Command]:
            times.append(now)
            return []

        steps = Steps(guard.thread, handle, lambda _: None)
        steps.begin(LARGE, 0)
        before = loop.time()
        guard.thread.go_on()
        assert times[0] >= before


async def test_what_waits_for_the_thread_is_counted(aim: ScriptedAim) -> None:
    async with guarding(aim) as guard:
        driver = guard.drive(Envoy())
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        before = guard.load.held_bytes
        driver.take(BodyReceived(Leg.RESPONSE, b"x" * 5000))
        driver.take(ChunkVerified(1, ((0, "y" * 300), (1, None)), {}))
        assert guard.load.held_bytes == before + 5300
        driver.leave_stream()
        assert guard.load.held_bytes == 0


async def test_compressed_body_that_waits_for_the_thread_counts_as_what_it_may_become(aim: ScriptedAim) -> None:
    """Else a burst of small bodies would be admitted, and none of them could be refused once it is inflated."""
    head = HeadersReceived(Leg.REQUEST, (*HEAD.headers, ("content-encoding", "gzip")))
    raw = json.dumps(chat_request("".join(random.Random(1).choices("abcdefgh", k=HEAVY_BYTES)))).encode()
    body = gzip.compress(raw, mtime=0)
    async with guarding(aim) as guard:
        drivers = [guard.drive(Envoy()) for _ in range(3)]
        for number, driver in enumerate(drivers, 1):
            await driver.take_and_write(head)
            driver.take(BodyReceived(Leg.REQUEST, body, True))
            assert guard.load.held_bytes >= number * len(raw)
        for driver in drivers:
            driver.leave_stream()
        assert guard.load.held_bytes == 0


async def test_redaction_that_waits_for_the_thread_is_counted(aim: ScriptedAim) -> None:
    async with guarding(aim) as guard:
        driver = guard.drive(Envoy())
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        guard.thread.go_on()
        await until(lambda: guard.thread.is_asked)  # the verdict of the scripted Aim
        before = guard.load.held_bytes
        driver.take(VerdictReached(1, (Anonymize(("z" * 700, None)),)))
        assert guard.load.held_bytes == before + 700
        driver.leave_stream()


async def test_dry_run_does_not_count_a_body_twice_once_it_was_read(aim: ScriptedAim) -> None:
    """It gives up if it holds more than the limit, so that others have room."""
    async with guarding(aim, total_held_bytes=9 * len(LARGE.data) // 2) as guard:
        driver = guard.drive(Envoy(), DryRun)
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        guard.thread.go_on()
        await until(lambda: len(aim.questions) == 1)
        assert guard.load.held_bytes > 4 * len(LARGE.data)
        driver.abandon()


async def test_exchange_that_is_given_up_ignores_what_the_thread_found(aim: ScriptedAim) -> None:
    async with guarding(aim) as guard:
        driver = guard.drive(Envoy())
        await driver.take_and_write(HEAD)
        driver.take(LARGE)
        driver.take(VerdictReached(1, ()))
        driver.abandon()
        assert driver.is_settled
        guard.thread.go_on()
        await asyncio.sleep(0)
        assert guard.load.held_bytes == 0
        assert not aim.questions
