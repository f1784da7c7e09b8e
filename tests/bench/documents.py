"""The worst documents: their CPU, compared with `json.loads`, their memory, and how long they let others wait.

A document costs an exchange much more than its size if it has many small values. While one is read, other exchanges and
health checks are slower: Python runs one thread at a time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from tests.bench import growth, load, reading, rounds
from tests.bench.peer import HEAD_END
from tests.bench.plan import DocumentSize, Plan
from tests.bench.process import BenchError, forget_peak, peak_bytes, resident_bytes
from tests.bench.rig import Chain, Rig, running
from tests.bench.shapes import SHAPES, Carrier, Shape

_TIMES = 3
"""`json.loads` is timed so often, and the best time counts. The sidecar's CPU is measured once."""

_EXCHANGE_SECONDS = 120.0
_POLL_SECONDS = 0.005
_HEALTH: Final = b"GET /healthz HTTP/1.1\r\nhost: bench" + HEAD_END


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure by `plan.documents`; return the results of each shape, one for each size."""
    names = list(SHAPES)
    each = plan.documents.shapes_each
    found: dict[str, Any] = {}
    for first in range(0, len(names), each):
        found |= await _measured(names[first : first + each], plan.documents.sizes)
    return found


async def _measured(names: Sequence[str], sizes: Sequence[DocumentSize]) -> dict[str, Any]:
    """Measure some shapes with one sidecar."""
    found = {}
    async with running() as rig:
        chain = await rig.sidecar(form="firewall")  # only this form can redact
        await rounds.warm_up(chain)
        resting = sum(map(resident_bytes, chain.guards))
        for name in names:
            print(f"  {name}", file=sys.stderr)
            shape = SHAPES[name]
            texts = (shape.text(size.values, size.body_bytes) for size in sizes)
            found[name] = [await _point(rig, chain, text, shape, resting) for text in texts]
    return found


async def _point(rig: Rig, chain: Chain, text: str, shape: Shape, resting: int) -> dict[str, float]:
    loads_us = _loads_us(text)
    read = reading.measure(shape, text)
    if shape.carrier is Carrier.REQUEST:
        data = load.post(text.encode())
    else:
        await rig.give(text)
        data = load.request(replace(shape.script, chunks=int(shape.carrier is Carrier.EVENT), given=True))
    (pid,) = chain.guards
    forget_peak(pid)
    spent_us = await growth.cpu_us(chain, data, 1)
    peak = peak_bytes(pid)
    exchange_ms, health_ms = await _waits(chain, data)
    return {
        "size": len(text),
        "loads_us": loads_us,
        "read_us": read.read_us,
        "redact_us": read.redact_us,
        "cpu_us": spent_us,
        "peak_bytes": max(0, peak - resting),
        "others_ms": exchange_ms,
        "health_ms": health_ms,
    }


def _loads_us(text: str) -> float:
    """Return the CPU of `json.loads` in this process, without the garbage collector, as `timeit` measures."""
    best = float("inf")
    gc.disable()
    try:
        for _ in range(_TIMES):
            began = time.process_time_ns()
            json.loads(text)
            best = min(best, time.process_time_ns() - began)
    finally:
        gc.enable()
    return best / 1e3


async def _waits(chain: Chain, data: bytes) -> list[float]:
    """Return the longest small exchange and the longest health check during one exchange with `data`, in ms."""
    connections = await load.connect(chain.port, 2)
    document, exchange = connections
    ended = asyncio.Event()

    async def check_health() -> None:
        assert chain.admin is not None
        checks = await load.connect(chain.admin, 1)  # the admin port closes a connection after each answer
        try:
            await checks[0].exchange(_HEALTH, _EXCHANGE_SECONDS)
        finally:
            load.close(checks)

    async def perform() -> None:
        await exchange.exchange(load.request(), _EXCHANGE_SECONDS)

    try:
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(_longest(perform, 0, ended)),
                group.create_task(_longest(check_health, _POLL_SECONDS, ended)),
            ]
            await document.exchange(data, _EXCHANGE_SECONDS)
            ended.set()
    finally:
        load.close(connections)
    return [task.result() * 1e3 for task in others]


async def _longest(perform: Callable[[], Awaitable[None]], pause: float, ended: asyncio.Event) -> float:
    """Perform something with a pause between until `ended`; return the longest time, in seconds.

    The first that fails is the last: Envoy gives up an exchange for which the sidecar is too late.
    """
    longest = 0.0
    while True:
        began = time.perf_counter()
        has_failed = False
        try:
            await perform()
        except BenchError as error:
            has_failed = True
            print(f"  others failed: {error}", file=sys.stderr)
        longest = max(longest, time.perf_counter() - began)
        if has_failed or ended.is_set():
            return longest
        await asyncio.sleep(pause)
