"""The supervisor of several serving processes: it starts and restarts them, forwards signals, and reports for all.

Each worker listens on its own address (port+i, or <socket>-i). Envoy keeps one connection per thread, so workers behind
one shared port would be loaded unevenly. The supervisor has the only admin port, which shows the sum over all workers
(docs/adr/0007-one-admin-port-for-all-workers.md).
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from prometheus_client import Counter

from extproc.admin.app import admin_app
from extproc.admin.port import listening
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.serve.accepted import Accepted
from extproc.serve.open_files import raise_limit
from extproc.serve.reload import Reloader
from extproc.serve.shared_metrics import SharedMetrics
from extproc.serve.worker_process import WRONG_SETTINGS, WorkerProcess
from extproc.telemetry import otel
from extproc.telemetry.registry import make_registry
from extproc.telemetry.snapshot import Snapshot, total

_KILL_SECONDS = 8.0
"""A worker is killed if it has not ended this long after the end of its drain, or after a second signal. Kubernetes
kills the whole pod later: the grace that our manifests give it is 10 s longer than the drain."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the folder created there is private


class Supervisor:
    """Runs all workers and reports for them."""

    def __init__(self, config: Path | None, folder: str) -> None:
        """Prepare the workers that the settings ask for, which share `folder`. Raises SettingsError."""
        self._accepted = Accepted(Path(folder), config)
        self.settings = settings = self._accepted.accept()
        self.registry = make_registry()
        metrics = SharedMetrics(folder)
        self.registry.register(metrics)
        self._config = config
        self._stopping = asyncio.Event()
        self._restarts = Counter(
            "extproc_worker_restarts", "Workers that ended and were started again", registry=self.registry
        )
        self._workers = [
            WorkerProcess(number, config, folder, metrics, self._stopping) for number in range(settings.workers)
        ]

    @property
    def is_ready(self) -> bool:
        """Return whether every worker is ready. Each has its own address, which receives traffic."""
        return not self._stopping.is_set() and all(worker.is_ready for worker in self._workers)

    async def snapshot(self) -> Snapshot:
        """Return what the status page shows now: the sum over the workers that answer in time."""
        answers = await asyncio.gather(*(worker.snapshot() for worker in self._workers))
        return total([answer for answer in answers if answer is not None], len(self._workers), at=time.time())

    async def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT; return the exit status, which is 2 if one could not be started."""
        loop = asyncio.get_running_loop()
        reloader = Reloader(self._config, self._read)
        is_hurrying = False

        def on_stop() -> None:
            nonlocal is_hurrying
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
                if not is_hurrying:
                    loop.call_later(_KILL_SECONDS, self._kill)
                is_hurrying = True
            self._stopping.set()

        def on_hangup() -> None:
            reloader.ask()
            for worker in self._workers:
                worker.reload()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_stop)
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(reloader.run())
            keeping = [group.create_task(worker.keep(self._restarts)) for worker in self._workers]
            await self._stopping.wait()
            watching.cancel()
            for worker in self._workers:
                worker.stop()
            _, late = await asyncio.wait(keeping, timeout=self.settings.drain_seconds + _KILL_SECONDS)
            if late:
                self._kill()
        return max(worker.status == WRONG_SETTINGS for worker in self._workers) * WRONG_SETTINGS

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)

    def _read(self) -> Callable[[], None]:
        """Read the settings again; return what puts them in force."""
        try:
            settings = self._accepted.accept()
        except SettingsError:
            return lambda: None  # the workers read the same file and log its problems
        return lambda: self._use(settings)

    def _use(self, settings: Settings) -> None:
        self.settings = settings


async def supervise(config: Path | None) -> int:
    """Run workers and the admin port until SIGTERM or SIGINT; return the exit status.

    Raises SettingsError when the settings are wrong, or the admin port cannot be opened.
    """
    # In memory if possible: the values are in mapped files, and a slow disk would delay every count.
    where = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="extproc-", dir=where, ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as stack:
            supervisor = Supervisor(config, folder)
            settings = supervisor.settings
            raise_limit()
            await stack.enter_async_context(otel.metrics(supervisor.registry))
            if settings.admin is not None:
                await stack.enter_async_context(listening(admin_app(supervisor), settings.admin))
            return await supervisor.run()
