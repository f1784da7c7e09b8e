"""The alert rules and the dashboard: their form, their promtool unit tests, and the metrics that they use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from extproc.config.settings import Settings
from extproc.telemetry.metrics import Telemetry, add_process
from tests.fakes.prometheus import PromtoolFailed, needs_prometheus, promtool
from tests.fakes.promql import ALERTS, DASHBOARD, ROOT, alerts, metrics, panels, queries

UNIT_TESTS = ALERTS.with_name("alerts_test.yaml")
# Metrics of Prometheus itself, and of a supervisor of several workers.
ELSEWHERE = {"up", "extproc_worker_restarts_total"}
SUFFIXES = re.compile(r"_(bucket|count|sum)$")


def exported() -> set[str]:
    """Return the names of the sidecar's metrics, as Prometheus knows them."""
    registry = Telemetry().registry
    add_process(registry, lambda: True, Settings)
    return {metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()} | ELSEWHERE


@needs_prometheus
def test_promtool_accepts_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(ALERTS))


@needs_prometheus
def test_alert_unit_tests_pass() -> None:
    promtool("test", "rules", str(UNIT_TESTS))


@needs_prometheus
def test_promtool_reports_alerts_that_do_not_fire(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(ALERTS.read_text().replace("> 0.05", "> 0.5"))
    (tmp_path / UNIT_TESTS.name).write_text(UNIT_TESTS.read_text())
    with pytest.raises(PromtoolFailed, match="AimExtprocNoVerdicts"):
        promtool("test", "rules", str(tmp_path / UNIT_TESTS.name))


def test_every_alert_has_unit_tests_for_firing_and_silence() -> None:
    cases = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts().keys()
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts().keys()


@pytest.mark.parametrize(("name", "rule"), alerts().items())
def test_alert_has_severity_and_runbook(name: str, rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    document, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (\S+)$", (ROOT / document).read_text(), flags=re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings


@pytest.mark.parametrize("expression", [rule["expr"] for rule in alerts().values()] + list(queries().values()))
def test_expressions_use_existing_metrics(expression: str) -> None:
    named = metrics(expression)
    assert named
    assert {SUFFIXES.sub("", name) for name in named} <= exported()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {SUFFIXES.sub("", name) for expression in queries().values() for name in metrics(expression)}
    ours = {name for name in exported() if name.startswith("extproc_")}
    assert ours - shown == {"extproc_worker_restarts_total"}


def test_invalid_expression_is_found() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(extproc_exchanges_total[5m])")


def test_panels_have_unique_ids_and_use_every_variable() -> None:
    board = json.loads(DASHBOARD.read_text())
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels())))
    assert used - {"__rate_interval", "__range"} == variables


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
