"""The soak's table: a row for each figure and a column for each soak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.soak.checker import Span, Tally
from tests.soak.lag import Lag
from tests.soak.report import Found, results, tables
from tests.soak.samples import MEBIBYTE, Sample

ROOT = Path(__file__).parents[2]

SAMPLES = [Sample(at, 90 * MEBIBYTE, 80 * MEBIBYTE, 40, 20, 1.5, 2 * MEBIBYTE) for at in range(3)]


def found(variant: str, **more: Any) -> dict[str, Any]:
    plan = {"seconds": 600.0, "streams": 200, "slow_clients": 0, "seed": 7, "variant": variant}
    everything = Found(Tally(), [Span("SIGHUP", 0, 1), Span("SIGHUP", 2, 3)], SAMPLES, None, {}, 12, **more)
    return results(plan, "1.40.0", everything)


def test_table_has_a_column_for_each_soak(tmp_path: Path) -> None:
    soaks = [
        found("open", openings={"request timeout": 2, "response session": 3, "response timeout": 4}),
        found("slow-aim", large=Lag(clients=8, complete=16, behind=120.25, paused=30)),
    ]
    for number, each in enumerate(soaks):
        (tmp_path / f"{number}.json").write_text(json.dumps(each))
    command = [sys.executable, "-m", "tests.soak.report", *(str(tmp_path / f"{number}.json") for number in range(2))]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert rows[:2] == [["", "open", "slow-aim"], ["---"] * 3]
    figures = {label: cells for label, *cells in rows}
    assert figures["options"] == ["`--minutes 10 --streams 200 --seed 7`"] * 2
    assert figures["legs that failed open, each one explained"] == ["2 requests, 7 responses", ""]
    assert figures["large answers: at a time / complete"] == ["", "8 / 16"]
    assert figures["their longest delay from the model to the client, s"] == ["", "120.2"]
    assert figures["faults"] == ["2", "2"]
    assert figures["found to be wrong"] == ["nothing"] * 2


def test_what_is_wrong_follows_the_table() -> None:
    assert tables(found("plain")).endswith("| nothing |\n\nnothing wrong\n")
    assert tables(found("plain", wrongs=["one", "two"])).endswith("| 2 |\n\nWRONG, 2:\none\ntwo\n")
