"""Reloads of the settings while the process serves. Each exchange keeps the settings that it began with.

A thread looks at the file and reads it, because a mount that hangs must not stop the traffic: until the file can be
read, the old settings stay in force. The thread reads the file only once that has stopped changing: a file that is
rewritten in place may be seen half written, and half of it may be valid. An invalid file is refused and its problems
are logged; the old settings stay in force then, too. Changes of the addresses, the number of workers or the limits that
gRPC enforces need a restart, which is logged as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

from extproc.config.load import config_path
from extproc.telemetry.logs import log_internal_error

_POLL_SECONDS = 1.0

_SETTLE_SECONDS = 0.5
"""The file is read once it has not changed for so long."""

_MOST_PAUSES = 20
"""A file that never stops changing is read all the same, after so many pauses."""

_HANG_SECONDS = 5.0
"""A thread that looks or reads for longer hangs."""

_FIRST_SECONDS = 1.0
"""How long to wait for the first look at the file. Without it, a change soon after the start could be missed."""

_T = TypeVar("_T")

Apply = Callable[[], None]
"""Puts in force what was read."""


class Reloader:
    """Reloads when the settings file changes, and on request."""

    def __init__(
        self,
        config: Path | None,
        read: Callable[[], Apply],
        is_outdated: Callable[[], bool] = lambda: False,
        on_hang: Callable[[], None] = lambda: None,
        *,
        pause: Callable[[float], None] = time.sleep,
        hang_seconds: float = _HANG_SECONDS,
    ) -> None:
        """Take a first look at the settings file: `config`, else the file that the environment names.

        `read` reads the settings, in a thread; what it returns is called in the event loop. `is_outdated` returns
        whether the file differs from what this process began with; a thread calls it, too. `on_hang` is called in the
        event loop once the thread has looked or read for `hang_seconds`. The thread waits with `pause` while the file
        may be changing.
        """
        self._path = config_path(config)
        self._read = read
        self._is_outdated = is_outdated
        self._on_hang = on_hang
        self._pause = pause
        self._hang_seconds = hang_seconds
        self._busy_since: float | None = None  # when the thread began to look or to read
        self._hangs = False  # as `on_hang` was told
        self._asked = Event()
        self._is_over = False
        self._found: asyncio.Queue[Apply] = asyncio.Queue()
        self._seen: tuple[int, int, int] | None = None
        if self._path is not None:
            looking = Thread(target=self._look, name="first look at the settings", daemon=True)
            looking.start()
            looking.join(_FIRST_SECONDS)

    def ask(self) -> None:
        """Request a reload, whether the file has changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Reload until cancelled."""
        loop = asyncio.get_running_loop()
        Thread(target=self._follow, args=(loop,), name="settings", daemon=True).start()
        try:
            while True:
                try:
                    async with asyncio.timeout(self._hang_seconds):  # Python 3.11's wait_for may lose a cancellation
                        apply = await self._found.get()
                except TimeoutError:
                    self._tell_hang()
                    continue
                try:
                    apply()
                except Exception as error:  # an unforeseen error must not end the process and its exchanges
                    log_internal_error(error)
        finally:
            self._is_over = True
            self._asked.set()

    def _tell_hang(self) -> None:
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._hang_seconds and not self._hangs:
            self._hangs = True
            self._on_hang()

    # -- in a thread -------------------------------------------------------------------------------------------------

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._busy(self._is_outdated):
                self._asked.set()
        except Exception as error:  # later changes are to take effect all the same
            log_internal_error(error)
        while True:
            is_asked = self._asked.wait(_POLL_SECONDS)
            self._asked.clear()
            if self._is_over:
                return
            apply = self._read_if_changed(is_asked=is_asked)
            if apply is None:
                continue
            self._hangs = False
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(self._found.put_nowait, apply)

    def _read_if_changed(self, *, is_asked: bool) -> Apply | None:
        """Return what puts the settings in force if the file has changed, a reload was asked for, or a look hung."""
        if not self._busy(self._look) and not is_asked and not self._hangs:
            return None
        for _ in range(_MOST_PAUSES):
            self._pause(_SETTLE_SECONDS)
            if self._is_over:
                return None
            if not self._busy(self._look):
                break
        try:
            return self._busy(self._read)
        except Exception as error:  # the next reload is to take place all the same
            log_internal_error(error)
            return None

    def _busy(self, work: Callable[[], _T]) -> _T:
        """Do work that hangs if a file does."""
        self._busy_since = time.monotonic()
        try:
            return work()
        finally:
            self._busy_since = None

    def _look(self) -> bool:
        """Look at the file; return whether it has changed since the last look."""
        if self._path is None:
            return False
        seen = None
        with suppress(OSError):
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_ino, status.st_size
        before, self._seen = self._seen, seen
        return seen != before
