"""One process of a soak's chain, which can be killed and restarted on the same ports."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from extproc.serve.shared_metrics import FOLDER_VARIABLE
from tests.bench.process import BenchError, Started, loopback, resident_bytes, started

_ORPHAN_SECONDS = 20.0
"""How long workers may outlive their supervisor."""

_WORKER_SECONDS = 20.0
"""How long a supervisor may have no worker."""

_POLL_SECONDS = 0.02


class Part:
    """One process of the chain."""

    def __init__(self, name: str, folder: Path, arguments: list[str], *ports: int) -> None:
        """Prepare `python -m ARGUMENTS`, which listens on `ports`, without starting it."""
        self.name = name
        self.port, *_ = self._ports = ports
        self._folder = folder
        self._arguments = arguments
        self._starts = 0
        self._running = ExitStack()
        self._process: Started | None = None

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens; raises BenchError."""
        self._starts += 1
        log = self._log(self._starts)
        self._process = self._running.enter_context(started(log, sys.executable, "-m", *self._arguments))
        self.wait()

    def wait(self) -> None:
        """Wait until it listens on all of its ports; raises BenchError."""
        assert self._process is not None
        self._process.wait(*map(loopback, self._ports))

    @property
    def children(self) -> list[int]:
        """The process ids of its workers."""
        assert self._process is not None
        return self._process.children()

    def kill(self) -> None:
        """Kill it, as in a crash. Its workers must end by themselves; raises BenchError if one does not."""
        workers = self.children
        shared = {folder for worker in workers if (folder := _shared_folder(worker))}
        os.kill(self.pid, signal.SIGKILL)
        self.stop()
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while any(map(_is_alive, workers)):
            if time.monotonic() > deadline:
                raise BenchError(f"workers of the {self.name} outlived it")
            time.sleep(_POLL_SECONDS)
        for folder in shared:
            shutil.rmtree(folder, ignore_errors=True)  # only the supervisor would have removed it

    def kill_worker(self) -> None:
        """Kill one of its workers. It starts another one. Raises BenchError if there is none."""
        deadline = time.monotonic() + _WORKER_SECONDS
        while time.monotonic() < deadline:
            with suppress(IndexError, ProcessLookupError):  # a worker has just ended by itself
                os.kill(random.choice(self.children), signal.SIGKILL)
                return
            time.sleep(_POLL_SECONDS)
        raise BenchError(f"the {self.name} has no workers")

    def stop(self) -> None:
        """Stop it regularly if it runs."""
        self._process = None
        self._running.close()

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def logs(self) -> Iterator[str]:
        """Yield all lines that it has logged, including those before a restart."""
        for start in range(1, self._starts + 1):
            yield from _lines(self._log(start))

    def last_log(self) -> list[str]:
        """Return the lines that it has logged since its last start."""
        return _lines(self._log(self._starts))

    def _log(self, start: int) -> Path:
        return self._folder / f"{self.name}.{start}.log"


def _lines(log: Path) -> list[str]:
    """Return the lines of a log, without one that is still being written."""
    return log.read_text(errors="replace").rpartition("\n")[0].splitlines()


def _shared_folder(pid: int) -> str:
    """Return the folder in which a worker keeps its metrics; "" for a process that is no worker or has ended."""
    name = f"{FOLDER_VARIABLE}="
    try:
        variables = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((each.removeprefix(name) for each in variables if each.startswith(name)), "")


def _is_alive(pid: int) -> bool:
    """Return whether a process runs. One that has ended has no memory."""
    try:
        return resident_bytes(pid) > 0
    except (FileNotFoundError, ProcessLookupError):
        return False
