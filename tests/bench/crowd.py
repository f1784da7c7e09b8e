"""Thousands of slow streams at once: whether all end in time, how late their chunks are, and what they cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from tests.bench import load, rounds
from tests.bench.plan import Crowd, Plan
from tests.bench.process import BenchError, resident_bytes
from tests.bench.rig import ALONE, SIDECAR, Chain, running
from tests.bench.script import Script

LATE: Final = 0.05
"""The share of the model's time by which a late stream takes longer, and of the interval by which a chunk is late."""

_SHARES = (*(percent / 100 for percent in range(2, 100, 2)), 0.99, 0.999, 1.0)
_PATIENCE_SECONDS = 60.0


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure a crowd of streams with Envoy alone, and with the sidecar."""
    return {
        "streams": plan.crowd.streams,
        "chains": {name: await _chain(name, plan.crowd) for name in (ALONE, SIDECAR)},
    }


async def _chain(name: str, crowd: Crowd) -> dict[str, Any]:
    async with running() as rig:
        chain = await rig.chain(name)
        await rounds.warm_up(chain)
        return await _crowd(chain, crowd)


async def _crowd(chain: Chain, crowd: Crowd) -> dict[str, Any]:
    data = load.request(Script(crowd.chunks, crowd.interval))
    meant = crowd.chunks * crowd.interval  # the first chunk also comes an interval after the head
    resting = sum(map(resident_bytes, chain.guards))
    asked = await chain.asked()
    connections = await load.connect(chain.port, crowd.streams)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = []
            began = time.monotonic()
            for number, connection in enumerate(connections):
                tasks.append(group.create_task(_lateness(connection, data, meant)))
                await asyncio.sleep(max(0.0, began + (number + 1) * crowd.ramp / crowd.streams - time.monotonic()))
            # All streams are open now, and the first one has been for `ramp` seconds.
            spent = rounds.Spent(chain)
            await asyncio.sleep((meant - crowd.ramp) / 2)
            steady = spent.round(1)
            growth = sum(map(resident_bytes, chain.guards)) - resting
    finally:
        load.close(connections)
    lateness = [late for task in tasks if (late := task.result()) is not None]
    delays = [delay / 1e6 for connection in connections for delay in connection.arrivals.delays]
    seen = rounds.more(asked, await chain.asked(), "chunks")
    if not lateness or (chain.aim is not None and seen < len(delays)):
        raise BenchError(f"{chain.name}: {len(lateness)} streams ended, {len(delays)} chunks came, and Aim saw {seen}")
    return {
        "finished": len(lateness),
        "latest": max(lateness),
        "late_streams": sum(late > LATE for late in lateness) / len(lateness),
        "late_chunks": sum(delay > LATE * crowd.interval * 1e3 for delay in delays) / len(delays),
        "delay_ms": rounds.quantiles(delays),
        "delays_ms": _distribution(delays),
        **({"cores": steady.guard_us / steady.seconds / 1e6} if steady.guard_us is not None else {}),
        **({"stream_kib": growth / crowd.streams / 1024} if chain.guards else {}),
    }


async def _lateness(connection: load.Connection, data: bytes, meant: float) -> float | None:
    """Return by which share of `meant` seconds a stream took longer; None if it failed."""
    try:
        return (await connection.exchange(data, meant + _PATIENCE_SECONDS)).total / meant - 1
    except (BenchError, TimeoutError):
        return None


def _distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return (share, value) pairs: this share of the values is at most this value."""
    ordered = sorted(values)
    return [(share, ordered[round(share * (len(ordered) - 1))]) for share in _SHARES]
