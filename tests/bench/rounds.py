"""The measurements, each a short round of one chain: repeated and interleaved, because a machine's mood changes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench import load
from tests.bench.aim import WITHHELD
from tests.bench.process import BenchError, cpu, cpu_between, resident_bytes
from tests.bench.rig import Chain, Rig

INTERVAL_SECONDS = 0.02
"""50 chunks of a stream in a second."""

_SETTLE_SECONDS = 0.3
_HELD_CHUNKS = 10
_HELD_SECONDS = 100
_GONE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: `exchanges` in a round, by how many are under way at once."""

    rounds: int
    exchanges: dict[int, int]
    streams: int
    stream_seconds: float
    held_streams: int
    seconds: int
    """When to give up, whatever is missing."""


@dataclass(slots=True)
class Round:
    """What one round of one chain found: CPU in microseconds for each exchange or chunk, latencies in milliseconds."""

    processor_us: float | None
    envoy_us: float
    latencies: dict[str, dict[str, float]] = field(default_factory=dict)


async def warm_up(chain: Chain) -> None:
    """Have everything that happens once happen."""
    connections = await load.connect(chain.port, 4)
    await load.buffered(connections, 40)
    await asyncio.gather(*(each.exchange(load.request(script="5 0.01 0")) for each in connections))
    _close(connections)


async def buffered(rig: Rig, chain: Chain, at_once: int, count: int) -> Round:
    """Make `count` exchanges, `at_once` at a time; raises BenchError where Aim was not asked twice for each."""
    connections = await load.connect(chain.port, at_once)
    try:
        await load.buffered(connections, at_once)
        asked = await rig.asked()
        spent = _Spent(chain)
        timings = await load.buffered(connections, count)
        result = spent.round(count)
        questions = (await rig.asked())["questions"] - asked["questions"]
    finally:
        _close(connections)
    if questions != (2 * count if chain.asks else 0):
        raise BenchError(f"{chain.name}: {questions} questions for {count} exchanges")
    result.latencies = {
        "first_byte_ms": quantiles([timing.first_byte * 1e3 for timing in timings]),
        "total_ms": quantiles([timing.total * 1e3 for timing in timings]),
    }
    return result


async def streamed(rig: Rig, chain: Chain, streams: int, seconds: float) -> Round:
    """Hold paced streams and look at `seconds` in their midst; raises BenchError where Aim did not see each chunk."""
    chunks = round((seconds + 3 * _SETTLE_SECONDS) / INTERVAL_SECONDS)
    data = load.request(script=f"{chunks} {INTERVAL_SECONDS} 0")
    connections = await load.connect(chain.port, streams)
    asked = await rig.asked()
    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(connection.exchange(data))
                # One after the other, not all in the same millisecond.
                await asyncio.sleep(INTERVAL_SECONDS / streams)
            await asyncio.sleep(_SETTLE_SECONDS)
            spent = _Spent(chain)
            began = time.monotonic_ns()
            await asyncio.sleep(seconds)
            ended = time.monotonic_ns()
            delays = [
                delay / 1e6
                for connection in connections
                for at, delay in zip(connection.arrivals.at, connection.arrivals.delays, strict=True)
                if began <= at < ended
            ]
            result = spent.round(len(delays))
        whole = sum(len(connection.arrivals.at) for connection in connections)
        seen = (await rig.asked())["chunks"] - asked["chunks"]
    finally:
        _close(connections)
    if whole != chunks * streams or (chain.asks and seen < whole):
        raise BenchError(f"{chain.name}: {whole} of {chunks * streams} chunks came, and Aim saw {seen}")
    result.latencies = {"delay_ms": quantiles(delays)}
    return result


async def held(rig: Rig, chain: Chain, pid: int, streams: int) -> float:
    """Hold streams whose text Aim withholds; return what each adds to the processor's memory, in KiB.

    Raises BenchError where Aim did not get the text, or keeps a session of a client that has left.
    """
    data = load.request(script=f"{_HELD_CHUNKS} {INTERVAL_SECONDS} {_HELD_SECONDS} {WITHHELD}")
    before = await rig.asked()
    resting = resident_bytes(pid)
    connections = await load.connect(chain.port, streams)
    try:
        for connection in connections:
            connection.begin(data)
            await asyncio.sleep(INTERVAL_SECONDS / 4)
        await asyncio.sleep(_HELD_CHUNKS * INTERVAL_SECONDS + 4 * _SETTLE_SECONDS)
        growth = resident_bytes(pid) - resting
        withheld = (await rig.asked())["withheld"] - before["withheld"]
    finally:
        _close(connections)
    if chain.asks and withheld < streams:
        raise BenchError(f"{chain.name}: Aim withholds {withheld} chunks of {streams} streams")
    await _sessions_gone(rig, chain)
    return growth / streams / 1024


async def _sessions_gone(rig: Rig, chain: Chain) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while left := (await rig.asked())["open_sessions"]:
        if time.monotonic() > deadline:
            raise BenchError(f"{chain.name}: {left} sessions outlive their clients")
        await asyncio.sleep(_SETTLE_SECONDS)


class _Spent:
    """CPU spent since it was made, by the processor and by Envoy."""

    def __init__(self, chain: Chain) -> None:
        self._pids = (chain.processor, chain.envoy)
        self._before = [cpu(pid) if pid is not None else None for pid in self._pids]

    def round(self, count: int) -> Round:
        """Return it for each of `count` units."""
        processor, envoy = (
            cpu_between(before, cpu(pid)) / max(count, 1) / 1e3 if pid is not None and before is not None else None
            for pid, before in zip(self._pids, self._before, strict=True)
        )
        return Round(processor, envoy or 0.0)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    if not values:
        raise BenchError("nothing came")
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def _close(connections: Sequence[load.Connection]) -> None:
    for connection in connections:
        connection.close()
