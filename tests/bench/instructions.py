"""Instructions of an exchange and of a chunk, counted by valgrind's callgrind, which is more exact than time.

The count includes all threads of the process, but not the kernel. Two runs differ by a percent or two, because answers
may arrive in one wake-up or in two.

    make bench-instructions
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

if __name__ == "__main__":
    # When this file is run, Python searches its folder first. The modules' names are too common for that.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import rounds
from tests.bench.process import BenchError, reason, until_told
from tests.bench.rig import FLOOR, NULL, SIDECAR, Chain, running

_EXCHANGES, _AT_ONCE = 150, 4
_STREAMS, _SECONDS, _INTERVAL_SECONDS = 2, 10.0, 0.1
"""These are slower than in the bench, because under callgrind everything takes forty times as long."""


async def _count(name: str, measure: Callable[[Chain], Awaitable[object]]) -> int:
    """Return the instructions of one external processor while `measure` runs; raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        out = Path(folder) / "out"
        valgrind = ("valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}")
        async with running(*valgrind) as rig:
            chain = await rig.chain(name)
            for _ in range(2):
                await rounds.warm_up(chain)
            (pid,) = chain.guards
            await _control("--zero", pid)
            await measure(chain)
            await _control("--dump", pid)
            dumps = sorted(out.parent.glob("out.1-*"))
            lines = [line for dump in dumps for line in dump.read_text().splitlines()]
    counts = [int(line.split()[1]) for line in lines if line.startswith("summary:")]
    if not counts:
        raise BenchError("callgrind has counted nothing")
    return sum(counts)


async def _control(what: str, pid: int) -> None:
    await asyncio.to_thread(
        subprocess.run, ["callgrind_control", what, str(pid)], check=True, stdout=subprocess.DEVNULL
    )


async def _exchanges(chain: Chain) -> None:
    await rounds.buffered(chain, _AT_ONCE, _EXCHANGES)


async def _streams(chain: Chain) -> None:
    await rounds.streamed(chain, _STREAMS, _SECONDS)


async def _main() -> None:
    if shutil.which("callgrind_control") is None:
        raise BenchError("valgrind is needed, which has callgrind_control")
    rounds.INTERVAL_SECONDS = _INTERVAL_SECONDS
    chunks = _STREAMS * rounds.chunks_of(_SECONDS)
    print(f"{'instructions, thousand':24}{'exchange':>10}{'chunk':>10}")
    for name in (NULL, FLOOR, SIDECAR):
        exchange = await _count(name, _exchanges) / (_EXCHANGES + _AT_ONCE)
        chunk = await _count(name, _streams) / chunks
        print(f"{name:24}{exchange / 1e3:10,.0f}{chunk / 1e3:10,.0f}")


if __name__ == "__main__":
    try:
        until_told(_main())
    except (BenchError, subprocess.CalledProcessError) as error:
        sys.exit(reason(error))
