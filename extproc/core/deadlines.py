"""The deadlines of a streamed answer: which clocks run, and when they run out."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from extproc.core.policy import Policy
from extproc.core.release_queue import ReleaseQueue


class Clock(StrEnum):
    """What a deadline bounds."""

    HEAD = "head"
    """bounds how long the head of the stream may wait for the first verdict"""
    SILENCE = "silence"
    """bounds how long Aim may be silent while text waits"""
    HELD = "held"
    """bounds how long the stream may stay at its limit of held bytes without a release"""
    MORE = "more"
    """lets other exchanges go first when much of the stream has come at once"""
    DEFER = "defer"
    """bounds how long a text may wait to be joined with later ones"""
    PING = "ping"
    """bounds how long the client may get nothing while events wait"""


HEAD, SILENCE, HELD, MORE, DEFER, PING = Clock
"""The clocks by short names, which are found faster in Python 3.11."""


_DEFER_SECONDS = 0.25
"""How long a text may wait to be joined with later ones: a stream may be silent for ever behind it."""


class Deadlines:
    """The clocks that run, each with the time at which it runs out. All times are in seconds, `now` of one clock."""

    __slots__ = ("_due", "_head", "_ping", "_verdict")

    def __init__(self, policy: Policy, *, has_pings: bool) -> None:
        """Begin with no clock running. `has_pings`: the client's stream may have pings, if the policy wants them."""
        self._due: dict[Clock, float] = {}
        self._head = policy.stream_head_seconds
        self._verdict = policy.verdict_timeout_seconds
        self._ping = policy.stream_ping_seconds if has_pings else 0

    @property
    def first(self) -> float | None:
        """The time of the first deadline; None if no clock runs."""
        return min(self._due.values()) if self._due else None

    def await_head(self, now: float) -> None:
        """Start the clock `HEAD`, unless it runs already."""
        self._due.setdefault(HEAD, now + self._head)

    def await_room(self, now: float) -> None:
        """Start the clock `HELD`, unless it runs already."""
        self._due.setdefault(HELD, now + self._verdict)

    def await_ping(self, now: float) -> None:
        """Start the clock `PING`, unless it runs already."""
        self._due.setdefault(PING, now + self._ping)

    def follow(
        self, queue: ReleaseQueue, now: float, *, has_released: bool, has_more: bool, is_submitted: bool
    ) -> None:
        """Start and stop the clocks by what waits in `queue`, once what was ready has left it.

        `has_released`: anything was. `has_more`: more of the stream can be read now. `is_submitted`: Aim's `done` is
        expected.
        """
        due = self._due
        is_empty = queue.is_empty
        if has_more:
            due.setdefault(MORE, now)
        if has_released:
            due.pop(HEAD, None)
            due.pop(HELD, None)
        elif not (queue.is_head_open or is_empty):
            due.setdefault(HEAD, now + self._head)
        if queue.has_deferred:
            due.setdefault(DEFER, now + _DEFER_SECONDS)
        else:
            due.pop(DEFER, None)
        if is_submitted or queue.is_waiting_for_aim:
            due.setdefault(SILENCE, now + self._verdict)
        else:
            due.pop(SILENCE, None)
        if self._ping:
            if has_released or is_empty:
                due.pop(PING, None)
            if not is_empty:
                due.setdefault(PING, now + self._ping)

    def stop(self, clock: Clock) -> None:
        """Stop a clock."""
        self._due.pop(clock, None)

    def take_passed(self, now: float) -> Iterator[Clock]:
        """Stop and yield the clocks that have run out, unless the handling of an earlier one stops or restarts them."""
        for clock in [clock for clock, due in self._due.items() if due <= now]:
            if self._due.get(clock, now + 1) <= now:
                del self._due[clock]
                yield clock

    def clear(self) -> None:
        """Stop all clocks."""
        self._due.clear()
