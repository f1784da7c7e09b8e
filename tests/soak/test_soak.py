"""The soak in its smallest sizes: it works, and finds no problem. `make soak` runs larger ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.envoy import needs_envoy
from tests.soak.variants import VARIANTS

pytestmark = [
    *needs_envoy,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="memory and files are read from /proc/PID"),
]

ROOT = Path(__file__).parents[2]


def soak(target: Path, *arguments: str, seconds: float) -> dict[str, Any]:
    """Run the command as the Makefile calls it; return its results."""
    command = [sys.executable, "tests/soak/run.py", *arguments, "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong" in done.stdout
    return dict(json.loads(target.read_text()))


OWN_FAULTS = {
    "tls": "certificate rotation",
    "mtls": "certificate rotation",
    "workers": "kill -9 of a worker",
    "slow-aim": "Aim: slower",
}
"""The faults that only one variant has."""


def check(results: dict[str, Any]) -> None:
    """Check that the soak has covered everything and found no problem."""
    assert results["wrongs"] == []
    assert sum(results["endings"].values()) == results["exchanges"]
    assert all(results["endings"].values()), "an ending never occurred"
    variant = results["plan"]["variant"]
    # What a client saw was verified, or a leg failed open: then the soak has looked for the reason of each text.
    assert results["marks"]["seen"] > 0
    assert results["marks"]["seen"] <= results["marks"]["verified"] or variant == "open"
    assert results["streams_at_once"]["max"] > 0
    if variant == "slow-aim":
        assert results["large_answers"]["complete"] > 0
    else:
        assert results["slow_clients"]["envoy_bytes_per_client"] > 0
    assert bool(results["failed_open"]) is (variant == "open")
    assert {"kill -9 of the sidecar", "kill -9 of Aim", "key rotation", "settings reloaded"} <= results["faults"].keys()
    assert OWN_FAULTS.get(variant, "key rotation") in results["faults"]


@pytest.mark.more
@pytest.mark.timeout(180)
@pytest.mark.parametrize("variant", VARIANTS)
def test_smallest_soak_finds_no_problem(variant: str, tmp_path: Path) -> None:
    results = soak(tmp_path / "soak.json", "--tiny", "--seed", "1", "--variant", variant, seconds=170)
    check(results)


@pytest.mark.long
@pytest.mark.timeout(800)
def test_short_soak_with_every_fault_finds_no_problem(tmp_path: Path) -> None:
    results = soak(tmp_path / "soak.json", "--minutes", "5", "--streams", "50", seconds=790)
    check(results)
    assert len(results["faults"]) == 16
    assert results["memory_mib"]["end"] > 0


@pytest.mark.parametrize(
    "argument", ["--minutes=0", "--minutes=x", "--streams=0", "--streams=100000", "--variant=unknown"]
)
def test_a_soak_without_bounds_is_refused(argument: str) -> None:
    command = [sys.executable, "tests/soak/run.py", argument]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
