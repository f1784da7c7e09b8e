"""When a question to Aim is asked again: jittered, within its deadline, and not so often as to double the load."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime

_DEPOSIT = 0.2
"""Retries that each question earns: in the long run at most every fifth is asked again."""

_SAVINGS = 10.0
"""Retries that may be saved up for a short fault."""

_FIRST_SECONDS = 0.05
_FACTOR = 4.0

MAX_RETRIES = 2


class RetryBudget:
    """What may be spent on retries, for all questions of a process together."""

    def __init__(self) -> None:
        """Begin with full savings."""
        self._balance = _SAVINGS

    def earn(self) -> None:
        """Note a question."""
        self._balance = min(self._balance + _DEPOSIT, _SAVINGS)

    def spend(self) -> bool:
        """Take leave for one retry; False when there is none."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


def delay(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait before retry `attempt`, counted from 0; what Aim asks for counts in full."""
    spread: float = _FIRST_SECONDS * _FACTOR**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    return spread if retry_after is None else max(spread, retry_after)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header (RFC 9110, 10.2.3) asks for, None where it says nothing.

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
