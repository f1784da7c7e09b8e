"""Writes lines to standard output and error in a thread, so that traffic never waits for their reader.

Setting O_NONBLOCK instead would affect every process that shares the descriptor.
"""

from __future__ import annotations

import atexit
import os
import select
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, Thread

CAPACITY = 8192
"""The most lines that may wait for the reader: a few seconds of heavy traffic, or a few megabytes."""

_FLUSH_SECONDS = 2.0
"""How long the process may wait for the reader when it ends."""


class LineWriter:
    """Writes whole lines to a descriptor, in order.

    If too many lines wait, the oldest are lost. Lines that cannot be written, such as on a full disk, are lost too.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        on_loss: Callable[[str, bool], None] = lambda _problem, _is_first: None,
        loss_notice: Callable[[int], bytes] | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        """Write to `descriptor` until the process ends. The descriptor stays open.

        `on_loss(problem, is_first)` is called for each lost line, from any thread; `is_first` is True for the first
        loss since the writer last kept up. `loss_notice(count)` returns the line to write in place of lost lines.
        """
        self._descriptor = descriptor
        self._on_loss = on_loss
        self._loss_notice = loss_notice
        self._capacity = capacity
        self._changed = Condition(Lock())
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._is_losing = False
        self._is_closed = False
        self._is_torn = False
        self._thread = Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def write(self, line: bytes) -> None:
        """Queue `line`, which must end in a line feed."""
        with self._changed:
            is_full = len(self._waiting) == self._capacity
            if is_full:
                self._waiting.popleft()
            self._waiting.append(line)
            if len(self._waiting) == 1:
                self._changed.notify()
        if is_full:
            self._lose("its reader is too slow")

    def close(self) -> None:
        """End the thread once it has written the waiting lines."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Close, and wait at most `seconds` until all lines are written."""
        self.close()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                is_last = not self._waiting
                line = self._waiting.popleft() if self._waiting else b""
                lost, self._lost = self._lost, 0
            try:
                if lost and self._loss_notice is not None:
                    self._put(self._loss_notice(lost))
                    lost = 0
                self._put(line)
            except OSError as error:
                with self._changed:
                    self._lost += lost
                if not is_last:
                    self._lose(error.strerror or type(error).__name__)
            else:
                with self._changed:
                    self._is_losing = self._is_losing and bool(self._waiting)
            if is_last:
                atexit.unregister(self.flush)
                return

    def _lose(self, problem: str) -> None:
        with self._changed:
            self._lost += 1
            is_first = not self._is_losing
            self._is_losing = True
        self._on_loss(problem, is_first)

    def _put(self, data: bytes) -> None:
        """Write all of `data`; raises OSError."""
        # The next line must not continue a line that was cut off.
        rest = whole = b"\n" + data if self._is_torn and data else data
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                    _wait_for_room(self._descriptor)
        finally:
            if len(rest) < len(whole):
                self._is_torn = bool(rest)


def _wait_for_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
