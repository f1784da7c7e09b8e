"""What the operators of one serving process see and change: whether it is ready, its metrics, its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from extproc.aim.client import AimClient
from extproc.errors import SettingsError
from extproc.servicer import ExternalProcessor
from extproc.settings import Settings, load
from extproc.telemetry import log_internal_error

_PROBE_SECONDS = 5.0
"""Pause between two looks at whether Aim can be reached, where readiness asks for it."""

_FIXED = ("listen", "admin", "workers", "tls", "log_level")

_log = structlog.get_logger()


class Serving:
    """One process that serves."""

    def __init__(
        self,
        service: ExternalProcessor,
        config: Path | None,
        group: asyncio.TaskGroup,
        on_readiness: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Tell of `service`, whose clients live in `group`; `on_readiness` is told of each change."""
        self._service = service
        self._config = config
        self._group = group
        self._on_readiness = on_readiness
        self._is_serving = False
        self._is_aim_reachable = not service.settings.readiness.aim
        self._was_ready = False

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._service.settings

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics."""
        return self._service.telemetry.registry

    @property
    def is_ready(self) -> bool:
        """Tell whether exchanges may be sent here."""
        return self._is_serving and self._is_aim_reachable

    def serve(self, *, is_serving: bool) -> None:
        """Note that the listener is open, or that it is about to close."""
        self._is_serving = is_serving
        self._note_readiness()

    def _note_readiness(self) -> None:
        if self.is_ready != self._was_ready:
            self._was_ready = self.is_ready
            self._on_readiness(self._was_ready)

    async def watch_aim(self) -> None:
        """Look now and then whether Aim can be reached, for ever, while `readiness.aim` asks for it.

        The breakers do not count: a process that is not ready gets no exchange that could close them.
        """
        while True:
            service = self._service
            is_reachable = not self.settings.readiness.aim or await service.client.is_reachable()
            if is_reachable != self._is_aim_reachable:
                _log.warning("aim_reachable" if is_reachable else "aim_unreachable")
            self._is_aim_reachable = is_reachable
            self._note_readiness()
            await asyncio.sleep(_PROBE_SECONDS)

    def reload(self) -> None:
        """Read the settings again: new exchanges get them, if they can be used."""
        service = self._service
        old = service.settings
        try:
            new = load(self._config, serving=True)
            client = start_client(new, self._group)
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
        retired, service.client, service.settings = service.client, client, new
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
