"""The project's alert rules and dashboard, and the expressions in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "aim-extproc.json"

_VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$job": "aim-extproc",
    "$instance": ".*",
    "$profile": ".*",
}
"""The variables that Grafana replaces. An expression with any other variable is not valid PromQL."""


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alert rules by their name."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels that show data."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Return the dashboard's queries, as Grafana sends them, by `panel title / letter`."""
    found = {}
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            found[f"{panel['id']} {panel['title']} / {target['refId']}"] = expression
    return found


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in `expression`; raises ValueError if it is not PromQL."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name is not None:
            found.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def without_threshold(expression: str) -> str:
    """Return the side of `expression` that is compared with a number; if several are joined by `or`, the first."""
    parsed = promql_parser.parse(expression)
    while isinstance(parsed, promql_parser.BinaryExpr) and str(parsed.op) in ("or", ">"):
        parsed = parsed.lhs
    return str(parsed.prettify())
