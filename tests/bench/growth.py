"""The growth of CPU and memory with the size of an exchange: chunks of a stream, bytes of texts, number of choices.

A line is fitted through all sizes, from the fixed cost of an exchange and the cost of each unit. The distance of the
worst point from the line shows whether anything grows faster than its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.bench import load, rounds
from tests.bench.plan import Plan
from tests.bench.process import BenchError, forget_peak, peak_bytes, resident_bytes
from tests.bench.rig import SIDECAR, Chain, running
from tests.bench.script import Script

BLOCK: Final = 10
INTERVAL_SECONDS: Final = 0.003
"""The time between two writes, each with a block of chunks. It does not depend on the length of the stream."""

CHOICE_CHUNKS: Final = 640
_EXCHANGE_SECONDS = 300.0
_WORD = "mesh and "


@dataclass(frozen=True, slots=True)
class _Series:
    """Sizes, the number of measurements of each, and the request for one size."""

    sizes: dict[int, int]
    request: Callable[[int], bytes]


def _series(plan: Plan) -> Iterator[tuple[str, _Series]]:
    growth = plan.growth
    yield "chunks of a stream", _Series(growth.chunks, _stream)
    yield (
        "bytes of a prompt",
        _Series(growth.body_bytes, lambda size: load.request(prompt=_WORD * (size // len(_WORD)))),
    )
    yield "bytes of an answer", _Series(growth.body_bytes, lambda size: load.request(Script(text_bytes=size)))
    yield "choices of an answer", _Series(growth.choices, lambda size: load.request(Script(choices=size)))
    yield "choices of a stream", _Series(growth.choices, lambda size: _stream(CHOICE_CHUNKS, size))


def _stream(chunks: int, choices: int = 1) -> bytes:
    return load.request(Script(chunks, INTERVAL_SECONDS, block=BLOCK, choices=choices))


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure each size of each series, smaller ones first, one exchange at a time. Each series has a new sidecar."""
    return {name: await _measured(series) for name, series in _series(plan)}


async def _measured(series: _Series) -> dict[str, Any]:
    async with running() as rig:
        chain = await rig.chain(SIDECAR)
        await rounds.warm_up(chain)
        (pid,) = chain.guards
        resting = resident_bytes(pid)
        points = []
        for size, count in sorted(series.sizes.items()):
            forget_peak(pid)
            spent_us = await cpu_us(chain, series.request(size), count)
            points.append({"size": size, "cpu_us": spent_us, "peak_bytes": max(0, peak_bytes(pid) - resting)})
    fixed, each, worst = line([(point["size"], point["cpu_us"]) for point in points])
    return {"points": points, "fixed_us": fixed, "each_us": each, "off_line": worst}


async def cpu_us(chain: Chain, data: bytes, count: int) -> float:
    """Return the CPU of the sidecar for one exchange, measured over `count`, one after the other.

    Raises BenchError if Aim was not asked.
    """
    (connection,) = await load.connect(chain.port, 1)
    asked = await chain.asked()
    try:
        spent = rounds.Spent(chain)
        for _ in range(count):
            await connection.exchange(data, _EXCHANGE_SECONDS)
        result = spent.round(count)
    finally:
        connection.close()
    if rounds.more(asked, await chain.asked(), "questions") < count:
        raise BenchError("Aim was not asked")
    assert result.guard_us is not None
    return result.guard_us


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the line a + b * x with the smallest relative error, and the relative error of the worst point."""
    weights = [(x, y, 1 / y**2) for x, y in points]
    s0, sx, sxx = (sum(weight * x**power for x, _, weight in weights) for power in range(3))
    sy, sxy = (sum(weight * y * x**power for x, y, weight in weights) for power in range(2))
    b = (s0 * sxy - sx * sy) / (s0 * sxx - sx**2)
    a = (sy - b * sx) / s0
    return a, b, max(abs((a + b * x) / y - 1) for x, y in points)
