"""The deadlines of a streamed answer."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum


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


class Deadlines:
    """The clocks that run, each with the time at which it runs out."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        """Begin with no clock running."""
        self._due: dict[Clock, float] = {}

    @property
    def first(self) -> float | None:
        """The time of the first deadline; None if no clock runs."""
        return min(self._due.values()) if self._due else None

    def start(self, clock: Clock, due: float) -> None:
        """Start a clock that runs out at `due`, unless it runs already."""
        self._due.setdefault(clock, due)

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
