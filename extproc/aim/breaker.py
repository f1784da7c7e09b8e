"""A circuit breaker: after so many failures in a row nothing is asked for a while, then one question probes."""

from __future__ import annotations

from collections.abc import Callable

from extproc.core.errors import DetectionError, DetectionUnavailable, Reason

_FAILURES = frozenset({Reason.TIMEOUT, Reason.UNREACHABLE, Reason.SERVER_ERROR})
"""What counts: Aim does not work. That it refuses a key or limits a rate shows that it does."""


class Breaker:
    """Closed, open, or half open with one probe under way."""

    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float]) -> None:
        """Open after `failures` in a row, for `open_seconds` of `clock`."""
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Tell whether nothing but a probe may be asked."""
        return self._open_until is not None

    def enter(self) -> bool:
        """Ask for leave to ask Aim; every leave is followed by `succeeded`, `failed` or `abandoned`.

        Returns whether the question is the probe. Raises DetectionUnavailable with reason `breaker_open`.
        """
        if self._open_until is None:
            return False
        if self._is_probing or self._clock() < self._open_until:
            raise DetectionUnavailable(Reason.BREAKER_OPEN, "the circuit breaker is open")
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        """Note that Aim answered, whatever it said."""
        self._failures = 0
        self._open_until = None
        self._is_probing = False

    def failed(self, error: DetectionError) -> None:
        """Note an error; one that shows that Aim works counts as success."""
        if error.reason not in _FAILURES:
            self.succeeded()
            return
        self._failures += 1
        if self._is_probing or self._failures >= self._limit:
            self._open_until = self._clock() + self._open_seconds
        self._is_probing = False

    def abandoned(self, *, is_probe: bool) -> None:
        """Note that a question came to nothing that says anything of Aim; the probe makes room for another."""
        if is_probe:
            self._is_probing = False
