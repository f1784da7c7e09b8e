"""Several serving processes under one that starts them, starts them again, passes signals on and speaks for them.

Each worker listens on an address of its own (port+i, or <socket>-i): Envoy keeps one connection per thread, so that
workers behind one shared port would be loaded unevenly. The admin port is the supervisor's: what it shows is the sum
over all workers (docs/adr/0007-one-admin-port-for-all-workers.md).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from extproc.admin.port import Admin
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.serve.link import RELOAD, SNAPSHOT, Link
from extproc.serve.reload import Reloader
from extproc.telemetry import otel
from extproc.telemetry.metrics import SHARED_VALUES
from extproc.telemetry.snapshot import Snapshot, total

_BACKOFF_SECONDS = (0.2, 10.0)
_STABLE_SECONDS = 30.0
"""A worker that lived so long starts again without delay."""

_KILL_SECONDS = 10.0
"""A worker that is still there so long after it should have drained is killed."""

_ANSWER_SECONDS = 2.0
"""How long a worker may take to say what the status page shows of it."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - what is made there is private

_WRONG_SETTINGS = 2
"""The exit status that starting again would not change: wrong settings, or an address in use."""

_log = structlog.get_logger()


class _Worker:
    """One process, which is started again when it ends."""

    def __init__(self, number: int, config: Path | None, folder: str, stopping: asyncio.Event) -> None:
        self.number = number
        self.is_ready = False
        self.status = 0
        self._command = [sys.executable, "-m", "extproc", "serve", *(("--config", str(config)) if config else ())]
        self._folder = folder
        self._stopping = stopping
        self._process: asyncio.subprocess.Process | None = None
        self._is_told_to_stop = False
        self._link: Link | None = None
        self._asked: asyncio.Future[Snapshot | None] | None = None

    async def keep(self, restarts: Counter) -> None:
        """Keep it running until it is to stop, or cannot be started."""
        loop = asyncio.get_running_loop()
        delay = _BACKOFF_SECONDS[0]
        is_first = True
        while True:
            began = loop.time()
            try:
                await self._run()
            except OSError as error:  # no room for one more process, or socket
                _log.error("worker_not_started", worker=self.number, problem=error.strerror)
            if self._stopping.is_set():
                return
            if is_first and self.status == _WRONG_SETTINGS:
                self._stopping.set()
                return
            is_first = False
            _log.error("worker_ended", worker=self.number, status=self.status)
            if loop.time() - began > _STABLE_SECONDS:
                delay = _BACKOFF_SECONDS[0]
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                pass
            else:
                return
            delay = min(2 * delay, _BACKOFF_SECONDS[1])
            restarts.inc()

    async def _run(self) -> None:
        """Run the process once, to its end."""
        # The link comes first: once there is a process, nothing may keep us from awaiting its end.
        ours, theirs = socket.socketpair()
        with theirs:
            self._link = link = await Link.over(ours)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(*self._command, "--worker", str(self.number)),
                    stdin=theirs.fileno(),
                    env={**os.environ, SHARED_VALUES: self._folder},
                    process_group=0,  # a terminal's Ctrl-C is for the supervisor: two signals would mean at once
                )
            except OSError:
                self._unlink(link)
                raise
        if self._is_told_to_stop:
            self.signal(signal.SIGTERM)
        try:
            while True:
                message = await link.receive()
                if isinstance(message, Snapshot):
                    self._answered(message)
                else:
                    self.is_ready = bool(message)
        except EOFError:
            pass
        finally:
            self._unlink(link)
        self.status = await self._process.wait()
        mark_process_dead(self.number, self._folder)  # type: ignore[no-untyped-call]

    def _unlink(self, link: Link) -> None:
        self.is_ready = False
        self._link = None
        self._answered(None)
        link.close()

    async def snapshot(self) -> Snapshot | None:
        """Return what the status page shows of it now, None where it does not answer."""
        if self._link is None:
            return None
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._link.send(SNAPSHOT)
        try:
            return await asyncio.wait_for(asyncio.shield(self._asked), _ANSWER_SECONDS)
        except TimeoutError:
            return None

    def _answered(self, snapshot: Snapshot | None) -> None:
        if self._asked is not None:
            self._asked.set_result(snapshot)
            self._asked = None

    def stop(self) -> None:
        """Have it drain, once."""
        self._is_told_to_stop = True
        self.signal(signal.SIGTERM)

    def reload(self) -> None:
        """Have it read the settings again; one that still starts, which a signal would end, does it then."""
        if self._link is not None:
            self._link.send(RELOAD)

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class _SharedValues(MultiProcessCollector):
    """What the workers have counted; a file that one has only just made is empty, which the library does not expect."""

    def collect(self) -> Iterable[Metric]:
        files = [entry.path for entry in os.scandir(self._path) if entry.name.endswith(".db") and _size(entry.path)]
        return self.merge(files)  # type: ignore[no-untyped-call, no-any-return]


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except FileNotFoundError:  # of a worker that has just ended
        return 0


class Supervisor:
    """What the admin port tells of all workers together."""

    def __init__(self, settings: Settings, config: Path | None, folder: str) -> None:
        """Prepare as many workers as `settings` name; they share their metrics' values in `folder`."""
        self.settings = settings
        self.registry = CollectorRegistry()
        _SharedValues(self.registry, folder)  # type: ignore[no-untyped-call]
        self._config = config
        self._stopping = asyncio.Event()
        self._restarts = Counter(
            "extproc_worker_restarts", "Workers that ended and were started again", registry=self.registry
        )
        self._workers = [_Worker(number, config, folder, self._stopping) for number in range(settings.workers)]

    @property
    def is_ready(self) -> bool:
        """Tell whether every worker is ready: each has an address of its own, which callers are sent to."""
        return not self._stopping.is_set() and all(worker.is_ready for worker in self._workers)

    async def snapshot(self) -> Snapshot:
        """Return what the status page shows now: the sum over the workers that answer."""
        answers = await asyncio.gather(*(worker.snapshot() for worker in self._workers))
        return total([answer for answer in answers if answer is not None], len(self._workers), at=time.time())

    async def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT; return the exit status: 2 if one could not be started."""
        loop = asyncio.get_running_loop()
        reloader = Reloader(self._config, self._reload)

        def on_stop() -> None:
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
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
                self._signal(signal.SIGKILL)
        return max(worker.status == _WRONG_SETTINGS for worker in self._workers) * _WRONG_SETTINGS

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)

    def _reload(self) -> None:
        # The workers, who read the same file, say what is wrong with it.
        with suppress(SettingsError):
            self.settings = load(self._config, serving=True)


async def supervise(settings: Settings, config: Path | None) -> int:
    """Run workers and the admin port until SIGTERM or SIGINT; return the exit status.

    Raises SettingsError when the admin port cannot be opened.
    """
    # In memory where that can be had: the values are mapped, and a slow disk would hold up whoever counts.
    where = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="extproc-", dir=where, ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as stack:
            supervisor = Supervisor(settings, config, folder)
            await stack.enter_async_context(otel.metrics(supervisor.registry))
            if settings.admin is not None:
                await stack.enter_async_context(Admin(supervisor).listening(settings.admin))
            return await supervisor.run()
