"""The alarm on a real event loop: it rings once for each deadline that has passed, even if the deadline has moved."""

from __future__ import annotations

import asyncio

from extproc.processor.alarm import Alarm

SOON, LATER, NEVER = 0.01, 0.05, 3600.0


class Clock:
    """A deadline and its alarm. Ringing removes the deadline, as an exchange does."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.due: float | None = None
        self.rung: asyncio.Queue[float] = asyncio.Queue()
        self.alarm = Alarm(lambda: self.due, self.ring)

    def ring(self, now: float) -> None:
        assert self.due is not None
        assert now >= self.due
        self.rung.put_nowait(self.due)
        self.due = None

    def set(self, seconds: float | None) -> float | None:
        self.due = None if seconds is None else self.loop.time() + seconds
        self.alarm.follow()
        return self.due

    async def next(self) -> float:
        return await asyncio.wait_for(self.rung.get(), 20)


async def test_alarm_rings_at_the_deadline() -> None:
    clock = Clock()
    due = clock.set(SOON)
    assert await clock.next() == due


async def test_earlier_deadline_rings_first() -> None:
    clock = Clock()
    clock.set(NEVER)
    due = clock.set(SOON)
    assert await clock.next() == due


async def test_later_deadline_does_not_ring_early() -> None:
    clock = Clock()
    clock.set(SOON)
    due = clock.set(LATER)
    assert await clock.next() == due
    assert clock.rung.empty()


async def test_deadline_that_was_taken_away_does_not_ring() -> None:
    clock, other = Clock(), Clock()
    clock.set(SOON)
    clock.set(None)
    other.set(LATER)
    await other.next()
    assert clock.rung.empty()


async def test_cancelled_alarm_does_not_ring() -> None:
    clock, other = Clock(), Clock()
    clock.set(SOON)
    clock.alarm.cancel()
    other.set(LATER)
    await other.next()
    assert clock.rung.empty()


async def test_each_deadline_rings_once() -> None:
    clock = Clock()
    for _ in range(3):
        due = clock.set(SOON)
        assert await clock.next() == due
    assert clock.rung.empty()
