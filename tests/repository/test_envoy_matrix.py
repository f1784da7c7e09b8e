"""The matrix of Envoy versions parses pytest's report and hides no failure."""

from __future__ import annotations

import pytest

from tests.envoy import matrix
from tests.envoy.matrix import Result, page, read, table

REPORT = b"""<testsuites><testsuite name="1234abc" timestamp="2026-11-28T10:11:12.131415+00:00">
<testcase classname="tests.envoy.test_a" name="test_1"/>
<testcase classname="tests.envoy.test_a" name="test_2"><failure message="no"/></testcase>
<testcase classname="tests.envoy.test_a" name="test_3"><error message="no"/></testcase>
<testcase classname="tests.envoy.test_a" name="test_4"><skipped/></testcase>
<testcase classname="tests.envoy.test_a" name="test_5"><system-out>said</system-out></testcase>
</testsuite></testsuites>"""


def test_report_is_parsed() -> None:
    result = read("1.38.3", REPORT)
    failed = ("tests.envoy.test_a::test_2", "tests.envoy.test_a::test_3")
    assert result == Result("1.38.3", 2, failed, 1, (), "2026-11-28", "1234abc")
    assert not result.is_fine
    assert table([result]).endswith(
        "| 1.38.3 | 1234abc | 2026-11-28 | 2 | 2: `tests.envoy.test_a::test_2`, `tests.envoy.test_a::test_3` | 0 | 1 |"
    )


def test_known_difference_counts_for_its_version_only() -> None:
    report = REPORT.replace(
        b"test_2", b"test_exchange_matches_its_row[chat, default: a large request and a large answer]"
    )
    assert len(read("1.36.4", report).failed) == 2  # it failed in another way than the known one
    report = report.replace(
        b'message="no"/></testcase>', b"message=\"no\">b'Payload Too Large'</failure></testcase>", 1
    )
    old = read("1.36.4", report)
    assert (old.known, len(old.failed)) == (("large requests",), 1)
    assert "| 1.36.4 | 1234abc | 2026-11-28 | 2 | 1: `tests.envoy.test_a::test_3` | 1: large requests | 1 |" in page(
        [old]
    )
    assert "**Large requests, 1.36.**" in page([old])
    new = read("1.37.0", report)
    assert (new.known, len(new.failed)) == ((), 2)
    assert "**Large requests" not in page([new])


def test_every_known_difference_has_a_note() -> None:
    assert {note for notes in matrix.KNOWN.values() for note in notes.values()} == matrix.NOTES.keys()


def test_suite_that_ran_nothing_fails() -> None:
    assert not Result("1.38.3", 0, (), 700).is_fine
    assert Result("1.38.3", 700, (), 1).is_fine


def test_versions_are_sorted() -> None:
    found = matrix.versions()
    assert found == sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def test_unknown_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["1.2"]) == 2
    assert "requirements/envoy-1.2.txt" in capsys.readouterr().err
