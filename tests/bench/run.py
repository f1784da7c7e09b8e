"""The benchmark: the cost of the sidecar, compared with peers that do nothing, the least possible, or the same work.

    make bench                              all parts, under half an hour
    make bench ARGS='--only costs crowd'    some of them
    make bench ARGS=--publish               all, and write what docs/performance.md shows

docs/performance.md explains each figure. The command prints tables and writes JSON to tests/bench/results/, or to
--json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    # When this file is run, Python searches its folder first. The modules' names are too common for that.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import (
    costs,
    crowd,
    documents,
    growth,
    handshake,
    instructions,
    litellm,
    report,
    starting,
    transport,
    workers,
)
from tests.bench.plan import PLANS, Plan
from tests.bench.process import BenchError, reason, until_told
from tests.fakes.envoy import EnvoyFailed

RESULTS: Final = Path(__file__).parent / "results"

PARTS: Final[dict[str, Callable[[Plan], Awaitable[dict[str, Any]]]]] = {
    "costs": costs.measure,
    "start": starting.measure,
    "handshake": handshake.measure,
    "transport": transport.measure,
    "workers": workers.measure,
    "growth": growth.measure,
    "documents": documents.measure,
    "crowd": crowd.measure,
    "instructions": instructions.measure,
}


async def bench(plan: Plan, parts: list[str], keep: Callable[[dict[str, Any]], None]) -> list[str]:
    """Measure `parts`; call `keep` with the results so far after each; print why parts failed, and return them."""
    deadline = time.monotonic() + plan.seconds
    results: dict[str, Any] = {"machine": report.machine(), "plan": asdict(plan), "seconds": {}}
    failed = []
    for name in parts:
        print(name, file=sys.stderr)
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                results[name] = await PARTS[name](plan)
        except (BenchError, EnvoyFailed, TimeoutError, ExceptionGroup) as error:
            failed.append(name)
            print(f"{name}: nothing measured: {reason(error)}", file=sys.stderr)
        results["seconds"][name] = round(time.monotonic() - began, 1)
        print(f"{name}: {results['seconds'][name]:.0f} s", file=sys.stderr)
        keep(results)
    return failed


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Measure the sidecar behind a real Envoy; see docs/performance.md.")
    parser.add_argument("--tiny", action="store_const", dest="plan", const="tiny", help="only to see that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--alone", action="store_true", help="leave LiteLLM out, though it is installed")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the figures go; tests/bench/results/ if absent"
    )
    parser.add_argument("--publish", action="store_true", help="write the figures into docs/ and the gate's baseline")
    options = parser.parse_args(arguments)
    if options.publish and (options.plan or options.only or options.alone):
        parser.error("--publish: only all parts, in full size")
    name = options.plan or "default"
    target = options.json or RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    plan = PLANS[name]
    parts = options.only or list(PARTS)
    if not options.only and not instructions.is_possible():
        print("instructions are left out: valgrind is not installed", file=sys.stderr)
        parts.remove("instructions")
    if options.alone:
        plan = replace(plan, costs=replace(plan.costs, peer_exchanges=0))
    elif not litellm.is_installed():
        print("LiteLLM is left out: `make bench-peers` installs it", file=sys.stderr)
        if options.publish:
            return 1

    def keep(results: dict[str, Any]) -> None:
        target.write_text(json.dumps(results, indent=2) + "\n")

    try:
        failed = until_told(bench(plan, parts, keep))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    results = json.loads(target.read_text())
    print("\n".join(report.sections(results).values()), end="")
    print(f"written to {target}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    if options.publish:
        from tests.bench import publish  # matplotlib is slow to import

        publish.publish(results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
