"""Retries of calls to Aim: how long to wait before each, and a budget that limits the extra load."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime

_DEPOSIT = 0.2
"""Retries that each call earns: in the long run, at most one retry for every five calls."""

_SAVINGS = 10.0
"""The most retries that can be saved for a short fault."""

_FIRST_SECONDS = 0.05
_FACTOR = 4.0

MAX_RETRIES = 2


class RetryBudget:
    """The retries that a process may still make, for all its calls together."""

    def __init__(self) -> None:
        """Create a budget with full savings."""
        self._balance = _SAVINGS

    def earn(self) -> None:
        """Count a call, which earns a fraction of a retry."""
        self._balance = min(self._balance + _DEPOSIT, _SAVINGS)

    def spend(self) -> bool:
        """Take one retry from the budget; return False if none is left."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


def delay(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait before retry `attempt`, counted from 0: jittered, and at least `retry_after`."""
    spread: float = _FIRST_SECONDS * _FACTOR**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    return spread if retry_after is None else max(spread, retry_after)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header (RFC 9110, 10.2.3) demands, None if it is absent or invalid.

    `now` is seconds since the epoch.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
