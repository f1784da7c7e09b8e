"""The audit log: a JSON line for each verdict and for each exchange that was inspected or refused. It has no content.

A thread writes the lines. A line that cannot be written is lost and counted: an audit log that is full, hangs or is not
read does not stop traffic.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import structlog

from extproc.config.key_file import FIRST_SECONDS, KeyFile, hash_key_problem
from extproc.config.keys import Keys
from extproc.core.content import json_codec as codec
from extproc.core.errors import DetectionRejected
from extproc.core.identity import Identity
from extproc.telemetry.audit_ecs import as_ecs
from extproc.telemetry.audit_file import AuditFile
from extproc.telemetry.audit_ocsf import as_ocsf
from extproc.telemetry.line_sink import Descriptor
from extproc.telemetry.line_writer import LineWriter

if TYPE_CHECKING:
    from extproc.config.settings import Settings

_HASH_CHARACTERS = 32

_STDOUT = 1

_EXIT_SECONDS = 1.5
"""How long the process may wait for the lines when it ends. The log has more time: it may have to tell of lost ones."""

_TELL_SECONDS = 10.0
"""A problem is logged at most once in this time."""

_log = structlog.get_logger()


class AuditLog:
    """Writes audit lines to a file or to stdout."""

    def __init__(self, settings: Settings, on_loss: Callable[[int], None]) -> None:
        """Write as `settings.audit` says; `on_loss(count)` is called for lines that cannot be written."""
        audit = settings.audit
        self._name = "stdout" if audit.is_stdout else str(Path(audit.file))
        self._writer = LineWriter(
            Descriptor(_STDOUT) if audit.is_stdout else AuditFile(Path(audit.file)),
            on_loss=_Losses(self._name, on_loss).add,
            exit_seconds=_EXIT_SECONDS,
        )
        self._format = audit.format
        self._identity = audit.identity
        self._keys = Keys(settings, logs=False)  # the client of Aim logs the problems of the same keys
        self._key_file = None
        if audit.key_file is not None:
            self._key_file = KeyFile(audit.key_file, "audit.key_file", hash_key_problem)
            self._key_file.wait(FIRST_SECONDS)

    def callers(self, profile: str, identity: Identity) -> dict[str, str]:
        """Return the fields that identify the caller of an exchange under `profile`."""
        if self._identity == "none":
            return {}
        named = {
            "user_email": identity.user_email,
            "key_alias": identity.key_alias,
            "session_id": identity.session_id,
        }
        present = {name: value for name, value in named.items() if value is not None}
        if self._identity == "plain" or not present:
            return present
        key = self._key(profile)
        if not key:
            return {}
        return {
            name: hmac.digest(key, value.encode(), hashlib.sha256).hex()[:_HASH_CHARACTERS]
            for name, value in present.items()
        }

    def _key(self, profile: str) -> bytes:
        """Return the key of the hashes: that of the key file, else the API key, as Aim gets the values anyway."""
        if self._key_file is not None:
            return self._key_file.read()
        try:
            return self._keys.of(profile).encode()
        except DetectionRejected:
            return b""

    def write(self, line: dict[str, Any]) -> None:
        """Queue `line` with the current time in the format of the settings. This never waits."""
        self._writer.write(codec.encode(self._formatted(line, datetime.now(UTC))) + b"\n")

    def _formatted(self, line: dict[str, Any], now: datetime) -> dict[str, Any]:
        if self._format == "ecs":
            return as_ecs(line, now, is_hashed=self._identity == "hashed")
        if self._format == "ocsf":
            return as_ocsf(line, now, is_hashed=self._identity == "hashed")
        return {"time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **line}

    def close(self, successor: AuditLog | None) -> None:
        """Close the file after the last line.

        A `successor` with the same file writes the lines that wait: nothing must pile up if the file hangs while the
        settings are reloaded again and again.
        """
        if successor is None or successor._name != self._name:
            self._writer.close()
            return
        for line in self._writer.close_early():
            successor._writer.write(line)


class _Losses:
    """Counts lost lines, and logs each problem once in a while."""

    def __init__(self, name: str, on_loss: Callable[[int], None]) -> None:
        """Log losses of the file `name`; pass each count to `on_loss`."""
        self._name = name
        self._on_loss = on_loss
        self._lock = Lock()
        self._told: dict[str, float] = {}  # when each problem was logged
        self._untold = 0

    def add(self, problem: str, count: int) -> None:
        """Count lost lines. Any thread may call this."""
        self._on_loss(count)
        with self._lock:
            self._untold += count
            now = time.monotonic()
            if now - self._told.get(problem, -_TELL_SECONDS) < _TELL_SECONDS:
                return
            self._told[problem] = now
            lines, self._untold = self._untold, 0
        _log.error("audit_line_lost", file=self._name, problem=problem, lines=lines)
