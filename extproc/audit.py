"""The audit log: a JSON line for each verdict and for each exchange that was inspected or refused. No content, ever.

Each line is one write in append mode, so that workers, and replicas on one host, can share a file. What cannot be
written is counted and lost: an audit log that is full stops no traffic.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from extproc.aim.keys import Keys
from extproc.errors import DetectionRejected
from extproc.identity import Identity

if TYPE_CHECKING:
    from extproc.settings import Settings

_LOOK_SECONDS = 1.0
"""How long after it was rotated lines may still go into the old file."""

_HASH_CHARACTERS = 32

_log = structlog.get_logger()


class AuditLog:
    """Writes lines to a file or to stdout."""

    def __init__(self, settings: Settings, on_loss: Callable[[], None]) -> None:
        """Write as `settings.audit` says; `on_loss` is told of each line that cannot be written."""
        audit = settings.audit
        self._path = None if audit.is_stdout else Path(audit.file)
        self._identity = audit.identity
        self._keys = Keys(settings)
        self._key_file = audit.key_file
        self._on_loss = on_loss
        self._is_losing = False
        self._is_torn = False
        self._file: int | None = None
        self._looked = 0.0

    def callers(self, profile: str, identity: Identity) -> dict[str, str]:
        """Return what the lines of an exchange under `profile` say of who asked."""
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
        try:
            key = self._key(profile)
        except (OSError, DetectionRejected):
            return {}
        return {
            name: hmac.digest(key, value.encode(), hashlib.sha256).hex()[:_HASH_CHARACTERS]
            for name, value in present.items()
        }

    def _key(self, profile: str) -> bytes:
        """Return the key of the hashes: a file's, else the one for Aim, to whom the values are told anyway."""
        if self._key_file is not None:
            return self._key_file.read_bytes().strip()
        return self._keys.of(profile).encode()

    def write(self, line: dict[str, Any]) -> None:
        """Write `line`, with the time, or count it as lost."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = json.dumps({"time": now, **line}, separators=(",", ":")).encode() + b"\n"
        if self._is_torn:
            data = b"\n" + data
        try:
            written = os.write(self._descriptor(), data)
            # The rest of a line that did not fit would be a line of its own.
            self._is_torn = written < len(data)
            if self._is_torn:
                raise OSError("no room for the whole line")
        except OSError as error:
            self._on_loss()
            if not self._is_losing:
                _log.error("audit_line_lost", file=str(self._path or "stdout"), problem=error.strerror or str(error))
            self._is_losing = True
        else:
            self._is_losing = False

    def _descriptor(self) -> int:
        """Return the open file, or its successor when it was rotated; raises OSError."""
        if self._path is None:
            return sys.__stdout__.fileno() if sys.__stdout__ is not None else 1
        now = time.monotonic()
        if self._file is None or now - self._looked > _LOOK_SECONDS:
            self._looked = now
            if self._file is None or not self._is_current(self._file):
                self.close()
                # Without O_NONBLOCK a pipe that nobody reads would hold up everything.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
                self._file = os.open(self._path, flags, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP)
                self._is_torn = False
        return self._file

    def _is_current(self, file: int) -> bool:
        assert self._path is not None
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; it is opened again when there is a line for it."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None
