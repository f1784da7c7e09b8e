"""The benchmark: what the sidecar costs, beside external processors that do nothing or the least possible.

    make bench                      a few minutes
    make bench ARGS=--quick         under a minute, noisier

docs/performance.md says what each figure means. Prints tables and writes JSON to tests/bench/results/, or to --json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Run as a file, the folder of this file comes first, where the modules' names are too common to be found alone.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import report, rounds
from tests.bench.process import BenchError, resident_bytes
from tests.bench.rig import Rig, running
from tests.bench.rounds import Plan, Round
from tests.fakes.envoy import EnvoyFailed

RESULTS = Path(__file__).parent / "results"

PLANS = {
    "default": Plan(9, {1: 150, 8: 400, 32: 400}, streams=8, stream_seconds=2.5, held_streams=500, seconds=900),
    "quick": Plan(2, {1: 60, 8: 160, 32: 160}, streams=8, stream_seconds=1.5, held_streams=200, seconds=240),
    "tiny": Plan(1, {1: 4, 8: 16, 32: 32}, streams=2, stream_seconds=0.3, held_streams=50, seconds=90),
}


async def bench(plan: Plan) -> dict[str, Any]:
    """Measure by `plan`; return the results as JSON. Raises BenchError, and TimeoutError beyond the plan's time."""
    async with asyncio.timeout(plan.seconds), running() as rig:
        memory = await _memory(rig, plan)
        measured: dict[str, report.Rounds] = {}
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr)
            await _round(rig, plan, number, measured)
        return {
            "machine": report.machine(rig.envoy_version),
            "plan": report.describe(plan),
            "buffered": {str(at_once): report.summary(measured[f"{at_once}"]) for at_once in plan.exchanges},
            "streamed": report.summary(measured["streamed"]),
            "memory": memory,
        }


async def _memory(rig: Rig, plan: Plan) -> dict[str, dict[str, float]]:
    """Measure memory first: later the processes have grown, and hide what a stream adds in what they keep."""
    memory = {chain.name: {"rest_mib": resident_bytes(pid) / 2**20} for chain, pid in rig.processors}
    for chain in rig.chains:
        await rounds.warm_up(chain)
    for chain, pid in rig.processors:
        print(f"memory of {chain.name}", file=sys.stderr)
        memory[chain.name]["held_kib"] = await rounds.held(rig, chain, pid, plan.held_streams)
    return memory


async def _round(rig: Rig, plan: Plan, number: int, measured: dict[str, report.Rounds]) -> None:
    """Measure everything once, beginning with another chain each time."""
    start = number % len(rig.chains)
    order = rig.chains[start:] + rig.chains[:start]

    def note(what: str, name: str, result: Round) -> None:
        measured.setdefault(what, {}).setdefault(name, []).append(result)

    for at_once, count in plan.exchanges.items():
        for chain in order:
            note(f"{at_once}", chain.name, await rounds.buffered(rig, chain, at_once, count))
    for chain in order:
        note("streamed", chain.name, await rounds.streamed(rig, chain, plan.streams, plan.stream_seconds))


async def _until_told(plan: Plan) -> dict[str, Any]:
    """Run, ended in good order by SIGTERM too: nothing that was started may stay."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await bench(plan)


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Measure the sidecar behind a real Envoy; see docs/performance.md.")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", dest="plan", const="quick", help="under a minute, noisier")
    sizes.add_argument("--tiny", action="store_const", dest="plan", const="tiny", help="only to see that it runs")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the figures go; tests/bench/results/ if absent"
    )
    options = parser.parse_args(arguments)
    name = options.plan or "default"
    target = options.json or RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a held stream is several sockets in each process
    try:
        results = asyncio.run(_until_told(PLANS[name]))
    except (BenchError, EnvoyFailed, TimeoutError, ExceptionGroup) as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        print(f"nothing measured: {error or 'out of time'}", file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(report.tables(results), end="")
    print(f"written to {target}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
