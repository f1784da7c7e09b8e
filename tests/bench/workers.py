"""How two workers share the work: the share of each, and the cost of an exchange compared with one worker.

The client, Envoy, Aim and the model need CPUs too, so that two workers are not twice as fast on two CPUs. Their CPU is
counted for each exchange. If the cost of an exchange stays the same and the shares are equal, N workers can carry N
times the load.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

from tests.bench import rounds
from tests.bench.plan import Plan
from tests.bench.process import cpu, cpu_between, machine_busy
from tests.bench.rig import Chain, running

AT_ONCE: Final = 32
_MEDIANS: Final = ("guard_us", "envoy_us", "around_us", "per_second", "machine_busy")


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure exchanges, 32 at once; return medians of interleaved rounds for each number of workers."""
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    async with running() as rig:
        chains = {count: await rig.sidecar(f"sidecar-{count}", workers=count) for count in found}
        for chain in chains.values():
            await rounds.warm_up(chain)
        for _ in range(plan.worker_rounds):
            for count, chain in chains.items():
                found[count].append(await _round(chain, plan.worker_exchanges))
    one = [each["per_second"] for each in found[1]]
    return {
        str(count): {
            **{key: statistics.median(each[key] for each in some) for key in _MEDIANS},
            "least_exchanges": statistics.median(min(each["exchanges"]) for each in some),
            "least_cpu": statistics.median(min(each["cpu"]) for each in some),
            "times_one": statistics.median(each["per_second"] / alone for each, alone in zip(some, one, strict=True)),
        }
        for count, some in found.items()
    }


async def _round(chain: Chain, count: int) -> dict[str, Any]:
    exchanges, spent = await chain.exchanges(), [cpu([pid]) for pid in chain.guards]
    busy, there = machine_busy()
    result = await rounds.buffered(chain, AT_ONCE, count)
    busy_after, there_after = machine_busy()
    return {
        "guard_us": result.guard_us,
        "envoy_us": result.envoy_us,
        "around_us": result.around_us,
        "per_second": count / result.seconds,
        "machine_busy": (busy_after - busy) / (there_after - there),
        "exchanges": _shares(
            [after - before for before, after in zip(exchanges, await chain.exchanges(), strict=True)]
        ),
        "cpu": _shares([cpu_between(before, cpu([pid])) for before, pid in zip(spent, chain.guards, strict=True)]),
    }


def _shares(parts: list[int]) -> list[float]:
    return [part / sum(parts) for part in parts]
