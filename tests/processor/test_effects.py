"""The clocks of an exchange on a real loop: one alarm for all, and each goes off once, if it is still wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from extproc.aim.client import AimClient, Caller
from extproc.core.commands import ClearTimer, SetTimer
from extproc.core.events import Event, TimerFired
from extproc.core.identity import NOBODY
from extproc.core.record import ExchangeRecord
from extproc.core.vocabulary import Timer
from extproc.processor.effects import Errands
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.observation import Observation
from tests.fakes.sidecar import settings_for

SOON, LATE, NEVER = 0.01, 0.05, 3600.0


class Rung:
    """What goes off, in order; `on_ring` is called with each clock at once."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[TimerFired] = asyncio.Queue()
        self.on_ring: Callable[[Timer], None] = lambda _: None

    def __call__(self, event: Event) -> None:
        assert isinstance(event, TimerFired)
        self.events.put_nowait(event)
        self.on_ring(event.timer)

    async def through(self, event: Event) -> None:
        self(event)

    async def next(self) -> TimerFired:
        return await asyncio.wait_for(self.events.get(), 10)


@asynccontextmanager
async def errands() -> AsyncIterator[tuple[Errands, Rung]]:
    rung = Rung()
    observation = Observation(Telemetry(), ExchangeRecord("call-1", "default"), NOBODY, began=0.0, is_dry_run=False)
    async with AimClient(settings_for("http://127.0.0.1:1")) as client:
        made = Errands(client, Caller("default", "call-1", NOBODY), observation, rung, rung.through)
        try:
            yield made, rung
        finally:
            made.end()


def set_at_once(errands: Errands, *clocks: tuple[Timer, float]) -> None:
    """Set clocks at one point of time, however long it takes."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: now)
        for timer, seconds in clocks:
            errands.perform(SetTimer(timer, seconds))


async def test_a_clock_goes_off_once() -> None:
    async with errands() as (it, rung):
        it.perform(SetTimer(Timer.HEAD, SOON))
        assert it.is_under_way
        fired = await rung.next()
        assert fired == TimerFired(Timer.HEAD)
        assert it.is_under_way  # until the exchange has taken it
        assert it.is_due(fired)
        assert not it.is_due(fired)
        assert not it.is_under_way


async def test_clocks_go_off_in_their_order() -> None:
    async with errands() as (it, rung):
        set_at_once(it, (Timer.HELD, LATE), (Timer.HEAD, SOON), (Timer.PING, NEVER))
        assert [(await rung.next()).timer for _ in range(2)] == [Timer.HEAD, Timer.HELD]
        assert it.is_under_way


async def test_a_clock_that_is_set_later_goes_off_later() -> None:
    async with errands() as (it, rung):
        set_at_once(it, (Timer.SILENCE, SOON), (Timer.HELD, LATE), (Timer.SILENCE, 2 * LATE))
        assert [(await rung.next()).timer for _ in range(2)] == [Timer.HELD, Timer.SILENCE]


async def test_a_clock_that_is_cleared_does_not_go_off() -> None:
    async with errands() as (it, rung):
        set_at_once(it, (Timer.HEAD, SOON), (Timer.HELD, LATE))
        it.perform(ClearTimer(Timer.HEAD))
        it.perform(ClearTimer(Timer.PING))  # was never set
        assert (await rung.next()).timer is Timer.HELD
        assert rung.events.empty()


async def test_what_went_off_may_stop_what_is_due_at_the_same_time() -> None:
    async with errands() as (it, rung):
        rung.on_ring = lambda _: it.perform(ClearTimer(Timer.HELD))
        set_at_once(it, (Timer.HEAD, SOON), (Timer.HELD, SOON), (Timer.PING, LATE))
        assert [(await rung.next()).timer for _ in range(2)] == [Timer.HEAD, Timer.PING]


async def test_what_went_off_may_set_anew_what_is_due_at_the_same_time() -> None:
    async with errands() as (it, rung):
        rung.on_ring = lambda timer: it.perform(SetTimer(Timer.HELD, LATE)) if timer is Timer.HEAD else None
        set_at_once(it, (Timer.HEAD, 0.0), (Timer.HELD, 0.0), (Timer.PING, SOON))
        assert [(await rung.next()).timer for _ in range(3)] == [Timer.HEAD, Timer.PING, Timer.HELD]


async def test_an_event_is_stale_once_its_clock_was_set_anew_or_cleared() -> None:
    """The shadow of a dry run takes events from a queue: what is in it may be out of date."""
    async with errands() as (it, rung):
        it.perform(SetTimer(Timer.HEAD, 0.0))
        stale = await rung.next()
        it.perform(SetTimer(Timer.HEAD, SOON))
        assert not it.is_due(stale)
        fired = await rung.next()
        assert not it.is_due(stale)
        it.perform(ClearTimer(Timer.HEAD))
        assert not it.is_due(fired)
        assert not it.is_under_way


async def test_nothing_goes_off_after_the_end() -> None:
    async with errands() as (it, rung):
        it.perform(SetTimer(Timer.HEAD, 0.0))
        it.end()
        assert not it.is_under_way
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(SOON, passed.set)
        await passed.wait()
        assert rung.events.empty()
