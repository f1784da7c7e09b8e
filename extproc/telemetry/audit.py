"""The audit log: a JSON line for each verdict and for each exchange that was inspected or refused. It has no content.

A line that cannot be written is lost and counted. An audit log that is full or not read does not stop traffic.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
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
from extproc.telemetry.line_writer import LineWriter

if TYPE_CHECKING:
    from extproc.config.settings import Settings

_HASH_CHARACTERS = 32

_STDOUT = 1

_log = structlog.get_logger()


class AuditLog:
    """Writes audit lines to a file or to stdout."""

    def __init__(self, settings: Settings, on_loss: Callable[[], None]) -> None:
        """Write as `settings.audit` says; `on_loss` is called for each line that cannot be written."""
        audit = settings.audit
        self._name = "stdout" if audit.is_stdout else str(Path(audit.file))
        self._on_loss = on_loss
        self._sink: AuditFile | LineWriter = (
            LineWriter(_STDOUT, on_loss=self._lost) if audit.is_stdout else AuditFile(Path(audit.file), self._lost)
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
        """Write `line` with the current time in the format of the settings, or count it as lost."""
        self._sink.write(codec.encode(self._formatted(line, datetime.now(UTC))) + b"\n")

    def _formatted(self, line: dict[str, Any], now: datetime) -> dict[str, Any]:
        if self._format == "ecs":
            return as_ecs(line, now, is_hashed=self._identity == "hashed")
        if self._format == "ocsf":
            return as_ocsf(line, now, is_hashed=self._identity == "hashed")
        return {"time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **line}

    def close(self) -> None:
        """Close the file, or end the writer of stdout after its last line."""
        self._sink.close()

    def _lost(self, problem: str, is_first: bool) -> None:
        self._on_loss()
        if is_first:
            _log.error("audit_line_lost", file=self._name, problem=problem)
