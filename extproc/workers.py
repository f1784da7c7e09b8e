"""Several serving processes under one that starts them, starts them again and passes signals on.

Each worker listens on an address of its own (port+i, or <socket>-i): Envoy keeps one connection per thread, so that
workers behind one shared port would be loaded unevenly.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import structlog

_BACKOFF_SECONDS = (0.2, 10.0)
_STABLE_SECONDS = 30.0
"""A worker that lived so long starts again without delay."""

_POLL_SECONDS = 0.1

_log = structlog.get_logger()


class _Worker:
    """One process, and when it may be started again."""

    def __init__(self, number: int, command: list[str]) -> None:
        self._command = [*command, "--worker", str(number)]
        self.number = number
        self.delay = _BACKOFF_SECONDS[0]
        self.start_at: float | None = None
        self.is_first = True
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.started = time.monotonic()
        self.start_at = None
        return subprocess.Popen(self._command)  # noqa: S603 - our own command line

    def tend(self) -> None:
        """Start the process again if it has ended, sooner or later."""
        now = time.monotonic()
        if self.process.poll() is None:
            return
        if self.start_at is None:
            if now - self.started > _STABLE_SECONDS:
                self.delay = _BACKOFF_SECONDS[0]
            self.start_at = now + self.delay
            self.delay = min(2 * self.delay, _BACKOFF_SECONDS[1])
            _log.error("worker_ended", worker=self.number, status=self.process.returncode)
        elif now >= self.start_at:
            self.is_first = False
            self.process = self._start()


def supervise(count: int, config: Path | None, drain_seconds: float) -> int:
    """Run `count` workers until SIGTERM or SIGINT; return the exit status: 2 if none could be started."""
    command = [sys.executable, "-m", "extproc", "serve", *(("--config", str(config)) if config else ())]
    signals: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)

    def on_hangup(number: int, _: FrameType | None) -> None:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    workers: list[_Worker] = []
    signal.signal(signal.SIGHUP, on_hangup)
    workers += [_Worker(number, command) for number in range(count)]
    while not signals:
        time.sleep(_POLL_SECONDS)
        if any(worker.is_first and worker.process.poll() == 2 for worker in workers):
            signals.append(signal.SIGTERM)  # wrong settings, or an address in use: starting again would not help
            break
        for worker in workers:
            worker.tend()
    passed = 0
    deadline = time.monotonic() + drain_seconds + 10
    while any(worker.process.poll() is None for worker in workers):
        if passed < len(signals):
            passed = len(signals)
            for worker in workers:
                if worker.process.poll() is None:
                    os.kill(worker.process.pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            for worker in workers:
                worker.process.kill()
        time.sleep(_POLL_SECONDS)
    return max(worker.process.returncode == 2 for worker in workers) * 2
