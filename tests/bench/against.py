"""Compare the CPU of this checkout's sidecar with that of another checkout, in interleaved rounds.

    make bench-against OTHER=../before      the other checkout needs its own .venv (make venv)

Both sidecars have the same Envoy, model and Aim. A ratio is the median of the ratios within a round, so that a slow
minute counts for both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # See the comment in run.py.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import rounds
from tests.bench.costs import STREAMED, Found, buffered, guards_us, ratios
from tests.bench.process import BenchError, reason, until_told
from tests.bench.rig import running
from tests.fakes.envoy import EnvoyFailed

THIS, OTHER = "this", "other"
_EXCHANGES = {1: 100, 8: 240}
_STREAMS, _SECONDS = 8, 1.5


async def measure(other: Path, processes: int, count: int) -> Found:
    """Return the rounds of both checkouts: `count` of them in each of `processes` sets of new processes."""
    found: Found = {}
    for _ in range(processes):
        async with running() as rig:
            chains = [await rig.sidecar(THIS), await rig.sidecar(OTHER, checkout=other)]
            for chain in chains:
                await rounds.warm_up(chain)
            for number in range(count):
                print(f"  round {number + 1} of {count}", file=sys.stderr)
                ordered = chains[number % 2 :] + chains[: number % 2]
                for at_once, exchanges in _EXCHANGES.items():
                    for chain in ordered:
                        result = await rounds.buffered(chain, at_once, exchanges)
                        found.setdefault(buffered(at_once), {}).setdefault(chain.name, []).append(result)
                for chain in ordered:
                    result = await rounds.streamed(chain, _STREAMS, _SECONDS)
                    found.setdefault(STREAMED, {}).setdefault(chain.name, []).append(result)
    return found


def main() -> int:
    """Print a line for each measurement; return 1 if nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    try:
        found = until_told(measure(arguments.other.resolve(), arguments.processes, arguments.rounds))
    except (BenchError, EnvoyFailed, TimeoutError, ExceptionGroup) as error:
        print(reason(error), file=sys.stderr)
        return 1
    for what, chains in found.items():
        each = [a / b for a, b in zip(guards_us(chains[THIS]), guards_us(chains[OTHER]), strict=True)]
        (ratio,) = ratios(chains, [(THIS, OTHER)]).values()
        print(f"{what}: this / other {ratio:.3f} ({min(each):.2f} to {max(each):.2f} in {len(each)} rounds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
