"""How figures are computed from what was measured, and how they are shown."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bench import capacity, load, report, table
from tests.bench.costs import Load
from tests.bench.gate import BASELINE
from tests.bench.goals import goals
from tests.bench.instructions import total
from tests.bench.model import Model
from tests.bench.process import BenchError
from tests.bench.rig import Chain
from tests.bench.rounds import Spent, chunks_of

SATURATION = {"exchanges": 44.0, "chunks": 700.0}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Results with all figures of the part `costs`."""
    found = json.loads(BASELINE.read_text())
    found["costs"]["saturation"] = SATURATION
    for one in found["costs"]["measured"].values():
        for chain in one["chains"].values():
            chain["around_us"] = 300.0
    found["costs"]["measured"]["buffered 8"]["chains"]["sidecar"] |= {"guard_us": 1500.0, "envoy_us": 500.0}
    found["costs"]["measured"]["streamed"]["chains"]["sidecar"] |= {"guard_us": 500.0, "envoy_us": 200.0}
    return dict(found)


def row(section: str, label: str) -> list[str]:
    """Return the cells of the row that begins with `label`."""
    (line,) = (line for line in section.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


class TestLoad:
    def test_half_is_half_of_both(self) -> None:
        assert Load(40, 700).half() == Load(20, 350)

    @pytest.mark.parametrize(("chunks", "streams"), [(350, 7), (340, 7), (10, 1), (0, 1)])
    def test_streams_come_nearest_to_the_chunks(self, chunks: float, streams: int) -> None:
        assert Load(20, chunks).streams(interval=0.02) == streams

    async def test_paced_exchanges_begin_in_turn(self) -> None:
        server = await asyncio.get_running_loop().create_server(partial(Model, bytearray()), "127.0.0.1", 0)
        connections = await load.connect(server.sockets[0].getsockname()[1], 4)
        try:
            began = time.monotonic()
            timings = await load.buffered(connections, 11, per_second=100)
            assert time.monotonic() - began >= 0.1
            assert len(timings) == 11
        finally:
            load.close(connections)
            server.close()
            await server.wait_closed()


class TestCapacity:
    def test_exchanges_of_two_cores(self) -> None:
        assert capacity.exchanges(2_000) == pytest.approx(700)

    def test_streams_of_one_core(self) -> None:
        assert capacity.streams(500, cores=1) == pytest.approx(1400 / 30)

    def test_chain_without_its_own_envoy_has_no_cpu_of_it(self) -> None:
        assert capacity.spent({"guard_us": 15_000.0, "around_us": 400.0}) == 15_000
        assert capacity.spent({"guard_us": 15_000.0, "around_us": 400.0}, capacity.ALL) == 15_400

    def test_client_and_stand_ins_are_counted(self, results: dict[str, Any]) -> None:
        section = report.sections(results)["capacity"]
        assert row(section, "exchanges a second: what guards and Envoy")[2] == "700"
        assert row(section, "exchanges a second: the client")[2] == "609"
        assert row(section, "streams at 30 chunks a second: what guards and Envoy")[2] == "67"
        assert row(section, "streams at 30 chunks a second: the client")[2] == "47"

    @pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="CPU is read from schedstat")
    def test_cpu_of_the_bench_is_that_around_a_chain(self) -> None:
        spent = Spent(Chain("nothing", 1, None, (os.getpid(),)))
        sum(range(1_000_000))
        round_ = spent.round(1)
        assert round_.around_us > 0
        assert (round_.guard_us, round_.envoy_us) == (None, None)


class TestInstructions:
    def test_threads_of_one_dump_are_added(self, tmp_path: Path) -> None:
        for name, count in (("out.1-01", 1000), ("out.1-02", 200), ("out.2-01", 7)):
            (tmp_path / name).write_text(f"events: Ir\nsummary: {count}\ntotals: {count}\n")
        assert (total(tmp_path, 1), total(tmp_path, 2)) == (1200, 7)

    def test_nothing_counted_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "out.1-01").write_text("events: Ir\nsummary: 0\n")
        with pytest.raises(BenchError, match="nothing"):
            total(tmp_path, 1)

    def test_chunks_of_a_stream_depend_on_the_interval(self) -> None:
        assert (chunks_of(10, 0.1), chunks_of(10, 0.02)) == (109, 545)

    def test_ratios_to_the_null_are_shown(self) -> None:
        counts = {"null": {"exchange": 9e5, "chunk": 2e5}, "sidecar": {"exchange": 27e5, "chunk": 5e5}}
        results = {**json.loads(BASELINE.read_text()), "instructions": counts}
        section = report.sections(results)["instructions"]
        assert row(section, "exchange, thousand") == ["900", "2,700"]
        assert row(section, "chunk / null") == ["1.00", "2.50"]


class TestCosts:
    def test_load_of_litellm_is_shown(self, results: dict[str, Any]) -> None:
        sections = report.sections(results)
        for name in ("summary", "cpu", "latency", "capacity"):
            assert "| litellm, half load" in sections[name]
        assert row(sections["cpu"], "exchanges a second") == ["44.0", "22.0"]
        assert row(sections["cpu"], "chunks a second") == ["700", "350"]

    def test_litellm_may_be_left_out(self, results: dict[str, Any]) -> None:
        alone = copy.deepcopy(results)
        del alone["costs"]["saturation"], alone["costs"]["memory"]["litellm"]
        for one in alone["costs"]["measured"].values():
            one["chains"].pop("litellm", None)
            for ratios in (one["ratios"], *one["ratios_by_run"]):
                ratios.pop("litellm / sidecar", None)
        sections = report.sections(alone)
        assert not any("litellm" in text.lower() for name, text in sections.items() if name != "machine")

    def test_goals_for_the_fixed_reference(self, results: dict[str, Any]) -> None:
        changed = copy.deepcopy(results)
        changed["costs"]["measured"]["buffered 8"]["ratios"]["sidecar / null"] = 2.4
        changed["costs"]["measured"]["streamed"]["ratios"]["sidecar / null"] = 1.91
        met = {goal.figure: goal.is_met for goal in goals(changed)}
        assert met["CPU of sidecar / null: exchange, 8 at once"]
        assert not met["CPU of sidecar / null: streamed chunk"]

    def test_every_ratio_counts_for_how_much_runs_differ(self, results: dict[str, Any]) -> None:
        changed = copy.deepcopy(results)
        for pair in changed["costs"]["measured"]["streamed"]["ratios"]:
            one = copy.deepcopy(changed)
            one["costs"]["measured"]["streamed"]["ratios_by_run"][0][pair] = 1.0
            one["costs"]["measured"]["streamed"]["ratios_by_run"][1][pair] = 9.0
            (goal,) = (goal for goal in goals(one) if goal.figure.startswith("the ratios above"))
            assert goal.measured == "800%"


def test_table_is_aligned() -> None:
    assert table.table("us", [("a", ["1"]), ("bcd", [table.MISSING])], ["null"]) == (
        "| us  | null |\n| --- | ---- |\n| a   | 1    |\n| bcd | -    |\n"
    )


def test_cells() -> None:
    assert (table.whole(1234.4), table.whole(None)) == ("1,234", "-")
    assert table.p50_p99({"p50": 1.0, "p99": 2.346}) == "1.00 / 2.35"
