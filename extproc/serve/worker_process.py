"""A worker as its supervisor sees it: one serving process that is restarted when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import structlog
from prometheus_client import Counter

from extproc.serve.link import Beat, Link, ReadinessChanged, Reload, SnapshotTaken, TakeSnapshot
from extproc.serve.shared_metrics import FOLDER_VARIABLE, SharedMetrics
from extproc.telemetry.snapshot import Snapshot

_BACKOFF_SECONDS = (0.2, 10.0)
_STABLE_SECONDS = 30.0
"""A worker that ran this long is restarted with the shortest delay."""

_ANSWER_SECONDS = 2.0
"""How long the status page waits for a worker's answer."""

WRONG_SETTINGS = 2
"""The exit status for problems that a restart does not solve: wrong settings, or an address in use."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a worker shows that it does not hang: it answers a message, once per beat.

    Beats count, not time: while the whole machine is suspended, no worker is late.
    """

    beat_seconds: float = 1.0
    silent_beats: int = 5
    """beats without an answer after which a worker that serves is not ready"""
    last_beats: int = 60
    """beats without an answer after which it is killed, and so restarted"""
    start_beats: int = 180
    """beats after which a worker that has never answered is killed: a start may take long on a busy machine"""


class WorkerProcess:
    """One worker."""

    def __init__(
        self,
        number: int,
        config: Path | None,
        folder: str,
        metrics: SharedMetrics,
        stopping: asyncio.Event,
        pulse: Pulse = Pulse(),
    ) -> None:
        """Prepare worker `number`, with its metrics in `folder`. It is not restarted once `stopping` is set."""
        self.number = number
        self.status = 0
        self._pulse = pulse
        self._says_ready = False
        self._is_silent = False
        self._is_starting = True
        self._missed_beats = 0
        self._command = [sys.executable, "-m", "extproc", "serve", *(("--config", str(config)) if config else ())]
        self._folder = folder
        self._metrics = metrics
        self._stopping = stopping
        self._process: asyncio.subprocess.Process | None = None
        self._is_told_to_stop = False
        self._link: Link | None = None
        self._answer: asyncio.Future[Snapshot | None] | None = None

    @property
    def is_ready(self) -> bool:
        """Return whether the worker says that it is ready, and does not hang."""
        return self._says_ready and not self._is_silent

    async def keep(self, restarts: Counter) -> None:
        """Keep the worker running until it must stop or cannot be started; count its restarts."""
        loop = asyncio.get_running_loop()
        delay = _BACKOFF_SECONDS[0]
        is_first = True
        while True:
            began = loop.time()
            try:
                await self._run()
            except OSError as error:  # no resources for another process or socket
                _log.error("worker_not_started", worker=self.number, problem=error.strerror)
            if self._stopping.is_set():
                return
            if is_first and self.status == WRONG_SETTINGS:
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
        # The link comes first: once the process exists, nothing may prevent waiting for its end.
        ours, theirs = socket.socketpair()
        with theirs:
            self._link = link = await Link.over(ours)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(*self._command, "--worker", str(self.number)),
                    stdin=theirs.fileno(),
                    env={**os.environ, FOLDER_VARIABLE: self._folder},
                    process_group=0,  # a terminal's Ctrl-C must reach only the supervisor: two signals mean "at once"
                )
            except OSError:
                self._unlink(link)
                raise
        if self._is_told_to_stop:
            self.signal(signal.SIGTERM)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(link))
                await self._listen(link)
                watching.cancel()
        finally:
            self._unlink(link)
        self.status = await self._process.wait()
        self._metrics.process_ended(self._process.pid)

    async def _listen(self, link: Link) -> None:
        """Handle the worker's messages until it has ended."""
        while True:
            try:
                message = await link.receive()
            except EOFError:
                return
            if self._is_starting or isinstance(message, Beat):
                self._is_starting = False
                self._missed_beats = 0
            match message:
                case ReadinessChanged(is_ready):
                    self._says_ready = is_ready
                case SnapshotTaken(snapshot):
                    self._resolve(snapshot)
                case Beat():
                    if self._is_silent:
                        self._is_silent = False
                        _log.warning("worker_answers", worker=self.number)
                case TakeSnapshot() | Reload():
                    pass  # only a supervisor sends these
                case _:
                    assert_never(message)

    async def _watch(self, link: Link) -> None:
        """Send the worker one beat at a time, until cancelled. It answers while it is alive, once it serves."""
        pulse = self._pulse
        while True:
            await asyncio.sleep(pulse.beat_seconds)
            if self._missed_beats == 0:  # one beat at a time, so that the link never fills
                link.send(Beat())
            if self._missed_beats == pulse.silent_beats and not self._is_starting:
                self._is_silent = True
                _log.error("worker_silent", worker=self.number)
            if self._missed_beats == (pulse.start_beats if self._is_starting else pulse.last_beats):
                self.kill()
            self._missed_beats += 1

    def _unlink(self, link: Link) -> None:
        self._says_ready = self._is_silent = False
        self._is_starting = True
        self._missed_beats = 0
        self._link = None
        self._resolve(None)
        link.close()

    async def snapshot(self) -> Snapshot | None:
        """Return what the status page shows of the worker now, or None if it does not answer in time."""
        if self._link is None:
            return None
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._link.send(TakeSnapshot())
        try:
            return await asyncio.wait_for(asyncio.shield(self._answer), _ANSWER_SECONDS)
        except TimeoutError:
            return None

    def _resolve(self, snapshot: Snapshot | None) -> None:
        if self._answer is not None:
            self._answer.set_result(snapshot)
            self._answer = None

    def stop(self) -> None:
        """Make the worker drain. A worker that is still starting gets the signal after its start."""
        self._is_told_to_stop = True
        self.signal(signal.SIGTERM)

    def reload(self) -> None:
        """Make the worker reload its settings, at the latest once it serves. A signal would end a starting worker."""
        if self._link is not None:
            self._link.send(Reload())

    def kill(self) -> None:
        """Kill the process if it is running."""
        if self._process is not None and self._process.returncode is None:
            _log.error("worker_killed", worker=self.number, while_starting=self._is_starting)
            self._process.kill()

    def signal(self, number: int) -> None:
        """Send a signal to the process if it is running."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
