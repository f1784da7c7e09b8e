"""The file of the audit log: it gets whole lines, it may be rotated, and writing to it never waits."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""Without O_NONBLOCK, a named pipe without a reader would block the process."""

_MODE = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP


class AuditFile:
    """Appends lines to a file.

    Each line is one write in append mode, so that workers and the replicas on one host can share a file.
    """

    def __init__(self, path: Path, on_loss: Callable[[str, bool], None], *, look_seconds: float = 1.0) -> None:
        """Write to `path`; `on_loss(problem, is_first)` is called for each lost line.

        `is_first` is True for the first loss since a line was written. For `look_seconds` after a rotation, lines may
        still go to the old file.
        """
        self._path = path
        self._on_loss = on_loss
        self._look_seconds = look_seconds
        self._is_losing = False
        self._is_torn = False
        self._descriptor: int | None = None
        self._looked = 0.0

    def write(self, line: bytes) -> None:
        """Write `line` at once, or lose it."""
        data = b"\n" + line if self._is_torn else line
        try:
            written = os.write(self._open(), data)
            # The next write must not continue a line that was cut off.
            self._is_torn = written < len(data)
            if self._is_torn:
                raise OSError("no room for the whole line")
        except OSError as error:
            is_first, self._is_losing = not self._is_losing, True
            self._on_loss(error.strerror or str(error), is_first)
        else:
            self._is_losing = False

    def _open(self) -> int:
        """Return the descriptor of the file, opened again after a rotation; raises OSError."""
        now = time.monotonic()
        if self._descriptor is None or now - self._looked > self._look_seconds:
            self._looked = now
            if self._descriptor is None or not self._is_current(self._descriptor):
                self.close()
                self._descriptor = os.open(self._path, _FLAGS, _MODE)
                self._is_torn = False
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
