"""Settings that change while the process serves: each exchange keeps the snapshot that it began with.

A file that cannot be used is refused with its problems, and the old settings stay. What belongs to the process (its
addresses, its workers, the limit that gRPC enforces) needs a restart, which is said.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from extproc.aim.client import AimClient
from extproc.errors import SettingsError
from extproc.servicer import ExternalProcessor
from extproc.settings import Settings, config_path, load
from extproc.telemetry import log_internal_error

_POLL_SECONDS = 1.0

_FIXED = ("listen", "admin", "workers", "tls", "log_level")

_log = structlog.get_logger()


class Reloader:
    """Watches the settings file, and is told of SIGHUP."""

    def __init__(self, service: ExternalProcessor, config: Path | None) -> None:
        """Give `service` new settings when the file changes that `config`, or the environment, names."""
        self._service = service
        self._path = config_path(config)
        self._config = config
        self._asked = asyncio.Event()
        self._seen = self._stamp()

    def ask(self) -> None:
        """Read the settings again soon, changed or not."""
        self._asked.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Watch for ever; clients of new settings live in `group`."""
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                if self._stamp() == self._seen:
                    continue
            self._asked.clear()
            self._seen = self._stamp()
            self._reload(group)

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _reload(self, group: asyncio.TaskGroup) -> None:
        old = self._service.settings
        try:
            new = load(self._config, serving=True)
            client = start_client(new, group)
        except SettingsError as error:
            _log.error("settings_refused", problems=list(error.problems))
            return
        except Exception as error:
            # Whatever is wrong with them, the process and its exchanges go on.
            log_internal_error(error)
            _log.error("settings_refused", problems=["they cannot be used"])
            return
        fixed = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
        if old.limits.request_bytes != new.limits.request_bytes:
            fixed.append("limits.request_bytes")
        if fixed:
            _log.warning("restart_needed", settings=fixed)
        retired, self._service.client, self._service.settings = self._service.client, client, new
        retired.retire()
        _log.info("settings_reloaded")


def start_client(settings: Settings, group: asyncio.TaskGroup) -> AimClient:
    """Return a client that lives in a task of `group` until it is retired and nobody uses it.

    Raises SettingsError.
    """
    client = AimClient(settings)

    async def live() -> None:
        async with client:
            await client.unused()

    group.create_task(live())
    return client
