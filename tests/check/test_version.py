"""`extproc check --envoy`: which versions of Envoy are reported as too old."""

from __future__ import annotations

import pytest

from extproc.check.finding import Severity
from extproc.check.version import check_version


@pytest.mark.parametrize(
    "version", ["1.37.6", "1.38.4", "1.38.10", "1.39.1", "1.40.0", "1.41.0-dev", "2.0.0", "unknown"]
)
def test_patched_versions_have_no_finding(version: str) -> None:
    assert list(check_version(version, "envoy")) == []


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        ("1.36.9", "upgrade to one of 1.37.6, 1.38.4, 1.39.1 or newer"),
        ("1.29.0", "upgrade to one of 1.37.6, 1.38.4, 1.39.1 or newer"),
        ("1.37.5", "upgrade to 1.37.6 or newer"),
        ("1.38.3", "upgrade to 1.38.4 or newer"),
        ("1.39.0-dev", "upgrade to 1.39.1 or newer"),
    ],
)
def test_older_versions_are_a_warning(version: str, advice: str) -> None:
    (finding,) = check_version(version, "envoy")
    assert finding.severity is Severity.WARNING
    assert finding.advice == advice
    assert version in finding.what
