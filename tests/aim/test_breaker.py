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
        it.admit().failed(error)
    return it


def is_closed(it: Breaker) -> bool:
    try:
        it.admit()
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
    it.admit().succeeded()
    it.admit().failed(DOWN)
    assert is_closed(it)


def test_one_call_is_the_probe(clock: Clock) -> None:
    it = breaker(clock, DOWN, DOWN)
    clock.now = 5.0
    probe = it.admit()
    assert not is_closed(it)  # while the probe is under way
    probe.failed(DOWN)
    assert not is_closed(it)
    clock.now = 10.0
    probe = it.admit()
    probe.succeeded()
    assert is_closed(it)
    assert not it.is_open


def test_probe_that_ends_without_a_result_allows_another(clock: Clock) -> None:
    it = breaker(clock, DOWN, DOWN)
    clock.now = 5.0
    with pytest.raises(ZeroDivisionError), it.admit():
        raise ZeroDivisionError
    with it.admit():
        assert not is_closed(it)
    assert is_closed(it)


@pytest.mark.parametrize("is_failure", [True, False])
def test_end_of_an_earlier_call_says_nothing_about_the_probe(clock: Clock, is_failure: bool) -> None:
    it = breaker(clock)
    with it.admit() as earlier:
        it.admit().failed(DOWN)
        it.admit().failed(DOWN)
        clock.now = 5.0
        probe = it.admit()
        if is_failure:
            earlier.failed(DOWN)
    clock.now = 1000.0
    assert not is_closed(it)  # the probe is still under way
    probe.succeeded()
    assert is_closed(it)


def test_failure_of_an_earlier_call_does_not_delay_the_probe(clock: Clock) -> None:
    it = breaker(clock)
    earlier = it.admit()
    it.admit().failed(DOWN)
    it.admit().failed(DOWN)
    clock.now = 4.0
    earlier.failed(DOWN)
    clock.now = 5.0
    assert is_closed(it)


def test_former_probe_says_nothing_about_the_next(clock: Clock) -> None:
    it = breaker(clock)
    earlier = it.admit()
    it.admit().failed(DOWN)
    it.admit().failed(DOWN)
    clock.now = 5.0
    with it.admit():
        earlier.succeeded()  # closes the breaker
        it.admit().failed(DOWN)
        it.admit().failed(DOWN)
        clock.now = 10.0
        probe = it.admit()
    assert not is_closed(it)
    probe.failed(DOWN)
    assert not is_closed(it)
