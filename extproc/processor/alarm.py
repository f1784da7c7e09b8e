"""One alarm for a deadline that moves often and hardly ever passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring(now)` once the deadline has passed; `now` is not before it.

    A deadline moves with every chunk of a stream. So an alarm that is set too early stays, and looks at the deadline
    again when its time comes.
    """

    def __init__(self, deadline: Callable[[], float | None], ring: Callable[[float], None]) -> None:
        """Follow `deadline`, which returns a time of the running loop, or None."""
        self._deadline = deadline
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def follow(self) -> None:
        """Take the deadline of now. Call this whenever it may have become earlier."""
        due = self._deadline()
        if due is None:
            return
        if self._handle is not None:
            if self._due <= due:
                return
            self._handle.cancel()
        self._due = due
        self._handle = self._loop.call_at(due, self._on_due)

    def cancel(self) -> None:
        """Never ring again, and forget what would be called."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._deadline, self._ring = _never, _nothing

    def _on_due(self) -> None:
        self._handle = None
        due = self._deadline()
        # A loop may be a little early by its own clock.
        now = max(self._due, self._loop.time())
        if due is not None and due <= now:
            self._ring(now)
        else:
            self.follow()


def _never() -> None:
    """Return no deadline."""


def _nothing(_: float) -> None:
    """Do nothing."""
