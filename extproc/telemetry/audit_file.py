"""The file of the audit log: it gets whole lines, and it may be rotated."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from extproc.telemetry.line_sink import Descriptor, PartlyWritten

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY

_MODE = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP


class AuditFile:
    """Appends lines to a file.

    Whole lines are one write in append mode, so that workers and the replicas on one host can share a file.
    """

    def __init__(self, path: Path, *, look_seconds: float = 1.0) -> None:
        """Write to `path`. For `look_seconds` after a rotation, lines may still go to the old file."""
        self._path = path
        self._look_seconds = look_seconds
        self._file: Descriptor | None = None
        self._is_pipe = False
        self._looked = 0.0

    def put(self, lines: Sequence[bytes]) -> None:
        """Write all lines; raises PartlyWritten."""
        whole = 0
        try:
            file = self._opened()
            for piece in _pieces(lines) if self._is_pipe else (lines,):
                file.put(piece)
                whole += len(piece)
        except PartlyWritten as error:
            raise PartlyWritten(whole + error.whole_lines, error.problem) from error
        except (OSError, ValueError) as error:
            raise PartlyWritten.because(error) from error

    def _opened(self) -> Descriptor:
        """Return the file, opened again after a rotation; raises OSError, and ValueError for a path that has none."""
        now = time.monotonic()
        if self._file is None or now - self._looked > self._look_seconds:
            self._looked = now
            if self._file is None or not self._is_current(self._file):
                self.close()
                self._file = Descriptor(os.open(self._path, _FLAGS, _MODE))
                self._is_pipe = stat.S_ISFIFO(os.fstat(self._file.number).st_mode)
        return self._file

    def _is_current(self, file: Descriptor) -> bool:
        try:
            return os.path.samestat(os.fstat(file.number), self._path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file.number)
            self._file = None


def _pieces(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Split lines into pieces that a pipe takes whole, so that the lines of several workers do not mix."""
    piece: list[bytes] = []
    for line in lines:
        if piece and sum(map(len, piece)) + len(line) > select.PIPE_BUF:
            yield piece
            piece = []
        piece.append(line)
    yield piece
