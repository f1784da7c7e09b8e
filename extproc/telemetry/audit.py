"""The audit log: a JSON line for each verdict and for each exchange that was inspected or refused. No content, ever.

Each line is one write in append mode, so that workers, and replicas on one host, can share a file. What cannot be
written at once is counted and lost: an audit log that is full, or that nobody reads, stops no traffic.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import select
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from extproc.config.keys import KeyFile, Keys, hash_key_problem
from extproc.core.content import json_codec as codec
from extproc.core.errors import DetectionRejected
from extproc.core.identity import Identity
from extproc.telemetry.stdio import FLAGS, has_room, open_anew

if TYPE_CHECKING:
    from extproc.config.settings import Settings

_LOOK_SECONDS = 1.0
"""How long after it was rotated lines may still go into the old file."""

_HASH_CHARACTERS = 32

_STDOUT = 1

_log = structlog.get_logger()


class AuditLog:
    """Writes lines to a file or to stdout."""

    def __init__(self, settings: Settings, on_loss: Callable[[], None]) -> None:
        """Write as `settings.audit` says; `on_loss` is told of each line that cannot be written."""
        audit = settings.audit
        self._path = None if audit.is_stdout else Path(audit.file)
        self._identity = audit.identity
        self._keys = Keys(settings, logs=False)  # the client of Aim, which has the same ones, does
        self._key_file = None
        if audit.key_file is not None:
            self._key_file = KeyFile(audit.key_file, "audit.key_file", hash_key_problem)
        self._on_loss = on_loss
        self._is_losing = False
        self._is_torn = False
        self._file: int | None = None
        self._may_wait = False
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
        key = self._key(profile)
        if not key:
            return {}
        return {
            name: hmac.digest(key, value.encode(), hashlib.sha256).hex()[:_HASH_CHARACTERS]
            for name, value in present.items()
        }

    def _key(self, profile: str) -> bytes:
        """Return the key of the hashes: a file's, else the one for Aim, to whom the values are told anyway."""
        if self._key_file is not None:
            return self._key_file.read()
        try:
            return self._keys.of(profile).encode()
        except DetectionRejected:
            return b""

    def write(self, line: dict[str, Any]) -> None:
        """Write `line`, with the time, or count it as lost."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = codec.encode({"time": now, **line}) + b"\n"
        if self._is_torn:
            data = b"\n" + data
        try:
            file = self._descriptor()
            if self._may_wait:
                _check_room(file, len(data))
            written = os.write(file, data)
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
        now = time.monotonic()
        if self._file is None or now - self._looked > _LOOK_SECONDS:
            self._looked = now
            if self._file is None or not self._is_current(self._file):
                self.close()
                if self._path is None:
                    self._file, self._may_wait = open_anew(_STDOUT)
                else:
                    self._file = os.open(self._path, FLAGS | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP)
                self._is_torn = False
        return self._file

    def _is_current(self, file: int) -> bool:
        if self._path is None:
            return True
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


def _check_room(file: int, size: int) -> None:
    """Raise OSError where writing so many bytes would wait."""
    if size > select.PIPE_BUF or not has_room(file):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
