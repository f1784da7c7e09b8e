"""Readiness: whether new exchanges may be sent to this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.snapshot import Phase

_log = structlog.get_logger()


class Readiness:
    """The phase of a process and, if readiness depends on it, whether Aim can be reached."""

    def __init__(self, *, needs_aim: bool, on_change: Callable[[bool], None] = lambda _: None) -> None:
        """Start as not ready; call `on_change` with each new state.

        With `needs_aim` the process becomes ready only after Aim was reached.
        """
        self._on_change = on_change
        self._phase = Phase.STARTING
        self._is_aim_reachable = not needs_aim
        self._was_ready = False

    @property
    def is_ready(self) -> bool:
        """Return whether exchanges may be sent here."""
        return self.phase is Phase.SERVING

    @property
    def phase(self) -> Phase:
        """The phase as operators see it."""
        return Phase.UNREADY if self._phase is Phase.SERVING and not self._is_aim_reachable else self._phase

    def enter(self, phase: Phase) -> None:
        """Enter `phase`."""
        self._phase = phase
        self._report_change()

    async def watch_aim(self, probe: Callable[[], Awaitable[bool]], pause_seconds: float = 5.0) -> None:
        """Call `probe` every `pause_seconds`, until cancelled; it returns whether Aim counts as reachable.

        The circuit breakers do not count: a process that is not ready gets no exchange that could close them.
        """
        known = True  # the first failure is a change, so it is logged
        while True:
            try:
                is_reachable = await probe()
            except Exception as error:  # an unforeseen error must not end the process and its exchanges
                log_internal_error(error)
                is_reachable = False
            if is_reachable != known:
                _log.warning("aim_reachable" if is_reachable else "aim_unreachable")
            self._is_aim_reachable = known = is_reachable
            self._report_change()
            await asyncio.sleep(pause_seconds)

    def _report_change(self) -> None:
        if self.is_ready != self._was_ready:
            self._was_ready = self.is_ready
            self._on_change(self._was_ready)
