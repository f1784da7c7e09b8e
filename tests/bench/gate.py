"""The gate of `make bench-quick`: it fails if an exchange or a chunk costs more than the stored figures allow.

Where valgrind is installed it counts instructions, which are steadier than time; elsewhere, or with another version of
Python than the baseline's, it measures CPU time. Either way it compares ratios to the null (of time also to the floor),
measured in the same run: unlike absolute figures, ratios hold on other and on busy machines. An apparent regression is
measured again, and the better result counts.

    make bench-quick
    make bench-quick ARGS=--time            by time, though valgrind is installed
    make bench-quick ARGS='--measured FILE' judge what `make bench` wrote
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    # See the comment in run.py.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import costs, instructions
from tests.bench.plan import COUNTED, GATE
from tests.bench.process import BenchError, reason, until_told
from tests.bench.rig import FLOOR, NULL, SIDECAR
from tests.fakes.envoy import EnvoyFailed

BASELINE: Final = Path(__file__).parent / "baseline.json"
"""The last results of `make bench ARGS=--publish`, which docs/performance.md shows."""

_SECONDS = 600

Ratios = dict[str, dict[str, float]]
"""Ratios by measurement and by pair of chains."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of figure: its ratios in results of `make bench`, and how to measure them again.

    `most` is the largest allowed quotient of a new ratio and the stored one.
    """

    name: str
    most: float
    stored: Callable[[dict[str, Any]], Ratios]
    measure: Callable[[], Awaitable[Ratios]]


def timed(results: dict[str, Any]) -> Ratios:
    """Return the sidecar's ratios of CPU time."""
    return {
        what: {pair: ratio for pair, ratio in one["ratios"].items() if pair.startswith(SIDECAR)}
        for what, one in results["costs"]["measured"].items()
    }


def counted(results: dict[str, Any]) -> Ratios:
    """Return the sidecar's ratios of instructions."""
    counts: instructions.Counts = results["instructions"]
    return {
        what: {f"{SIDECAR} / {NULL}": counts[SIDECAR][what] / counts[NULL][what]}
        for what in (instructions.EXCHANGE, instructions.CHUNK)
    }


async def _time() -> Ratios:
    found = await costs.run(GATE, (NULL, FLOOR, SIDECAR))
    return {what: costs.ratios(by_chain) for what, by_chain in found.items()}


async def _count() -> Ratios:
    return counted({"instructions": await instructions.count(COUNTED, (NULL, SIDECAR))})


TIME: Final = Kind("time", 1.25, timed, _time)
INSTRUCTIONS: Final = Kind("instructions", 1.15, counted, _count)


def why_not_counted(baseline: dict[str, Any], python: str, can_count: bool) -> str | None:
    """Return why instructions are not compared with those of `baseline`; None if they are."""
    if not can_count:
        return "no instructions are counted here (is valgrind installed?)"
    if "instructions" not in baseline:
        return "the baseline has no instructions"
    stored = baseline["machine"]["python"]
    if stored.split(".")[:2] != python.split(".")[:2]:
        return f"the baseline has those of Python {stored}, and this is Python {python}"
    return None


def regressions(baseline: Ratios, measured: Ratios, most: float) -> list[str]:
    """Return one line for each ratio that is over `most` times the stored one; raises ValueError if none is in both."""
    both = [(what, pair) for what in measured for pair in measured[what] if pair in baseline.get(what, {})]
    if not both:
        raise ValueError("no figure is in both")
    return [
        f"{what}: {pair} is {measured[what][pair]:.2f}, {measured[what][pair] / baseline[what][pair] - 1:.0%} "
        f"more than the stored {baseline[what][pair]:.2f}"
        for what, pair in both
        if measured[what][pair] > most * baseline[what][pair]
    ]


def _measure(kind: Kind, baseline: Ratios) -> Ratios:
    async def measured() -> Ratios:
        async with asyncio.timeout(_SECONDS):
            return await kind.measure()

    first = until_told(measured())
    if not regressions(baseline, first, kind.most):
        return first
    print("apparent regression: measuring again", file=sys.stderr)
    second = until_told(measured())
    return {what: {pair: min(ratio, second[what][pair]) for pair, ratio in first[what].items()} for what in first}


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status: 1 for a regression."""
    parser = argparse.ArgumentParser(description="Fail where the sidecar costs more than the stored ratios allow.")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="results of `make bench`, instead of measuring")
    parser.add_argument("--time", action="store_true", help="compare CPU time, though instructions could be counted")
    options = parser.parse_args(arguments)
    stored = json.loads(BASELINE.read_text())
    results = json.loads(options.measured.read_text()) if options.measured else None
    if results:
        why_not = why_not_counted(stored, results["machine"]["python"], "instructions" in results)
    else:
        why_not = why_not_counted(stored, platform.python_version(), instructions.is_possible())
    kind = TIME if options.time or why_not else INSTRUCTIONS
    print(f"by {kind.name}{f': {why_not}' if why_not else ''}", file=sys.stderr)
    baseline = kind.stored(stored)
    try:
        measured = kind.stored(results) if results else _measure(kind, baseline)
    except (BenchError, EnvoyFailed, TimeoutError, ExceptionGroup) as error:
        print(f"nothing measured: {reason(error)}", file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    for what, by_pair in measured.items():
        for pair, ratio in by_pair.items():
            print(f"{what:12} {pair:16} {ratio:.2f}, stored {baseline.get(what, {}).get(pair, float('nan')):.2f}")
    worse = regressions(baseline, measured, kind.most)
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
