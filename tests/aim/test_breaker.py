"""The circuit breaker, with a clock of its own."""

from __future__ import annotations

import pytest

from extproc.aim.breaker import Breaker
from extproc.core.errors import DetectionError, DetectionRejected, DetectionTimeout, DetectionUnavailable, Reason

DOWN = DetectionTimeout("")
REFUSED = DetectionRejected(Reason.KEY_REFUSED, "")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock: Clock, *errors: DetectionError) -> Breaker:
    it = Breaker(2, 5.0, clock)
    for error in errors:
        it.enter()
        it.failed(error)
    return it


def is_closed(it: Breaker) -> bool:
    try:
        it.enter()
    except DetectionUnavailable as error:
        return error.reason is not Reason.BREAKER_OPEN
    return True


def test_failures_in_a_row_open_the_breaker(clock: Clock) -> None:
    assert is_closed(breaker(clock, DOWN))
    it = breaker(clock, DOWN, DOWN)
    assert it.is_open
    assert not is_closed(it)


def test_call_that_shows_that_aim_works_resets_the_count(clock: Clock) -> None:
    assert is_closed(breaker(clock, DOWN, REFUSED, DOWN))
    it = breaker(clock, DOWN)
    it.enter()
    it.succeeded()
    it.enter()
    it.failed(DOWN)
    assert is_closed(it)


def test_one_call_is_the_probe(clock: Clock) -> None:
    it = breaker(clock, DOWN, DOWN)
    clock.now = 5.0
    assert is_closed(it)
    assert not is_closed(it)  # while the probe is under way
    it.failed(DOWN)
    assert not is_closed(it)
    clock.now = 10.0
    assert is_closed(it)
    it.succeeded()
    assert is_closed(it)
    assert not it.is_open


def test_abandoned_probe_allows_another(clock: Clock) -> None:
    it = breaker(clock, DOWN, DOWN)
    clock.now = 5.0
    assert is_closed(it)
    it.abandoned(is_probe=False)  # the end of an older call says nothing about the probe
    assert not is_closed(it)
    it.abandoned(is_probe=True)
    assert is_closed(it)
