"""The gate: it compares instructions, or ratios of time, and fails if they grew."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.gate import BASELINE, INSTRUCTIONS, TIME, Kind, regressions, why_not_counted

ROOT = Path(__file__).parents[2]
BUILD = "3.11.7 (main, Dec  4 2023, 18:10:11) [Clang 17.0.6 ]"
COUNTS = {
    "null": {"exchange": 900_000.0, "chunk": 250_000.0},
    "floor": {"exchange": 1_500_000.0, "chunk": 400_000.0},
    "sidecar": {"exchange": 2_700_000.0, "chunk": 500_000.0},
}


@pytest.fixture(scope="module")
def baseline() -> dict[str, Any]:
    stored = json.loads(BASELINE.read_text())
    return {**stored, "machine": {**stored["machine"], "python_build": BUILD}, "instructions": COUNTS}


def worse(baseline: dict[str, Any], kind: Kind, times: float) -> dict[str, Any]:
    """Return the baseline, changed so that the sidecar's chunks cost `times` as much."""
    results = copy.deepcopy(baseline)
    if kind is TIME:
        for pair in ("sidecar / null", "sidecar / floor"):
            results["costs"]["measured"]["streamed"]["ratios"][pair] *= times
    else:
        results["instructions"]["sidecar"]["chunk"] *= times
    return results


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as the Makefile calls it."""
    whole = [sys.executable, "tests/bench/gate.py", *arguments]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_limits_are_those_of_the_documentation() -> None:
    assert (INSTRUCTIONS.most, TIME.most) == (1.15, 1.25)


@pytest.mark.parametrize("kind", [TIME, INSTRUCTIONS])
class TestRegressions:
    def found(self, kind: Kind, baseline: dict[str, Any], times: float) -> list[str]:
        return regressions(kind.stored(baseline), kind.stored(worse(baseline, kind, times)), kind.most)

    def test_the_stored_figures_pass(self, kind: Kind, baseline: dict[str, Any]) -> None:
        assert self.found(kind, baseline, 1) == []

    def test_small_increase_passes(self, kind: Kind, baseline: dict[str, Any]) -> None:
        assert self.found(kind, baseline, kind.most - 0.01) == []

    def test_a_regression_is_found(self, kind: Kind, baseline: dict[str, Any]) -> None:
        lines = self.found(kind, baseline, kind.most + 0.01)
        assert lines
        assert all(line.startswith(("chunk: thousand ", "streamed: sidecar / ")) for line in lines)


def test_gate_fails_without_a_comparison(baseline: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no figure"):
        regressions(TIME.stored(baseline), {"streamed": {"sidecar / another": 1.0}}, 1.25)


def test_litellm_is_not_gated(baseline: dict[str, Any]) -> None:
    assert {pair for by_pair in TIME.stored(baseline).values() for pair in by_pair} == {
        "sidecar / null",
        "sidecar / floor",
    }


def test_only_the_sidecars_instructions_are_compared(baseline: dict[str, Any]) -> None:
    assert INSTRUCTIONS.stored(baseline) == {
        "exchange": {"thousand instructions": 2700.0},
        "chunk": {"thousand instructions": 500.0},
    }


class TestKind:
    def test_instructions_of_the_same_build_are_compared(self, baseline: dict[str, Any]) -> None:
        assert why_not_counted(baseline, BUILD, can_count=True) is None

    def test_without_valgrind_time_is_compared(self, baseline: dict[str, Any]) -> None:
        assert "valgrind" in str(why_not_counted(baseline, BUILD, can_count=False))

    @pytest.mark.parametrize("build", [BUILD.replace("3.11", "3.12"), BUILD.replace("Dec", "Jan"), ""])
    def test_with_another_python_time_is_compared(self, baseline: dict[str, Any], build: str) -> None:
        assert f"this is Python {build}" in str(why_not_counted(baseline, build, can_count=True))

    def test_without_stored_instructions_time_is_compared(self, baseline: dict[str, Any]) -> None:
        alone = {key: value for key, value in baseline.items() if key != "instructions"}
        assert why_not_counted(alone, BUILD, can_count=True) == "the baseline has no instructions"


class TestCommand:
    def test_the_stored_figures_pass(self) -> None:
        assert gate("--measured", str(BASELINE)).returncode == 0

    def test_a_regression_fails(self, baseline: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "worse.json").write_text(json.dumps(worse(baseline, TIME, TIME.most + 0.01)))
        done = gate("--time", "--measured", str(tmp_path / "worse.json"))
        assert done.returncode == 1
        assert "streamed: sidecar / null: " in done.stderr
