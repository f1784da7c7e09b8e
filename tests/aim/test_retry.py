"""When a call is retried."""

from __future__ import annotations

import pytest

from extproc.aim.retry import RetryBudget, delay, parse_retry_after


def test_budget_is_the_savings_and_a_fifth_of_the_calls() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(6):
        budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]


def test_savings_are_bounded() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10


def test_delays_grow_and_respect_retry_after() -> None:
    assert all(0.025 <= delay(0, None) <= 0.075 for _ in range(50))
    assert all(0.1 <= delay(1, None) <= 0.3 for _ in range(50))
    assert delay(0, 2.0) == 2.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("3", 3.0),
        (" 0 ", 0.0),
        ("soon", None),
        ("-1", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_parsed(value: str | None, expected: float | None) -> None:
    assert parse_retry_after(value, now=10.0) == expected
