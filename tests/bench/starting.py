"""The time from the start of the command to the first `/readyz` with status 200."""

from __future__ import annotations

import statistics
import time
from http.client import HTTPConnection
from typing import Any

from extproc.config.address import Address
from extproc.config.settings import Settings
from tests.bench.plan import Plan
from tests.bench.process import BenchError, loopback
from tests.bench.rig import NULL, SIDECAR, Rig, running
from tests.fakes.ports import free_port

_POLL_SECONDS = 0.01
_SECONDS = 60.0


async def measure(plan: Plan) -> dict[str, Any]:
    """Return the median of several starts of the sidecar, and of the null up to its first connection, in seconds."""
    found: dict[str, list[float]] = {NULL: [], SIDECAR: []}
    async with running() as rig:
        for number in range(plan.starts + 1):
            for name, start in ((NULL, _null), (SIDECAR, _sidecar)):
                seconds = start(rig)
                if number:  # the first start is slower, because files are not cached yet
                    found[name].append(seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def _null(rig: Rig) -> float:
    port = free_port()
    began = time.monotonic()
    with rig.reference(NULL, port) as process:
        process.wait(loopback(port))
        return time.monotonic() - began


def _sidecar(rig: Rig) -> float:
    listen, admin = loopback(free_port()), loopback(free_port())
    began = time.monotonic()
    with rig.serve(Settings(listen=listen, admin=admin), rig.aim) as process:
        while not _is_ready(admin):
            if process.process.poll() is not None or time.monotonic() - began > _SECONDS:
                raise BenchError(f"the sidecar is not ready after {time.monotonic() - began:.0f} s")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - began


def _is_ready(admin: Address) -> bool:
    connection = HTTPConnection(admin.host, admin.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
