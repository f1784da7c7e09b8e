"""Verdicts: which of several outcomes decides."""

from __future__ import annotations

import itertools

import pytest

from extproc.core.errors import Reason
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Invocation, Monitor, Outcome, strictest

FROM_LENIENT_TO_STRICT: tuple[Outcome, ...] = (
    Allow(("a",)),
    Monitor(("m",)),
    Anonymize(("text",), ("n",)),
    Failed(Reason.TIMEOUT),
    Block("no", ("b",)),
)


def test_no_outcome_is_an_allow() -> None:
    assert strictest([]) == Allow()


@pytest.mark.parametrize("outcome", FROM_LENIENT_TO_STRICT)
def test_single_outcome_decides(outcome: Outcome) -> None:
    assert strictest([outcome]) is outcome


def test_stricter_of_two_outcomes_decides() -> None:
    for lenient, strict in itertools.combinations(FROM_LENIENT_TO_STRICT, 2):
        assert strictest([lenient, strict]) is strict
        assert strictest([strict, lenient]) is strict


def test_strictest_outcome_decides_in_any_order() -> None:
    for order in itertools.permutations(FROM_LENIENT_TO_STRICT):
        assert strictest(order) is FROM_LENIENT_TO_STRICT[-1]
        assert strictest([outcome for outcome in order if not isinstance(outcome, Block)]) is FROM_LENIENT_TO_STRICT[-2]


def test_first_of_equal_outcomes_decides() -> None:
    first, second = Block("first"), Block("second")
    assert strictest([Allow(), first, second]) is first
    timeout, session = Failed(Reason.TIMEOUT), Failed(Reason.SESSION)
    assert strictest([session, timeout]) is session


def test_invocation_does_not_make_a_verdict_another_one() -> None:
    assert Allow(("a",), Invocation("inv_1", 41)) == Allow(("a",))
    assert Block("no", (), Invocation("inv_1", 41)) == Block("no", (), Invocation("inv_2", 1))


def test_actions_are_the_metric_labels() -> None:
    assert [outcome.action for outcome in FROM_LENIENT_TO_STRICT] == ["allow", "monitor", "anonymize", "error", "block"]
