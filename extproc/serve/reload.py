"""Reloads of the settings while the process serves. Each exchange keeps the settings that it began with.

A thread looks at the file and reads it, because a mount that hangs must not stop the traffic: until the file can be
read, the old settings stay in force. An invalid file is refused and its problems are logged; the old settings stay in
force then, too. Changes of the addresses, the number of workers or the limits that gRPC enforces need a restart, which
is logged as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from extproc.config.load import config_path
from extproc.telemetry.logs import log_internal_error

_POLL_SECONDS = 1.0

_FIRST_SECONDS = 1.0
"""How long to wait for the first look at the file. Without it, a change soon after the start could be missed."""

Apply = Callable[[], None]
"""Puts in force what was read."""


class Reloader:
    """Reloads when the settings file changes, and on request."""

    def __init__(
        self, config: Path | None, read: Callable[[], Apply], is_outdated: Callable[[], bool] = lambda: False
    ) -> None:
        """Take a first look at the settings file: `config`, else the file that the environment names.

        `read` reads the settings, in a thread; what it returns is called in the event loop. `is_outdated` returns
        whether the file differs from what this process began with; a thread calls it, too.
        """
        self._path = config_path(config)
        self._read = read
        self._is_outdated = is_outdated
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
                apply = await self._found.get()
                try:
                    apply()
                except Exception as error:  # an unforeseen error must not end the process and its exchanges
                    log_internal_error(error)
        finally:
            self._is_over = True
            self._asked.set()

    # -- in a thread -------------------------------------------------------------------------------------------------

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._is_outdated():
                self._asked.set()
        except Exception as error:  # later changes are to take effect all the same
            log_internal_error(error)
        while True:
            is_asked = self._asked.wait(_POLL_SECONDS)
            self._asked.clear()
            if self._is_over:
                return
            if not self._look() and not is_asked:
                continue
            try:
                apply = self._read()
            except Exception as error:  # the next reload is to take place all the same
                log_internal_error(error)
                continue
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(self._found.put_nowait, apply)

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
