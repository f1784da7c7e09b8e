"""The benchmark's rig works: in its smallest size it finds every figure; how large they are is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.envoy import needs_envoy

pytestmark = [
    *needs_envoy,
    pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="CPU is read from /proc/PID/task/*/schedstat"),
]

ROOT = Path(__file__).parents[2]
SECONDS = 100


def figures(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield (path, value) of every number below `node`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from figures(value, f"{path}/{key}")
    elif isinstance(node, int | float):
        yield path, node


def test_the_smallest_bench_finds_every_figure(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    # As the Makefile calls it.
    command = [sys.executable, "tests/bench/run.py", "--tiny", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(target.read_text())
    for measured in (*results["buffered"].values(), results["streamed"]):
        assert measured["chains"].keys() == {"envoy alone", "null", "floor", "sidecar"}
        assert measured["ratios"].keys() == {"sidecar / null", "sidecar / floor"}
    assert results["memory"].keys() == {"null", "floor", "sidecar"}
    assert [path for path, value in figures(results) if value <= 0] == []
    for line in ("buffered exchange, 8 at once", "streamed chunk", "at rest, MiB", "sidecar adds"):
        assert line in done.stdout


def test_a_wrong_argument_is_refused() -> None:
    command = [sys.executable, "tests/bench/run.py", "--quick", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
