"""The measurements. Each is a short round of one chain, repeated and interleaved because a machine's speed varies."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.bench import load
from tests.bench.aim import WITHHELD
from tests.bench.process import BenchError, cpu, cpu_between, resident_bytes
from tests.bench.rig import Chain
from tests.bench.script import Script

INTERVAL_SECONDS: Final = 0.02
"""The interval of 50 chunks per second."""

_SETTLE_SECONDS = 0.3
_HELD_CHUNKS = 10
_HELD_SECONDS = 100
_GONE_SECONDS = 20.0


@dataclass(slots=True)
class Round:
    """The results of one round of one chain: CPU in microseconds per exchange or chunk, and latencies in milliseconds.

    The CPU of a part that the chain does not have is None; `around_us` is that of the client and the stand-ins;
    `seconds` is the duration of the round.
    """

    guard_us: float | None
    envoy_us: float | None
    around_us: float
    seconds: float
    latencies: dict[str, dict[str, float]] = field(default_factory=dict)


async def warm_up(chain: Chain) -> None:
    """Let a chain do everything that it does only once."""
    connections = await load.connect(chain.port, 4)
    await load.buffered(connections, 40)
    await asyncio.gather(*(each.exchange(load.request(Script(5, 0.01))) for each in connections))
    load.close(connections)


async def buffered(chain: Chain, at_once: int, count: int, per_second: float | None = None) -> Round:
    """Perform `count` exchanges on `at_once` connections; raises BenchError unless Aim got two calls for each.

    A connection begins its next exchange when the last one has ended; with `per_second`, not before its turn at this
    rate.
    """
    connections = await load.connect(chain.port, at_once)
    try:
        await load.buffered(connections, at_once)
        asked = await chain.asked()
        spent = Spent(chain)
        timings = await load.buffered(connections, count, per_second)
        result = spent.round(count)
        questions = more(asked, await chain.asked(), "questions")
    finally:
        load.close(connections)
    if questions != (0 if chain.aim is None else 2 * count):
        raise BenchError(f"{chain.name}: {questions} calls for {count} exchanges")
    result.latencies = {
        "first_byte_ms": quantiles([timing.first_byte * 1e3 for timing in timings]),
        "total_ms": quantiles([timing.total * 1e3 for timing in timings]),
    }
    return result


async def streamed(chain: Chain, streams: int, seconds: float, interval: float = INTERVAL_SECONDS) -> Round:
    """Hold paced streams and measure `seconds` in their middle; raises BenchError unless Aim got each chunk."""
    chunks = chunks_of(seconds, interval)
    data = load.request(Script(chunks, interval))
    connections = await load.connect(chain.port, streams)
    asked = await chain.asked()
    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(connection.exchange(data))
                # The streams begin one after the other, not all in the same millisecond.
                await asyncio.sleep(interval / streams)
            await asyncio.sleep(_SETTLE_SECONDS)
            spent = Spent(chain)
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
        seen = more(asked, await chain.asked(), "chunks")
    finally:
        load.close(connections)
    if whole != chunks * streams or (chain.aim is not None and seen < whole):
        raise BenchError(f"{chain.name}: {whole} of {chunks * streams} chunks came, and Aim saw {seen}")
    result.latencies = {"delay_ms": quantiles(delays)}
    return result


async def flooded(chain: Chain, streams: int, chunks: int) -> float:
    """Hold streams whose chunks the model sends without a pause; return how many chunks a second come."""
    data = load.request(Script(chunks))
    connections = await load.connect(chain.port, streams)
    began = time.monotonic()
    try:
        await asyncio.gather(*(connection.exchange(data) for connection in connections))
        seconds = time.monotonic() - began
        whole = sum(len(connection.arrivals.at) for connection in connections)
    finally:
        load.close(connections)
    if whole != chunks * streams:
        raise BenchError(f"{chain.name}: {whole} of {chunks * streams} chunks came")
    return whole / seconds


def chunks_of(seconds: float, interval: float) -> int:
    """Return the number of chunks of a stream that is measured for `seconds`."""
    return round((seconds + 3 * _SETTLE_SECONDS) / interval)


async def held(chain: Chain, streams: int) -> float:
    """Hold streams whose text Aim does not answer; return the processor's additional memory for each, in KiB.

    Raises BenchError if Aim did not get the text, or if a session outlives its client.
    """
    data = load.request(Script(_HELD_CHUNKS, INTERVAL_SECONDS, linger=_HELD_SECONDS, word=WITHHELD))
    before = await chain.asked()
    (pid,) = chain.guards
    resting = resident_bytes(pid)
    connections = await load.connect(chain.port, streams)
    try:
        for connection in connections:
            connection.begin(data)
            await asyncio.sleep(INTERVAL_SECONDS / 4)
        await asyncio.sleep(_HELD_CHUNKS * INTERVAL_SECONDS + 4 * _SETTLE_SECONDS)
        growth = resident_bytes(pid) - resting
        withheld = more(before, await chain.asked(), "withheld")
    finally:
        load.close(connections)
    if chain.aim is not None and withheld < streams:
        raise BenchError(f"{chain.name}: Aim withholds {withheld} chunks of {streams} streams")
    await _sessions_gone(chain)
    return growth / streams / 1024


async def _sessions_gone(chain: Chain) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while left := (await chain.asked()).get("open_sessions"):
        if time.monotonic() > deadline:
            raise BenchError(f"{chain.name}: {left} sessions outlive their clients")
        await asyncio.sleep(_SETTLE_SECONDS)


def more(before: dict[str, int], after: dict[str, int], counter: str) -> int:
    """Return the increase of one of Aim's counters; 0 for a chain without Aim."""
    return after.get(counter, 0) - before.get(counter, 0)


class Spent:
    """The CPU of a chain's guards, of its Envoy and of what is around them, and the time, since it was created."""

    def __init__(self, chain: Chain) -> None:
        """Begin to measure `chain`."""
        self._pids = (chain.guards, (chain.envoy.pid,) if chain.envoy else (), chain.around)
        self._before = [cpu(pids) for pids in self._pids]
        self._began = time.monotonic()

    def round(self, count: int) -> Round:
        """Return the costs for each of `count` units."""
        seconds = time.monotonic() - self._began
        guard_us, envoy_us, around_us = (
            cpu_between(before, cpu(pids)) / max(count, 1) / 1e3 if pids else None
            for pids, before in zip(self._pids, self._before, strict=True)
        )
        assert around_us is not None
        return Round(guard_us, envoy_us, around_us, seconds)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    if not values:
        raise BenchError("nothing came")
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}
