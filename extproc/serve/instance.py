"""One serving process as operators see it: its metrics, its status and its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from extproc.aim.client import AimClient
from extproc.aim.network import Network
from extproc.config.keys import Keys
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.processor.servicer import ExternalProcessor
from extproc.serve.fixed import changed, with_fixed
from extproc.serve.open_files import check_limit
from extproc.serve.readiness import Readiness
from extproc.serve.reload import Reloader
from extproc.telemetry.audit import AuditLog
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
        is_outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        """Report on `processor`, that of `worker`. Reloads read `config` and start clients in `group`.

        `is_outdated` returns whether `config` differs from the settings of `processor`; a thread calls it.
        """
        self._processor = processor
        self._started_with = processor.settings
        self._config = config
        self._group = group
        self._readiness = readiness
        self._worker = worker
        self.reloader = Reloader(config, self._read, is_outdated, self._tell_hang)

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

    def _read(self) -> Callable[[], None]:
        """Read the settings again, and every file that they name; return what puts them in force, or refuses them."""
        try:
            read = load(self._config, serving=True, before=self.settings)
            new = with_fixed(read, self._started_with)
            keys, network = Keys(new), Network.of(new.aim)
            audit = self._processor.telemetry.new_audit_log(new)
        except SettingsError as error:
            return partial(self._refuse, error.problems)
        except Exception as error:
            log_internal_error(error)
            return partial(self._refuse, ["they cannot be used"])
        return partial(self._apply, new, keys, network, audit, changed(read, self._started_with))

    def _tell_hang(self) -> None:
        self._refuse(["reading the settings, or a file that they name, takes too long"])

    def _refuse(self, problems: Sequence[str]) -> None:
        _log.error("settings_refused", problems=list(problems))
        self._processor.telemetry.activity.reloaded(problems=problems)

    def _apply(
        self, new: Settings, keys: Keys, network: Network, audit: AuditLog | None, restart_needed: list[str]
    ) -> None:
        """Use the new settings for new exchanges."""
        processor = self._processor
        try:
            client = start_client(new, self._group, keys, network)
        except Exception as error:  # an unforeseen error must not end the process and its exchanges
            log_internal_error(error)
            self._refuse(["they cannot be used"])
            return
        if restart_needed:
            _log.warning("restart_needed", settings=restart_needed)
        retired, before = processor.client, processor.settings
        processor.client, processor.settings = client, new
        if new.limits.sessions != before.limits.sessions:
            check_limit(new.limits.sessions)
        retired.retire()
        self._audit_enforcement(before, new, audit)
        processor.telemetry.use_audit_log(audit)
        processor.telemetry.activity.reloaded(restart_needed=restart_needed)
        _log.info("settings_reloaded")

    def _audit_enforcement(self, before: Settings, new: Settings, audit: AuditLog | None) -> None:
        """Write a line for each profile whose `enforce` changes, to the new audit log, or to one that ends now."""
        log = audit or self._processor.telemetry.audit
        if log is None:
            return
        for name, profile in new.profiles.items():
            old = before.profiles.get(name, profile)
            if old.enforce is not profile.enforce:
                log.write({"type": "settings", "profile": name, "enforce": profile.enforce})


def _value(gauge: Gauge) -> int:
    (metric,) = gauge.collect()
    return int(metric.samples[0].value)


def start_client(
    settings: Settings, group: asyncio.TaskGroup, keys: Keys | None = None, network: Network | None = None
) -> AimClient:
    """Return a client that lives in a task of `group` until it is retired and no longer used.

    `keys` and `network` are those of `settings`; without them their files are read now. Raises SettingsError.
    """
    client = AimClient(settings, keys=keys, network=network)

    async def live() -> None:
        async with client:
            await client.unused()

    group.create_task(live())
    return client
