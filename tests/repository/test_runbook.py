"""docs/operations.md explains every metric, code, reason, alert and log record."""

from __future__ import annotations

import re

import pytest

from extproc.core import refusal
from extproc.core.errors import Reason
from extproc.core.refusal import Refusal, blocked
from tests.fakes.promql import alerts
from tests.repository.files import ROOT, repository_files
from tests.repository.test_alerts import exported

RUNBOOK = (ROOT / "docs" / "operations.md").read_text()

OUTCOMES = ("allowed", "redacted", "blocked", "refused", "failed_open", "unmatched", "dry_run", "aborted")
REFUSALS = [value for value in vars(refusal).values() if isinstance(value, Refusal)] + [blocked("")]


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of table rows by each name in their first cell."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| .*`.*$", text, flags=re.MULTILINE):
        first, *rest = (cell.strip() for cell in line.strip("|").split(" | "))
        for name in re.findall(r"`([\w*]+)`", first):
            found.setdefault(name, []).extend(rest)
    return found


def section(heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same or a higher level."""
    level = heading.index(" ")
    _, found, rest = RUNBOOK.partition(f"\n{heading}\n")
    assert found, heading
    return re.split(rf"^#{{1,{level}}} ", rest, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("code", sorted({each.code for each in REFUSALS}))
def test_each_code_and_status_is_explained(code: str) -> None:
    text = section("## Error codes")
    assert all(cell.strip() for cell in rows(text)[code])
    (line,) = [line for line in text.splitlines() if line.startswith("| ") and f"`{code}` |" in line]
    stated = set(map(int, re.findall(r"\b\d{3}\b", line.split("`")[0])))
    assert stated == {each.status for each in REFUSALS if each.code == code}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_explained(reason: Reason) -> None:
    meaning, *advice = rows(section("### Reasons"))[reason]
    assert meaning
    assert any(advice)


@pytest.mark.parametrize("metric", sorted(exported() - {"up"}))
def test_each_metric_is_explained(metric: str) -> None:
    name = "process_*" if metric.startswith("process_") else metric
    assert rows(section("## Metrics").split("### ")[0])[name]
    if name == metric:
        usual, other = rows(section("### Interpretation"))[name]
        assert usual
        assert other


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_is_named(outcome: str) -> None:
    assert re.search(rf"^`outcome`:.*\b{outcome}\b", section("## Metrics"), flags=re.MULTILINE)


@pytest.mark.parametrize("alert", alerts())
def test_each_alert_has_cause_and_remedy(alert: str) -> None:
    text = section(f"### {alert}")
    assert "Cause" in text
    assert re.search(r"\bDo:|what to do", text)


def test_each_log_record_is_explained() -> None:
    calls = re.compile(r'_log\.(?:debug|info|warning|error)\(\s*"(\w+)"(?: if [^"]+ else "(\w+)")?\s*[,)]')
    package = ROOT / "extproc"
    sources = [path for path in repository_files() if package in path.parents and path.suffix == ".py"]
    served = [path for path in sources if not {"demo", "local_aim"} & set(path.parts)]
    used = {name for path in served for found in calls.findall(path.read_text()) for name in found if name}
    assert len(used) > 10
    assert used - set(rows(section("### Log records"))) == set()


def test_explained_alerts_exist() -> None:
    assert set(re.findall(r"^### (AimExtproc\w+)$", RUNBOOK, flags=re.MULTILINE)) == alerts().keys()
