"""Lines for standard output and error, written by a thread, so that the traffic never waits for their reader.

Setting O_NONBLOCK instead would change the descriptor for every process that shares it.
"""

from __future__ import annotations

import atexit
import os
import select
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, Thread

CAPACITY = 8192
"""Lines that may wait for the reader: a few seconds of heavy traffic, a few megabytes."""

_FLUSH_SECONDS = 2.0
"""How long the end of the process may wait for the reader."""


class LineWriter:
    """Writes whole lines to a descriptor, in order.

    If too many lines wait, the oldest are lost; so are lines that cannot be written, such as on a full disk.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        on_loss: Callable[[str, bool], None] = lambda _problem, _is_first: None,
        loss_notice: Callable[[int], bytes] | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        """Write to `descriptor`, which stays open, until the end of the process.

        `on_loss(problem, is_first)` is called for each lost line, from any thread; `is_first` marks the first loss
        since the writer last kept up. `loss_notice(count)` returns a line that is written where lines are missing.
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
        """Queue `line`, which ends in a line feed."""
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
        """End the thread once it has written the lines that wait."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Close, and wait until all is written, but no longer than `seconds`."""
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
        # After a line that was cut off, the next one must not continue it.
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
