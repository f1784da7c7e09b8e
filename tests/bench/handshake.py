"""The time to the first token of a stream, with an Aim that opens its session at once or late, and such a model."""

from __future__ import annotations

import statistics
from typing import Any, Final

from tests.bench import load, rounds
from tests.bench.plan import Plan
from tests.bench.process import BenchError
from tests.bench.rig import ALONE, NULL, Chain, running
from tests.bench.script import Script

HANDSHAKE: Final = 0.2
MODEL: Final = 0.3

_CHUNKS = 3

AT_ONCE, LATE = "sidecar, handshake at once", "sidecar, handshake late"


async def measure(plan: Plan) -> dict[str, Any]:
    """Return the median time to the first token in milliseconds, one stream at a time, interleaved."""
    found: dict[str, dict[str, list[float]]] = {}
    async with running() as rig:
        chains = [
            *await rig.chains(ALONE, NULL),
            await rig.sidecar(AT_ONCE),
            await rig.sidecar(LATE, aim=rig.slow_aim(HANDSHAKE)),
        ]
        for chain in chains:
            await rounds.warm_up(chain)
        for _ in range(plan.handshakes):
            for chain in chains:
                for delay in (0.0, MODEL):
                    times = found.setdefault(chain.name, {}).setdefault(f"model_{delay * 1e3:.0f}_ms", [])
                    times.append(await _first_token_ms(chain, delay))
    return {
        "handshake_ms": HANDSHAKE * 1e3,
        "chains": {
            name: {delay: statistics.median(times) for delay, times in by_delay.items()}
            for name, by_delay in found.items()
        },
    }


async def _first_token_ms(chain: Chain, delay: float) -> float:
    (connection,) = await load.connect(chain.port, 1)
    try:
        await connection.exchange(load.request(Script(_CHUNKS, 0.005, delay=delay)))
    finally:
        connection.close()
    arrivals = connection.arrivals
    if len(arrivals.at) != _CHUNKS:
        raise BenchError(f"{chain.name}: {len(arrivals.at)} of {_CHUNKS} chunks came")
    return (arrivals.at[0] - arrivals.began) / 1e6
