"""The gate of `make bench-quick`: it fails if an exchange or a chunk costs more than the stored figures allow.

Where valgrind is installed and Python is the very build of the baseline's, it counts the sidecar's instructions. They
are steadier than ratios to the null, whose own count is small and varies with the load of the machine. Elsewhere it
measures CPU time, as ratios to the null and to the floor: unlike absolute times, ratios hold on other and on busy
machines. An apparent regression is measured again, and the better result counts.

    make bench-quick                        about two minutes
    make bench-quick ARGS=--time            by time, though valgrind is installed
    make bench-quick ARGS='--measured FILE' judge what `make bench` wrote
"""

from __future__ import annotations

import argparse
import asyncio
import json
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

Figures = dict[str, dict[str, float]]
"""Figures by measurement and by what they are: ratios by pair of chains, or thousand instructions."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of figure: where it is in results of `make bench`, and how to measure it again.

    `most` is the largest allowed quotient of a new figure and the stored one.
    """

    name: str
    most: float
    stored: Callable[[dict[str, Any]], Figures]
    measure: Callable[[], Awaitable[Figures]]


def timed(results: dict[str, Any]) -> Figures:
    """Return the sidecar's ratios of CPU time."""
    return {
        what: {pair: ratio for pair, ratio in one["ratios"].items() if pair.startswith(SIDECAR)}
        for what, one in results["costs"]["measured"].items()
    }


def counted(results: dict[str, Any]) -> Figures:
    """Return the sidecar's instructions."""
    counts: instructions.Counts = results["instructions"]
    return {what: {"thousand instructions": count / 1e3} for what, count in counts[SIDECAR].items()}


async def _time() -> Figures:
    found = await costs.run(GATE, (NULL, FLOOR, SIDECAR))
    return {what: costs.ratios(by_chain) for what, by_chain in found.items()}


async def _count() -> Figures:
    return counted({"instructions": await instructions.count(COUNTED, (SIDECAR,))})


TIME: Final = Kind("time", 1.25, timed, _time)
INSTRUCTIONS: Final = Kind("instructions", 1.15, counted, _count)


def why_not_counted(baseline: dict[str, Any], build: str, can_count: bool) -> str | None:
    """Return why instructions are not compared with those of `baseline`; None if they are.

    `build` describes the present Python, as `sys.version` does.
    """
    if not can_count:
        return "no instructions are counted here (is valgrind installed?)"
    if "instructions" not in baseline:
        return "the baseline has no instructions"
    if baseline["machine"]["python_build"] != build:
        return f"the baseline has those of Python {baseline['machine']['python_build']}, and this is Python {build}"
    return None


def regressions(baseline: Figures, measured: Figures, most: float) -> list[str]:
    """Return a line for each figure that is over `most` times the stored one; raises ValueError if none is in both."""
    both = [(what, name) for what in measured for name in measured[what] if name in baseline.get(what, {})]
    if not both:
        raise ValueError("no figure is in both")
    return [
        f"{what}: {name}: {measured[what][name]:,.2f}, {measured[what][name] / baseline[what][name] - 1:.0%} "
        f"more than the stored {baseline[what][name]:,.2f}"
        for what, name in both
        if measured[what][name] > most * baseline[what][name]
    ]


def _measure(kind: Kind, baseline: Figures) -> Figures:
    async def measured() -> Figures:
        async with asyncio.timeout(_SECONDS):
            return await kind.measure()

    first = until_told(measured())
    if not regressions(baseline, first, kind.most):
        return first
    print("apparent regression: measuring again", file=sys.stderr)
    second = until_told(measured())
    return {what: {name: min(figure, second[what][name]) for name, figure in first[what].items()} for what in first}


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status: 1 for a regression."""
    parser = argparse.ArgumentParser(description="Fail where the sidecar costs more than the stored figures allow.")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="results of `make bench`, instead of measuring")
    parser.add_argument("--time", action="store_true", help="compare CPU time, though instructions could be counted")
    options = parser.parse_args(arguments)
    stored = json.loads(BASELINE.read_text())
    results = json.loads(options.measured.read_text()) if options.measured else None
    if results:
        why_not = why_not_counted(stored, results["machine"].get("python_build", ""), "instructions" in results)
    else:
        why_not = why_not_counted(stored, sys.version, instructions.is_possible())
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
    for what, by_name in measured.items():
        for name, figure in by_name.items():
            print(f"{what:12} {name:22} {figure:,.2f}, stored {baseline.get(what, {}).get(name, float('nan')):,.2f}")
    worse = regressions(baseline, measured, kind.most)
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
