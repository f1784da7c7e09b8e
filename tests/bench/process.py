"""A process of the rig: started, asked what it used, ended."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_PORTS = (12_000, 32_000)
_FOREIGN = ("EXTPROC_", "AIM_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Beginnings of variables that would change what is measured."""


class BenchError(Exception):
    """The rig does not work, or not as it is meant to: there is nothing to measure."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody uses now.

    They lie below those that systems give to whoever asks for any port, so that nobody gets them in the meantime.
    """
    free: list[int] = []
    for port in random.sample(range(*_PORTS), len(range(*_PORTS))):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            free.append(port)
        if len(free) == count:
            break
    return free


@dataclass(frozen=True, slots=True)
class Python:
    """A process that was started; it serves once `wait` has returned."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait(self) -> None:
        """Wait until it listens; raises BenchError where it ends or does not listen within 30 s."""
        deadline = time.monotonic() + _START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((LOOPBACK, self.port)) == 0:
                    return
            time.sleep(_POLL_SECONDS)
        raise BenchError(f"not listening on port {self.port}:\n{self.log.read_text(errors='replace')[-4000:]}")


@contextmanager
def python(log: Path, *arguments: str, port: int, environment: Mapping[str, str] | None = None) -> Iterator[Python]:
    """Run `python -m ARGUMENTS`, which listens on `port`, until the block ends; what it says goes to `log`."""
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**own, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Python(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu(pid: int) -> dict[str, int]:
    """Return the nanoseconds that each thread of a process has been on a CPU."""
    spent: dict[str, int] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            spent[task.name] = int((task / "schedstat").read_text().split()[0])
    return spent


def cpu_between(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return the nanoseconds between two of `cpu`; what threads spent that have ended since is lost."""
    return sum(spent - before.get(task, 0) for task, spent in after.items())


def resident_bytes(pid: int) -> int:
    """Return how much of a process is in memory (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
