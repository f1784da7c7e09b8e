"""A circuit breaker: after several failures in a row it rejects calls for a while, then admits one call as a probe."""

from __future__ import annotations

from collections.abc import Callable

from extproc.core.errors import DetectionError, DetectionUnavailable, Reason

_FAILURES = frozenset({Reason.TIMEOUT, Reason.UNREACHABLE, Reason.SERVER_ERROR})
"""The reasons that count as failures. An Aim that refuses a key or limits a rate is working."""


class Call:
    """One admitted call. Use it as a context manager: a call that ends without a result says nothing about Aim."""

    __slots__ = ("_breaker",)

    def __init__(self, breaker: Breaker) -> None:
        """Begin a call. `Breaker.admit` makes calls."""
        self._breaker = breaker

    def __enter__(self) -> Call:
        """Return the call."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the call: if it was the probe and has no result, allow another."""
        self._breaker.ended(self)

    def succeeded(self) -> None:
        """Record that Aim answered; any answer shows that it works."""
        self._breaker.succeeded()

    def failed(self, error: DetectionError) -> None:
        """Record an error. An error that shows that Aim works counts as a success."""
        if error.reason in _FAILURES:
            self._breaker.failed(self)
        else:
            self._breaker.succeeded()


class Breaker:
    """A breaker that is closed, open, or half open with one probe under way."""

    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float]) -> None:
        """Create a breaker that opens for `open_seconds` of `clock` after `failures` failures in a row."""
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probe: Call | None = None

    @property
    def is_open(self) -> bool:
        """Return whether every call but a probe is rejected."""
        return self._open_until is not None

    def admit(self) -> Call:
        """Return a new call, which is the probe if the breaker has been open for long enough.

        Raises DetectionUnavailable with reason `breaker_open` for a call that is not admitted.
        """
        call = Call(self)
        if self._open_until is not None:
            if self._probe is not None or self._clock() < self._open_until:
                raise DetectionUnavailable(Reason.BREAKER_OPEN, "the circuit breaker is open")
            self._probe = call
        return call

    # -- for calls ---------------------------------------------------------------------------------------------------

    def succeeded(self) -> None:
        """Close: Aim works."""
        self._failures = 0
        self._open_until = None
        self._probe = None

    def failed(self, call: Call) -> None:
        """Count a failure. While the breaker is open only the probe's counts: other calls began before it opened."""
        if self._open_until is None:
            self._failures += 1
            if self._failures >= self._limit:
                self._open_until = self._clock() + self._open_seconds
        elif call is self._probe:
            self._open_until = self._clock() + self._open_seconds
            self._probe = None

    def ended(self, call: Call) -> None:
        """Allow another probe if `call` was the probe and had no result."""
        if call is self._probe:
            self._probe = None
