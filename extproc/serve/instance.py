"""What the operators of one serving process see and change: whether it is ready, its metrics, its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from extproc.aim.client import AimClient
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.processor.servicer import ExternalProcessor
from extproc.serve.reload import Reloader
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.snapshot import Phase, Snapshot, Worker

_PROBE_SECONDS = 5.0
"""Pause between two looks at whether Aim can be reached, where readiness asks for it."""

_FIXED = ("listen", "admin", "workers", "tls", "log_level", "limits.request_bytes", "limits.streams")
"""What belongs to the process; gRPC is given the two limits when it starts."""

_log = structlog.get_logger()


class Serving:
    """One process that serves."""

    def __init__(
        self,
        service: ExternalProcessor,
        config: Path | None,
        group: asyncio.TaskGroup,
        on_readiness: Callable[[bool], None] = lambda _: None,
        worker: int = 0,
    ) -> None:
        """Tell of `service`, that of worker `worker`, whose clients live in `group`.

        `on_readiness` is told of each change.
        """
        self._service = service
        self._started_with = service.settings
        self._config = config
        self._group = group
        self._on_readiness = on_readiness
        self._worker = worker
        self._phase = Phase.STARTING
        self._is_aim_reachable = not service.settings.readiness.aim
        self._was_ready = False
        self.reloader = Reloader(config, self._reload)

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
        return self._phase is Phase.SERVING and self._is_aim_reachable

    def serve(self, *, is_serving: bool) -> None:
        """Note that the listener is open, or that it is about to close."""
        self._phase = Phase.SERVING if is_serving else Phase.DRAINING
        self._note_readiness()

    async def snapshot(self) -> Snapshot:
        """Return what the status page shows of this process now."""
        service = self._service
        activity, client = service.telemetry.activity, service.client
        is_unready = self._phase is Phase.SERVING and not self._is_aim_reachable
        return activity.snapshot(
            Worker(
                number=self._worker,
                phase=Phase.UNREADY if is_unready else self._phase,
                started=activity.started,
                streams=service.live,
                sessions=_value(service.telemetry.sessions),
                held_bytes=service.held_bytes,
                is_breaker_open=client.breaker.is_open,
                is_session_breaker_open=client.session_breaker.is_open,
                reload=activity.reload,
            )
        )

    def _note_readiness(self) -> None:
        if self.is_ready != self._was_ready:
            self._was_ready = self.is_ready
            self._on_readiness(self._was_ready)

    async def watch_aim(self) -> None:
        """Look now and then whether Aim can be reached, for ever, while `readiness.aim` asks for it.

        The breakers do not count: a process that is not ready gets no exchange that could close them.
        """
        known = True  # that it is not is told at the first look, too
        while True:
            try:
                is_reachable = not self.settings.readiness.aim or await self._service.client.is_reachable()
            except Exception as error:  # whatever is wrong with the address, the process and its exchanges go on
                log_internal_error(error)
                is_reachable = False
            if is_reachable != known:
                _log.warning("aim_reachable" if is_reachable else "aim_unreachable")
            self._is_aim_reachable = known = is_reachable
            self._note_readiness()
            await asyncio.sleep(_PROBE_SECONDS)

    def _reload(self) -> None:
        """Read the settings again: new exchanges get them, if they can be used."""
        service = self._service
        activity = service.telemetry.activity
        try:
            new = load(self._config, serving=True)
            client = start_client(new, self._group)
        except SettingsError as error:
            _log.error("settings_refused", problems=list(error.problems))
            activity.reloaded(problems=error.problems)
            return
        except Exception as error:
            # Whatever is wrong with them, the process and its exchanges go on.
            log_internal_error(error)
            _log.error("settings_refused", problems=["they cannot be used"])
            activity.reloaded(problems=["they cannot be used"])
            return
        fixed = [name for name in _FIXED if attrgetter(name)(self._started_with) != attrgetter(name)(new)]
        if fixed:
            _log.warning("restart_needed", settings=fixed)
        retired, service.client, service.settings = service.client, client, new
        retired.retire()
        service.telemetry.keep_audit_log(new)
        activity.reloaded(restart_needed=fixed)
        _log.info("settings_reloaded")


def _value(gauge: Gauge) -> int:
    (metric,) = gauge.collect()
    return int(metric.samples[0].value)


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
