"""Runs the demo: starts all parts, plays the scenes, waits for a signal, and stops all parts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from extproc.core.errors import ExtprocError
from extproc.demo import DemoFailed
from extproc.demo.chain import Chain, running_chain
from extproc.demo.envoy import find_binary
from extproc.demo.plan import Plan
from extproc.demo.scenes import SCENES
from extproc.demo.screen import Screen

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupted(ExtprocError):
    """A signal came before the last scene ended."""


async def run(*, once: bool, upstream: str | None, port: int | None = None) -> int:
    """Show the scenes and return the exit status; unless `once`, stay up until a signal.

    With an `upstream` or a `port`, unless `once`, it is a gateway: it plays no scenes and waits for clients.

    The status is 0 if every scene went as expected, 1 if one did not or a part could not be run, and 128 plus the
    signal's number if a signal came before the last scene ended, or before the gateway was up. Raises SettingsError.
    """
    plan = Plan.read(upstream, port or 0, is_gateway=not once and (upstream, port) != (None, None))
    screen = Screen()
    status = 1
    with _first_signal() as told:
        try:
            async with asyncio.TaskGroup() as group:
                giving_up = group.create_task(_give_up(told))
                binary = find_binary()
                screen.opening(plan)
                began = time.monotonic()
                async with running_chain(plan, binary) as chain:
                    screen.started(time.monotonic() - began)
                    wrong = 0 if plan.is_gateway else await _play(chain, screen)
                    status = min(wrong, 1)
                    giving_up.cancel()
                    if not once:
                        screen.invitation(chain)
                        await told.wait()
                screen.farewell()
        except* _Interrupted:
            status = 128 + told.number
            screen.farewell()
        except* DemoFailed as failures:
            status = 1
            for failure in _leaves(failures):
                screen.failure(str(failure))
    return status


async def _play(chain: Chain, screen: Screen) -> int:
    """Play all scenes and return how many went wrong."""
    wrong = 0
    began = time.monotonic()
    for number, scene in enumerate(SCENES, 1):
        take = await scene.play(chain)
        checks = scene.verify(take, is_enforced=chain.plan.is_enforced)
        screen.scene(number, scene, take, checks, is_enforced=chain.plan.is_enforced)
        wrong += not all(check.holds for check in checks)
    screen.summary(wrong, time.monotonic() - began)
    return wrong


class _FirstSignal:
    """The first signal to stop; later signals change nothing, because every wait is bounded."""

    def __init__(self) -> None:
        self.number = 0
        self._came = asyncio.Event()

    def set(self, number: int) -> None:
        self.number = self.number or number
        self._came.set()

    async def wait(self) -> None:
        await self._came.wait()


@contextmanager
def _first_signal() -> Iterator[_FirstSignal]:
    """Handle the signals that end a program, except those that the parent process ignores (nohup)."""
    loop = asyncio.get_running_loop()
    first = _FirstSignal()
    taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in taken:
        loop.add_signal_handler(number, first.set, number)
    try:
        yield first
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


async def _give_up(told: _FirstSignal) -> None:
    await told.wait()
    raise _Interrupted("a signal")


def _leaves(group: BaseExceptionGroup[DemoFailed]) -> Iterator[DemoFailed]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
