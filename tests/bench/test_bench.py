"""The benchmark in its smallest size: it finds every figure. Only the gate checks how large they are."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest

from extproc.core.content.census import has_more_values
from extproc.core.content.document import Document
from tests.bench import instructions, litellm, plots, report
from tests.bench.gate import BASELINE
from tests.bench.goals import goals
from tests.bench.growth import line
from tests.bench.load import request
from tests.bench.publish import DOCUMENT, IMAGES, filled
from tests.bench.run import PARTS
from tests.bench.script import Script
from tests.bench.shapes import MEDIA, SHAPES, Carrier
from tests.fakes.envoy import needs_envoy

ROOT = Path(__file__).parents[2]
SECONDS = 110
LONG_SECONDS = 600

needs_schedstat = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="CPU is read from /proc/PID/task/*/schedstat"
)

MAY_BE_NOTHING = ("late", "peak_bytes", "each_us", "kib", "off_line", "redact_us")
"""Figures that may be 0 or less, because nothing is wrong or redacted, or because noise is larger."""


@pytest.fixture(scope="module")
def baseline() -> dict[str, Any]:
    return dict(json.loads(BASELINE.read_text()))


def figures(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield (path, value) of every number below `node`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from figures(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from figures(value, f"{path}/{number}")
    elif isinstance(node, int | float):
        yield path, node


def command(script: str, *arguments: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command as the Makefile calls it."""
    whole = [sys.executable, f"tests/bench/{script}.py", *arguments]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def bench(target: Path, *arguments: str, seconds: float = SECONDS) -> dict[str, Any]:
    """Run the smallest bench; check that every figure is valid; return the results."""
    done = command("run", "--tiny", *arguments, "--json", str(target), seconds=seconds)
    assert done.returncode == 0, done.stderr
    results = dict(json.loads(target.read_text()))
    for section in report.sections(results).values():
        assert section in done.stdout
    found = {path: value for part in PARTS if part in results for path, value in figures(results[part], part)}
    assert found
    assert [
        path for path, value in found.items() if value <= 0 and not any(name in path for name in MAY_BE_NOTHING)
    ] == []
    return results


class TestMeasuring:
    pytestmark: ClassVar = [*needs_envoy, needs_schedstat]

    @pytest.mark.more
    def test_costs_are_found_for_each_chain(self, tmp_path: Path) -> None:
        results = bench(tmp_path / "bench.json", "--alone", "--only", "costs")
        for measured in results["costs"]["measured"].values():
            assert measured["chains"].keys() == {"envoy alone", "null", "floor", "sidecar"}
            assert measured["ratios"].keys() == {"sidecar / null", "sidecar / floor"}
        assert results["costs"]["memory"].keys() == {"null", "floor", "sidecar"}

    @pytest.mark.more
    def test_crowd_of_streams_ends_whole(self, tmp_path: Path) -> None:
        results = bench(tmp_path / "bench.json", "--only", "crowd")
        crowd = results["crowd"]
        assert {chain["finished"] for chain in crowd["chains"].values()} == {crowd["streams"]}

    @pytest.mark.more
    def test_each_document_is_measured(self, tmp_path: Path) -> None:
        results = bench(tmp_path / "bench.json", "--only", "documents")
        sizes = results["plan"]["documents"]["sizes"]
        assert {name: len(points) for name, points in results["documents"].items()} == dict.fromkeys(SHAPES, len(sizes))

    @pytest.mark.long
    @pytest.mark.timeout(LONG_SECONDS)
    def test_other_figures_are_found(self, tmp_path: Path) -> None:
        others = [part for part in PARTS if part not in ("costs", "crowd", "documents", "instructions")]
        results = bench(tmp_path / "bench.json", "--only", *others, seconds=LONG_SECONDS)
        assert results["seconds"].keys() == set(others)
        assert 0 < results["workers"]["2"]["least_exchanges"] <= 0.5
        slow = results["handshake"]["chains"]["sidecar, handshake late"]
        assert slow["model_0_ms"] >= results["handshake"]["handshake_ms"]

    @pytest.mark.long
    @pytest.mark.timeout(LONG_SECONDS)
    @pytest.mark.skipif(not instructions.is_possible(), reason="no valgrind here")
    def test_instructions_are_counted(self, tmp_path: Path) -> None:
        results = bench(tmp_path / "bench.json", "--only", "instructions", seconds=LONG_SECONDS)
        counts = results["instructions"]
        assert counts.keys() == {"null", "floor", "sidecar"}
        for what in ("exchange", "chunk"):
            assert counts["null"][what] < counts["floor"][what] < counts["sidecar"][what]

    @pytest.mark.long
    @pytest.mark.timeout(LONG_SECONDS)
    @pytest.mark.skipif(not litellm.is_installed(), reason="no LiteLLM here: make bench-peers")
    def test_litellm_inspects_as_much_as_the_sidecar(self, tmp_path: Path) -> None:
        # The bench itself counts Aim's calls, and fails if there are too few.
        results = bench(tmp_path / "bench.json", "--only", "costs", seconds=LONG_SECONDS)
        measured = results["costs"]["measured"]
        assert {what for what, one in measured.items() if "litellm / sidecar" in one["ratios"]} == {
            "buffered 1",
            "buffered 8",
            "streamed",
        }
        assert results["machine"]["packages"]["litellm"] == litellm.version()
        assert results["costs"]["saturation"].keys() == {"exchanges", "chunks"}


@pytest.mark.parametrize(
    "arguments", [["--publish", "--tiny"], ["--publish", "--only", "costs"], ["--only", "nothing"]]
)
def test_a_wrong_argument_is_refused(arguments: list[str]) -> None:
    done = command("run", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_script_reaches_the_model_in_the_request() -> None:
    script = Script(5, 0.02, block=2, delay=0.3, linger=1, choices=4, text_bytes=7, word="withheld", given=True)
    assert Script.of(request(script)) == script
    with pytest.raises(ValueError, match="without a script"):
        Script.of(b"{}")


class TestShapes:
    VALUES, SIZE = 2_000, 1_000_000

    @pytest.mark.parametrize("name", SHAPES)
    def test_document_has_as_many_values_as_are_allowed(self, name: str) -> None:
        shape = SHAPES[name]
        text = shape.text(self.VALUES, self.SIZE)
        assert not has_more_values(text, self.VALUES)
        least = int(0.9 * self.VALUES)
        if shape.values == MEDIA:  # a document may have only some of them
            assert text.count(shape.unit.partition("#")[0]) * MEDIA > least
        else:
            assert has_more_values(text, least) or len(text) > 0.99 * self.SIZE

    @pytest.mark.parametrize("name", SHAPES)
    def test_document_is_as_large_as_is_allowed(self, name: str) -> None:
        text = SHAPES[name].text(self.VALUES * 1000, 20_000)
        assert 0.9 * 20_000 < len(text) <= 20_000
        assert Document(text).root

    @pytest.mark.parametrize("name", SHAPES)
    def test_request_has_a_script(self, name: str) -> None:
        if SHAPES[name].carrier is Carrier.REQUEST:
            assert Script.of(SHAPES[name].text(self.VALUES, self.SIZE).encode()) == SHAPES[name].script


class TestGrowth:
    def test_linear_growth_is_on_the_line(self) -> None:
        fixed, each, worst = line([(size, 5 + 0.25 * size) for size in (1, 10, 1000, 100_000)])
        assert (fixed, each) == pytest.approx((5, 0.25))
        assert worst == pytest.approx(0, abs=1e-9)

    def test_faster_growth_is_off_the_line(self) -> None:
        *_, worst = line([(size, 5 + 0.25 * size + 0.001 * size**2) for size in (1, 10, 1000, 100_000)])
        assert worst > 0.1


class TestPublishing:
    def test_the_document_shows_the_baseline(self, baseline: dict[str, Any]) -> None:
        document = DOCUMENT.read_text()
        assert filled(document, report.sections(baseline)) == document, "run tests/bench/publish.py"

    def test_section_without_a_place_is_refused(self) -> None:
        with pytest.raises(ValueError, match="marked"):
            filled("<!-- bench: cpu -->\nold\n<!-- end -->\n", {"cpu": "new\n", "memory": "new\n"})

    def test_places_that_cannot_be_told_apart_are_refused(self) -> None:
        place = "<!-- bench: cpu -->\nold\n<!-- end -->\n"
        with pytest.raises(ValueError, match="marked"):
            filled(place + place, {"cpu": "new\n"})

    def test_place_without_figures_says_so(self) -> None:
        document = "<!-- bench: instructions -->\nold\n<!-- end -->\n"
        assert filled(document, {}) == document.replace("old", "Not measured in this run.")

    def test_place_is_filled_again(self) -> None:
        document = "a\n<!-- bench: cpu -->\nold\n<!-- end -->\nb\n"
        assert filled(document, {"cpu": "new\n"}) == document.replace("old", "new")

    def test_plots_are_reproducible(self, baseline: dict[str, Any], tmp_path: Path) -> None:
        for folder in ("once", "again"):
            plots.draw(baseline, tmp_path / folder)
        once = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
        assert once == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
        assert once.keys() <= {path.name for path in IMAGES.glob("*.svg")}
        for svg in once.values():
            assert ElementTree.fromstring(svg).tag.endswith("svg")

    def test_goal_can_be_missed(self, baseline: dict[str, Any]) -> None:
        slow = copy.deepcopy(baseline)
        slow["start"]["sidecar"] = 1.6
        (goal,) = (goal for goal in goals(slow) if goal.figure.startswith("from the command"))
        assert not goal.is_met
        assert "**no**" in report.sections(slow)["goals"]
