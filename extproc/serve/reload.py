"""Reloads of the settings while the process serves. Each exchange keeps the settings that it began with.

An invalid file is refused and its problems are logged; the old settings stay in force. Changes of the addresses, the
number of workers or the limits that gRPC enforces need a restart, which is logged too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from extproc.config.load import config_path
from extproc.telemetry.logs import log_internal_error

_POLL_SECONDS = 1.0


class Reloader:
    """Reloads when the settings file changes, and on request."""

    def __init__(self, config: Path | None, reload: Callable[[], None]) -> None:
        """Call `reload` when the settings file changes: `config`, else the file that the environment names."""
        self._path = config_path(config)
        self._reload = reload
        self._asked = asyncio.Event()
        self._seen = self._stamp()

    def ask(self) -> None:
        """Request a reload, whether the file has changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                if self._stamp() == self._seen:
                    continue
            self._asked.clear()
            self._seen = self._stamp()
            try:
                self._reload()
            except Exception as error:  # an unforeseen error must not end the process and its exchanges
                log_internal_error(error)

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size
