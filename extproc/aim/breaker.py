"""A circuit breaker: after several failures in a row it rejects calls for a while, then admits one call as a probe."""

from __future__ import annotations

from collections.abc import Callable

from extproc.core.errors import DetectionError, DetectionUnavailable, Reason

_FAILURES = frozenset({Reason.TIMEOUT, Reason.UNREACHABLE, Reason.SERVER_ERROR})
"""The reasons that count as failures. An Aim that refuses a key or limits a rate is working."""


class Breaker:
    """A breaker that is closed, open, or half open with one probe under way."""

    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float]) -> None:
        """Create a breaker that opens for `open_seconds` of `clock` after `failures` failures in a row."""
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Return whether every call but a probe is rejected."""
        return self._open_until is not None

    def enter(self) -> bool:
        """Admit a call and return whether it is the probe.

        The caller reports the end of an admitted call with `succeeded`, `failed` or `abandoned`. Raises
        DetectionUnavailable with reason `breaker_open` for a call that is not admitted.
        """
        if self._open_until is None:
            return False
        if self._is_probing or self._clock() < self._open_until:
            raise DetectionUnavailable(Reason.BREAKER_OPEN, "the circuit breaker is open")
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        """Record that Aim answered; any answer shows that it works."""
        self._failures = 0
        self._open_until = None
        self._is_probing = False

    def failed(self, error: DetectionError) -> None:
        """Record an error. An error that shows that Aim works counts as a success."""
        if error.reason not in _FAILURES:
            self.succeeded()
            return
        self._failures += 1
        if self._is_probing or self._failures >= self._limit:
            self._open_until = self._clock() + self._open_seconds
        self._is_probing = False

    def abandoned(self, *, is_probe: bool) -> None:
        """Record a cancelled call. It says nothing about Aim's health; if it was the probe, allow another."""
        if is_probe:
            self._is_probing = False
