"""One serving process as operators see it: its metrics, its status and its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from extproc.aim.client import AimClient
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.processor.servicer import ExternalProcessor
from extproc.serve.fixed import changed, with_fixed
from extproc.serve.readiness import Readiness
from extproc.serve.reload import Reloader
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.snapshot import Snapshot, Worker

_log = structlog.get_logger()


class Instance:
    """One serving process."""

    def __init__(
        self,
        processor: ExternalProcessor,
        config: Path | None,
        group: asyncio.TaskGroup,
        readiness: Readiness,
        worker: int = 0,
    ) -> None:
        """Report on `processor`, that of `worker`. Reloads read `config` and start clients in `group`."""
        self._processor = processor
        self._started_with = processor.settings
        self._config = config
        self._group = group
        self._readiness = readiness
        self._worker = worker
        self.reloader = Reloader(config, self._reload)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._processor.settings

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics."""
        return self._processor.telemetry.registry

    @property
    def is_ready(self) -> bool:
        """Return whether exchanges may be sent here."""
        return self._readiness.is_ready

    async def is_aim_reachable(self) -> bool:
        """Return whether Aim can be reached; always True unless `readiness.aim` is set."""
        return not self.settings.readiness.aim or await self._processor.client.is_reachable()

    async def snapshot(self) -> Snapshot:
        """Return what the status page shows of this process now."""
        processor = self._processor
        activity, client = processor.telemetry.activity, processor.client
        return activity.snapshot(
            Worker(
                number=self._worker,
                phase=self._readiness.phase,
                started=activity.started,
                streams=processor.load.streams,
                sessions=_value(processor.telemetry.sessions),
                held_bytes=processor.load.held_bytes,
                is_breaker_open=client.breaker.is_open,
                is_session_breaker_open=client.session_breaker.is_open,
                reload=activity.reload,
            )
        )

    def _reload(self) -> None:
        """Read the settings again. If they are valid, they apply to new exchanges."""
        processor = self._processor
        activity = processor.telemetry.activity
        try:
            read = load(self._config, serving=True)
            new = with_fixed(read, self._started_with)
            client = start_client(new, self._group)
        except SettingsError as error:
            _log.error("settings_refused", problems=list(error.problems))
            activity.reloaded(problems=error.problems)
            return
        except Exception as error:  # an unforeseen error must not end the process and its exchanges
            log_internal_error(error)
            _log.error("settings_refused", problems=["they cannot be used"])
            activity.reloaded(problems=["they cannot be used"])
            return
        fixed = changed(read, self._started_with)
        if fixed:
            _log.warning("restart_needed", settings=fixed)
        retired, processor.client, processor.settings = processor.client, client, new
        retired.retire()
        processor.telemetry.keep_audit_log(new)
        activity.reloaded(restart_needed=fixed)
        _log.info("settings_reloaded")


def _value(gauge: Gauge) -> int:
    (metric,) = gauge.collect()
    return int(metric.samples[0].value)


def start_client(settings: Settings, group: asyncio.TaskGroup) -> AimClient:
    """Return a client that lives in a task of `group` until it is retired and no longer used.

    Raises SettingsError.
    """
    client = AimClient(settings)

    async def live() -> None:
        async with client:
            await client.unused()

    group.create_task(live())
    return client
