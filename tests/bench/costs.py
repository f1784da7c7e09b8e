"""CPU, latency and memory of an exchange and of a chunk, compared with Envoy alone, null, floor and LiteLLM.

The figures of LiteLLM depend on its load. So the most that it carries is measured first, and all its rounds have half
of that: exchanges begin on a schedule, without waiting for answers, and there are as many streams as come to half.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.bench import litellm, rounds
from tests.bench.plan import Costs, Plan
from tests.bench.process import resident_bytes
from tests.bench.rig import ALONE, FLOOR, LITELLM, NULL, SIDECAR, Chain, running
from tests.bench.rounds import Round

STREAMED: Final = "streamed"
RATIOS: Final = ((SIDECAR, NULL), (SIDECAR, FLOOR), (LITELLM, SIDECAR))

PEER_AT_ONCE: Final = (1, 8)
"""LiteLLM has one measurement of exchanges. It stands next to those of the others with so many at once."""

_SATURATING_AT_ONCE = 8
_SATURATING_CHUNKS = 100
_SATURATING_TIMES = 3
_PACED_AT_ONCE = 16
"""More connections than a paced load needs, so that no exchange waits for one."""

Found = dict[str, dict[str, list[Round]]]
"""The rounds by measurement and chain. Rounds with the same index were run at the same time."""


@dataclass(frozen=True, slots=True)
class Load:
    """Exchanges, or chunks, a second."""

    exchanges: float
    chunks: float

    def half(self) -> Load:
        """Return half of this load."""
        return Load(self.exchanges / 2, self.chunks / 2)

    def streams(self, interval: float = rounds.INTERVAL_SECONDS) -> int:
        """Return how many streams, with a chunk every `interval` seconds, come nearest to the chunks; at least one."""
        return max(1, round(self.chunks * interval))


def buffered(at_once: int) -> str:
    """Return the name of the measurement of buffered exchanges, `at_once` at a time."""
    return f"buffered {at_once}"


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure everything, and LiteLLM if it is installed. Memory comes first, before the processes have grown."""
    names = (ALONE, NULL, FLOOR, SIDECAR)
    peers = (LITELLM,) if plan.costs.peer_exchanges and litellm.is_installed() else ()
    memory = await _memory((*names[1:], *peers), plan.held_streams)
    saturation = await _saturation(plan.costs) if peers else None
    runs = [await run(plan.costs, names, saturation and saturation.half()) for _ in range(plan.costs.runs)]
    return {
        "measured": {what: _summary([each[what] for each in runs]) for what in runs[0]},
        "memory": memory,
        **({"saturation": asdict(saturation)} if saturation else {}),
    }


async def _saturation(plan: Costs) -> Load:
    """Return the most that LiteLLM carries: its rate with 8 exchanges at once, and with streams that never pause."""
    async with running() as rig:
        chain = await rig.chain(LITELLM)
        await rounds.warm_up(chain)
        exchanges, chunks = [], []
        for _ in range(_SATURATING_TIMES):
            exchanges.append(
                plan.peer_exchanges / (await rounds.buffered(chain, _SATURATING_AT_ONCE, plan.peer_exchanges)).seconds
            )
            chunks.append(await rounds.flooded(chain, _SATURATING_AT_ONCE, _SATURATING_CHUNKS))
        return Load(statistics.median(exchanges), statistics.median(chunks))


async def _memory(names: Sequence[str], held_streams: int) -> dict[str, dict[str, float]]:
    memory: dict[str, dict[str, float]] = {}
    async with running() as rig:
        for chain in await rig.chains(*names):
            memory[chain.name] = {"rest_mib": sum(map(resident_bytes, chain.guards)) / 2**20}
            if chain.name != LITELLM:  # it would take too long to open so many streams
                await rounds.warm_up(chain)
                memory[chain.name]["held_kib"] = await rounds.held(chain, held_streams)
    return memory


async def run(plan: Costs, names: Sequence[str], peer: Load | None = None) -> Found:
    """Measure these chains by `plan` in new processes, and LiteLLM with the load `peer`, if any."""
    found: Found = {}
    whole = plan.processes * plan.rounds
    for first in range(0, whole, plan.rounds):
        async with running() as rig:
            chains = await rig.chains(*names)
            peers = [(await rig.chain(LITELLM), peer)] if peer else []
            for chain in (*chains, *(chain for chain, _ in peers)):
                await rounds.warm_up(chain)
            for number in range(first, first + plan.rounds):
                print(f"  round {number + 1} of {whole}", file=sys.stderr)
                start = number % len(chains)
                await _round(plan, chains[start:] + chains[:start], found)
                for chain, load in peers:
                    await _peer_round(plan, chain, load, found)
    return found


async def _round(plan: Costs, chains: Sequence[Chain], found: Found) -> None:
    """Measure everything once, in the order of `chains`."""
    for at_once, exchanges in plan.exchanges.items():
        for chain in chains:
            _note(found, buffered(at_once), chain, await rounds.buffered(chain, at_once, exchanges))
    for chain in chains:
        _note(found, STREAMED, chain, await rounds.streamed(chain, plan.streams, plan.stream_seconds))


async def _peer_round(plan: Costs, chain: Chain, load: Load, found: Found) -> None:
    """Measure LiteLLM once, with this load."""
    exchange = await rounds.buffered(chain, _PACED_AT_ONCE, plan.peer_exchanges, load.exchanges)
    for at_once in PEER_AT_ONCE:
        _note(found, buffered(at_once), chain, exchange)
    _note(found, STREAMED, chain, await rounds.streamed(chain, load.streams(), plan.stream_seconds))


def _note(found: Found, what: str, chain: Chain, result: Round) -> None:
    found.setdefault(what, {}).setdefault(chain.name, []).append(result)


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
        "around_us": statistics.median(each.around_us for each in found),
        **{
            kind: {
                quantile: statistics.median(each.latencies[kind][quantile] for each in found)
                for quantile in first.latencies[kind]
            }
            for kind in first.latencies
        },
    }
