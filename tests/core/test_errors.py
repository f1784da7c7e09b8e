"""The exception tree: its branches, and the reason of each error."""

from __future__ import annotations

import pytest

from extproc.core import errors
from extproc.core.errors import Reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.ContentError("x"), Reason.BODY_UNREADABLE),
        (errors.MalformedBody("x"), Reason.BODY_UNREADABLE),
        (errors.BodyTooLarge("x"), Reason.BODY_TOO_LARGE),
        (errors.UnsupportedEncoding("x"), Reason.UNSUPPORTED_ENCODING),
    ],
)
def test_content_errors_have_their_reason(error: errors.ContentError, reason: Reason) -> None:
    assert isinstance(error, errors.ContentError)
    assert error.reason is reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.DetectionTimeout("late"), Reason.TIMEOUT),
        (errors.DetectionUnavailable(Reason.UNREACHABLE, "late"), Reason.UNREACHABLE),
        (errors.DetectionRejected(Reason.KEY_REFUSED, "late"), Reason.KEY_REFUSED),
    ],
)
def test_detection_errors_have_their_reason(error: errors.DetectionError, reason: Reason) -> None:
    assert isinstance(error, errors.DetectionError)
    assert (error.reason, str(error)) == (reason, "late")


def test_settings_error_contains_every_problem() -> None:
    error = errors.SettingsError(f"problem {number}" for number in range(2))
    assert error.problems == ("problem 0", "problem 1")
    assert str(error) == "problem 0; problem 1"


def test_all_errors_have_one_base_class_and_separate_branches() -> None:
    branches = (errors.SettingsError, errors.ProtocolError, errors.ContentError, errors.DetectionError)
    for branch in branches:
        assert issubclass(branch, errors.ExtprocError)
        assert not any(issubclass(branch, other) for other in branches if other is not branch)


def test_reasons_are_those_of_the_contract() -> None:
    assert set(Reason) == {
        *("timeout", "unreachable", "server_error", "rate_limited", "key_refused", "rejected", "unreadable_answer"),
        *("unknown_action", "session", "breaker_open", "body_too_large", "body_unreadable", "unsupported_encoding"),
        "held_bytes",
    }
