"""The processes of the rig: starting them, measuring their use of CPU and memory, and ending them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from extproc.config.address import Address

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"

_START_SECONDS = 600.0  # under callgrind, on a busy machine, the sidecar needs some minutes
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_FOREIGN = ("EXTPROC_", "AIM_", "LITELLM_", "GRPC_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Prefixes of environment variables that would affect the measurement."""


Result = TypeVar("Result")


class BenchError(Exception):
    """The rig does not work as intended, so nothing can be measured."""


def reason(error: BaseException) -> str:
    """Return the reason why nothing was measured."""
    return reason(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error) or "out of time"


def until_told(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`, and stop everything on SIGTERM too, so that no process is left behind."""

    async def run() -> Result:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a stream needs several sockets in each process
    return asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Started:
    """A started process. It serves once `wait` has returned."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait(self, *addresses: Address, seconds: float = _START_SECONDS) -> None:
        """Wait until it listens on all `addresses`; raises BenchError if it ends, or after `seconds`."""
        deadline = time.monotonic() + seconds
        for address in addresses:
            while not _listens(address):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = self.log.read_text(errors="replace")[-4000:]
                    raise BenchError(f"{self.log.name} does not listen on {address}:\n{said}")
                time.sleep(_POLL_SECONDS)

    def children(self) -> list[int]:
        """Return the ids of its child processes."""
        return children(self.pid)


def loopback(port: int) -> Address:
    """Return the address of a port of the loopback."""
    return Address(host=LOOPBACK, port=port)


def _listens(address: Address) -> bool:
    with socket.socket(socket.AF_UNIX if address.path else socket.AF_INET) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address.path or (address.host, address.port)) == 0


@contextmanager
def started(log: Path, *command: str, environment: Mapping[str, str] | None = None) -> Iterator[Started]:
    """Run `command` until the block ends; its output goes to `log`."""
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**own, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Started(process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu(pids: Iterable[int]) -> dict[str, int]:
    """Return the CPU time of each thread of some processes, in nanoseconds."""
    spent: dict[str, int] = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # the process has just ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
                    spent[task.name] = int((task / "schedstat").read_text().split()[0])
    return spent


def cpu_between(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return the nanoseconds between two results of `cpu`. The time of threads that ended in between is lost."""
    return sum(spent - before.get(task, 0) for task, spent in after.items())


def machine_busy() -> tuple[float, float]:
    """Return the busy seconds and the total seconds of all CPUs of the machine."""
    user, nice, system, idle, iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    busy = user + nice + system + irq + softirq + steal
    ticks = os.sysconf("SC_CLK_TCK")
    return busy / ticks, (busy + idle + iowait) / ticks


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process (RSS), in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of a process, including those that have ended and were not reaped."""
    # Not the list of children that each thread has: a thread that ends leaves its children to another one.
    return [other for other in map(int, filter(str.isdecimal, os.listdir("/proc"))) if parent(other) == pid]


def parent(pid: int) -> int | None:
    """Return the id of the parent of a process; None if the process has ended or is not ours to see."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()  # the name in it is cut at any byte
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return int(stat.rpartition(b")")[2].split()[1])


def forget_peak(pid: int) -> None:
    """Reset the peak that `peak_bytes` returns."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """Return the peak of a process's resident memory since `forget_peak`, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
