"""The gate of `make bench-quick`: it fails if an exchange or a chunk costs more than the stored figures allow.

It compares the ratios of CPU to the null and to the floor, measured at the same time: unlike microseconds, ratios hold
on other and on busy machines. An apparent regression is measured again, and the better result counts.

    make bench-quick                        under two minutes
    make bench-quick ARGS='--measured FILE' # judge what `make bench` wrote
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    # See the comment in run.py.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import costs
from tests.bench.plan import GATE
from tests.bench.process import BenchError, reason, until_told
from tests.bench.rig import FLOOR, NULL, SIDECAR
from tests.fakes.envoy import EnvoyFailed

BASELINE: Final = Path(__file__).parent / "baseline.json"
"""The last results of `make bench ARGS=--publish`, which docs/performance.md shows."""

MOST: Final = 1.25
"""The largest allowed quotient of a new ratio and the stored one."""

_CHAINS: Final = (NULL, FLOOR, SIDECAR)
_SECONDS = 240

Ratios = dict[str, dict[str, float]]
"""Ratios by measurement and by pair of chains."""


def stored(results: dict[str, Any]) -> Ratios:
    """Return the sidecar's ratios in the results of `make bench`."""
    return {
        what: {pair: ratio for pair, ratio in one["ratios"].items() if pair.startswith(SIDECAR)}
        for what, one in results["costs"]["measured"].items()
    }


def regressions(baseline: Ratios, measured: Ratios) -> list[str]:
    """Return one line for each ratio that is worse by more than `MOST`; raises ValueError if none can be compared."""
    both = [(what, pair) for what in measured for pair in measured[what] if pair in baseline.get(what, {})]
    if not both:
        raise ValueError("no figure is in both")
    return [
        f"{what}: {pair} is {measured[what][pair]:.2f}, {measured[what][pair] / baseline[what][pair] - 1:.0%} "
        f"more than the stored {baseline[what][pair]:.2f}"
        for what, pair in both
        if measured[what][pair] > MOST * baseline[what][pair]
    ]


async def _measured() -> Ratios:
    async with asyncio.timeout(_SECONDS):
        found = await costs.run(GATE, _CHAINS)
    return {what: costs.ratios(by_chain) for what, by_chain in found.items()}


def _measure(baseline: Ratios) -> Ratios:
    first = until_told(_measured())
    if not regressions(baseline, first):
        return first
    print("apparent regression: measuring again", file=sys.stderr)
    second = until_told(_measured())
    return {what: {pair: min(ratio, second[what][pair]) for pair, ratio in first[what].items()} for what in first}


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status: 1 for a regression."""
    parser = argparse.ArgumentParser(description="Fail where the sidecar costs more than the stored ratios allow.")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="results of `make bench`, instead of measuring")
    options = parser.parse_args(arguments)
    baseline = stored(json.loads(BASELINE.read_text()))
    try:
        measured = stored(json.loads(options.measured.read_text())) if options.measured else _measure(baseline)
    except (BenchError, EnvoyFailed, TimeoutError, ExceptionGroup) as error:
        print(f"nothing measured: {reason(error)}", file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    for what, by_pair in measured.items():
        for pair, ratio in by_pair.items():
            print(f"{what:12} {pair:16} {ratio:.2f}, stored {baseline.get(what, {}).get(pair, float('nan')):.2f}")
    worse = regressions(baseline, measured)
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
