"""Where a line writer writes to: a descriptor that gets whole lines."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """Takes the lines of one LineWriter. Its methods may wait for a reader, a disk or a mount."""

    def put(self, lines: Sequence[bytes]) -> None:
        """Write all lines; raises PartlyWritten."""

    def close(self) -> None:
        """End after the last line."""


class PartlyWritten(Exception):
    """Only the first `whole_lines` could be written whole."""

    def __init__(self, whole_lines: int, problem: str) -> None:
        """Stop because of `problem`."""
        super().__init__(problem)
        self.whole_lines = whole_lines
        self.problem = problem

    @classmethod
    def because(cls, error: Exception, whole_lines: int = 0) -> PartlyWritten:
        """Return the exception for an OSError, or another error of a library."""
        return cls(whole_lines, getattr(error, "strerror", None) or type(error).__name__)


class Descriptor:
    """An open descriptor, which stays open."""

    def __init__(self, number: int) -> None:
        """Write to the descriptor `number`."""
        self.number = number
        self._is_torn = False

    def put(self, lines: Sequence[bytes]) -> None:
        """Write all lines, in one write if there is room; raises PartlyWritten."""
        # The next line must not continue a line that was cut off.
        start = b"\n" if self._is_torn else b""
        rest = start + b"".join(lines)
        written = -len(start)
        try:
            while rest:
                try:
                    count = os.write(self.number, rest)
                except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                    _wait_for_room(self.number)
                else:
                    written += count
                    rest = rest[count:]
        except OSError as error:
            whole = 0
            for line in lines:
                if written < len(line):
                    break
                written -= len(line)
                whole += 1
            self._is_torn = written > 0 or (self._is_torn and written < 0)
            raise PartlyWritten.because(error, whole) from error
        self._is_torn = False

    def close(self) -> None:
        """Leave the descriptor open: others may use it."""


def _wait_for_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
