"""Logs each outage of an OpenTelemetry collector once."""

from __future__ import annotations

from typing import Literal

import structlog

Signal = Literal["traces", "metrics"]

_log = structlog.get_logger()


class Outage:
    """Logs once when a collector becomes unreachable, and once when it is reachable again."""

    def __init__(self, signal: Signal) -> None:
        """Watch the exports of `signal`."""
        self._signal = signal
        self._is_away = False

    def note(self, *, was_exported: bool) -> None:
        """Record whether an export succeeded."""
        if self._is_away is was_exported:
            self._is_away = not was_exported
            if self._is_away:
                _log.error("otlp_export_failed", signal=self._signal)
            else:
                _log.info("otlp_export_recovered", signal=self._signal)
