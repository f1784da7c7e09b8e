"""CPU, latency and memory of an exchange and of a chunk, compared with Envoy alone, null, floor and LiteLLM."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.bench import litellm, rounds
from tests.bench.plan import Costs, Plan
from tests.bench.process import resident_bytes
from tests.bench.rig import ALONE, FLOOR, LITELLM, NULL, SIDECAR, Chain, running
from tests.bench.rounds import Round

STREAMED: Final = "streamed"
RATIOS: Final = ((SIDECAR, NULL), (SIDECAR, FLOOR), (LITELLM, SIDECAR))

Found = dict[str, dict[str, list[Round]]]
"""The rounds by measurement and chain. Rounds with the same index were run at the same time."""


def buffered(at_once: int) -> str:
    """Return the name of the measurement of buffered exchanges, `at_once` at a time."""
    return f"buffered {at_once}"


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure everything, and LiteLLM if it is installed. Memory comes first, before the processes have grown."""
    names = [ALONE, NULL, FLOOR, SIDECAR, *([LITELLM] if plan.costs.peer_exchanges and litellm.is_installed() else [])]
    memory = await _memory(names[1:], plan.held_streams)
    runs = [await run(plan.costs, names) for _ in range(plan.costs.runs)]
    return {"measured": {what: _summary([each[what] for each in runs]) for what in runs[0]}, "memory": memory}


async def _memory(names: Sequence[str], held_streams: int) -> dict[str, dict[str, float]]:
    memory: dict[str, dict[str, float]] = {}
    async with running() as rig:
        for chain in await rig.chains(*names):
            memory[chain.name] = {"rest_mib": sum(map(resident_bytes, chain.guards)) / 2**20}
            if chain.name != LITELLM:  # it would take too long to open so many streams
                await rounds.warm_up(chain)
                memory[chain.name]["held_kib"] = await rounds.held(chain, held_streams)
    return memory


async def run(plan: Costs, names: Sequence[str]) -> Found:
    """Measure these chains by `plan` in new processes."""
    found: Found = {}
    whole = plan.processes * plan.rounds
    for first in range(0, whole, plan.rounds):
        async with running() as rig:
            chains = await rig.chains(*names)
            for chain in chains:
                await rounds.warm_up(chain)
            for number in range(first, first + plan.rounds):
                print(f"  round {number + 1} of {whole}", file=sys.stderr)
                start = number % len(chains)
                await _round(plan, chains[start:] + chains[:start], found)
    return found


async def _round(plan: Costs, chains: Sequence[Chain], found: Found) -> None:
    """Measure everything once, in the order of `chains`."""

    def note(what: str, chain: Chain, result: Round) -> None:
        found.setdefault(what, {}).setdefault(chain.name, []).append(result)

    for at_once in plan.exchanges:
        for chain in chains:
            exchanges = plan.peer_exchanges if chain.name == LITELLM else plan.exchanges
            if at_once in exchanges:
                note(buffered(at_once), chain, await rounds.buffered(chain, at_once, exchanges[at_once]))
    for chain in chains:
        note(STREAMED, chain, await rounds.streamed(chain, plan.streams, plan.stream_seconds))


def ratios(found: dict[str, list[Round]], pairs: Sequence[tuple[str, str]] = RATIOS) -> dict[str, float]:
    """Return the median ratio of each pair in `found`. Ratios are within a round, as a slow minute affects both."""
    return {
        f"{one} / {other}": statistics.median(
            ours / theirs for ours, theirs in zip(guards_us(found[one]), guards_us(found[other]), strict=True)
        )
        for one, other in pairs
        if one in found and other in found
    }


def guards_us(found: Sequence[Round]) -> list[float]:
    """Return the CPU of the external processor in each round."""
    return [each.guard_us for each in found if each.guard_us is not None]


def _summary(runs: Sequence[dict[str, list[Round]]]) -> dict[str, Any]:
    """Return medians over the rounds of all runs, and the ratios of all runs and of each."""
    whole = {name: [each for run in runs for each in run[name]] for name in runs[0]}
    return {
        "chains": {name: medians(each) for name, each in whole.items()},
        "ratios": ratios(whole),
        "ratios_by_run": [ratios(run) for run in runs],
    }


def medians(found: Sequence[Round]) -> dict[str, Any]:
    """Return the results of one chain's rounds, as JSON."""
    first = found[0]
    return {
        **({"guard_us": statistics.median(guards_us(found))} if first.guard_us is not None else {}),
        **(
            {"envoy_us": statistics.median(each.envoy_us for each in found if each.envoy_us is not None)}
            if first.envoy_us is not None
            else {}
        ),
        **{
            kind: {
                quantile: statistics.median(each.latencies[kind][quantile] for each in found)
                for quantile in first.latencies[kind]
            }
            for kind in first.latencies
        },
    }
