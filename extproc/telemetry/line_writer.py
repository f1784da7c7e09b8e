"""Standard output and error, written to without waiting for whoever reads them."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""Without O_NONBLOCK a pipe that nobody reads would hold up everything."""


def open_anew(inherited: int) -> tuple[int, bool]:
    """Return a descriptor of our own for what `inherited` leads to, and whether a write may wait; raises OSError."""
    if stat.S_ISREG(os.fstat(inherited).st_mode):
        return os.dup(inherited), False  # of those who share a file, each writes where the other ended
    try:
        # Opened anew it has flags of its own. O_NONBLOCK on the inherited one would be its other holders', too.
        return os.open(f"/proc/self/fd/{inherited}", FLAGS), False
    except OSError:  # a socket, another user's pipe, or no /proc
        return os.dup(inherited), True


def has_room(file: int) -> bool:
    """Tell whether up to PIPE_BUF bytes can be written without waiting, or fail without waiting."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(0))


class Stderr(io.TextIOBase):
    """Standard error, a record at a time. What cannot be written at once is lost: no traffic waits or ends for it.

    The interpreter's own stream is passed by: what waits in its buffer would be waited for at the end. It is written to
    only where no descriptor is behind it.
    """

    def __init__(self, on_room: Callable[[int], None]) -> None:
        """Prepare to write; `on_room` is told how many records were lost, once it can write that."""
        super().__init__()
        self._on_room = on_room
        self._lock = threading.RLock()  # again: telling writes
        self._stream: TextIO | None = None
        self._file: int | None = None
        self._may_wait = False
        self._is_torn = False
        self._lost = 0
        self._follow()

    def write(self, text: str) -> int:
        """Write a record, or count it as lost."""
        with self._lock:
            self._follow()
            self.tell_lost()
            if not (self._put(text.encode(errors="backslashreplace")) if self._file is not None else _say(text)):
                self._lost += 1
        return len(text)

    def tell_lost(self) -> None:
        """Have it told what was lost, where there is something to tell and room for it."""
        with self._lock:
            # A pipe that is full may have room for a few bytes: for our word time and again, but for no record.
            if not self._lost or (self._file is not None and not has_room(self._file)):
                return
            lost, self._lost = self._lost, 0
            self._on_room(lost)
            if self._lost:  # our word itself
                self._lost = lost

    def _put(self, data: bytes) -> bool:
        assert self._file is not None
        # The rest of a record that did not fit would be a line of its own.
        rest = whole = b"\n" + data if self._is_torn else data
        with suppress(OSError):
            while rest and not (self._may_wait and not has_room(self._file)):
                rest = rest[os.write(self._file, rest[: select.PIPE_BUF] if self._may_wait else rest) :]
        if len(rest) < len(whole):
            self._is_torn = bool(rest)
        return not rest

    def _follow(self) -> None:
        """Open what `sys.stderr` writes to; tests replace it."""
        if sys.stderr is self._stream:
            return
        if self._file is not None:
            os.close(self._file)
        self._stream, self._file, self._is_torn = sys.stderr, None, False
        with suppress(AttributeError, OSError, ValueError):  # there is none, it was closed, or it is kept in memory
            self._file, self._may_wait = open_anew(sys.stderr.fileno())


def _say(text: str) -> bool:
    """Write to `sys.stderr` as it is; tell whether that went well."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def give_up_stderr() -> None:
    """Let what could not be written be forgotten.

    The interpreter's own try at its end would be waited for, or be the exit status.
    """
    with suppress(AttributeError, OSError, ValueError):
        file = sys.stderr.fileno()
        with suppress(OSError, ValueError):
            if has_room(file):
                sys.stderr.flush()
                return
        os.dup2(os.open(os.devnull, os.O_WRONLY), file)
