"""Instructions of an exchange and of a chunk, counted by valgrind's callgrind, which is steadier than time.

The count includes all threads of the process, but not the kernel. Runs differ by up to three percent, because answers
may arrive in one wake-up or in two. The counts depend on the build of Python, but hardly on which variants of its
functions the C library takes for the CPU.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench import rounds
from tests.bench.plan import Instructions, Plan
from tests.bench.process import BenchError
from tests.bench.rig import FLOOR, NULL, SIDECAR, running

EXCHANGE, CHUNK = "exchange", "chunk"
_CONTROL: Final = "callgrind_control"
_AT_ONCE = 4

Counts = dict[str, dict[str, float]]
"""Instructions by chain, of an exchange and of a chunk."""


def is_possible() -> bool:
    """Return whether valgrind is installed."""
    return shutil.which("valgrind") is not None and shutil.which(_CONTROL) is not None


async def measure(plan: Plan) -> Counts:
    """Count the null, the floor and the sidecar; raises BenchError without valgrind."""
    return await count(plan.instructions, (NULL, FLOOR, SIDECAR))


async def count(plan: Instructions, names: Sequence[str]) -> Counts:
    """Count these chains, each in a process of its own."""
    if not is_possible():
        raise BenchError(f"valgrind is needed, which has {_CONTROL}")
    found = {}
    for name in names:
        print(f"  {name}", file=sys.stderr)
        found[name] = await _counted(plan, name)
    return found


async def _counted(plan: Instructions, name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        out = Path(folder) / "out"
        valgrind = ("valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}")
        async with running(*valgrind) as rig:
            chain = await rig.chain(name)
            (pid,) = chain.guards
            for _ in range(2):
                await rounds.warm_up(chain)
            await _control("--zero", pid)
            await rounds.buffered(chain, _AT_ONCE, plan.exchanges)
            await _control("--dump", pid)
            await rounds.streamed(chain, plan.streams, plan.stream_seconds, plan.interval)
            await _control("--dump", pid)
        chunks = plan.streams * rounds.chunks_of(plan.stream_seconds, plan.interval)
        return {
            EXCHANGE: total(out.parent, 1) / (plan.exchanges + _AT_ONCE),  # the first ones warm up the connections
            CHUNK: total(out.parent, 2) / chunks,
        }


def total(folder: Path, number: int) -> int:
    """Return the instructions of all threads in callgrind's dump `number`; raises BenchError if there are none."""
    counts = [
        int(line.split()[1])
        for dump in folder.glob(f"out.{number}-*")
        for line in dump.read_text().splitlines()
        if line.startswith("summary:")
    ]
    if not sum(counts):
        raise BenchError("callgrind has counted nothing")
    return sum(counts)


async def _control(what: str, pid: int) -> None:
    command = [_CONTROL, what, str(pid)]
    try:
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(command)} failed: {error.stderr}") from error
