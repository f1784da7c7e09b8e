"""Writes lines to standard output and error in a thread, so that traffic never waits for their reader.

Setting O_NONBLOCK instead would affect every process that shares the descriptor.
"""

from __future__ import annotations

import atexit
import os
import select
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

CAPACITY = 8192
"""The most lines that may wait for the reader: a few seconds of heavy traffic, or a few megabytes."""

_GATHER_SECONDS = 0.05
"""How long the thread waits for more lines before it writes: waking it for each line would cost the traffic CPU."""

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
        # Reentrant: a library may log while the garbage collector runs, in a thread that holds the lock.
        self._changed = Condition()
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
            # The thread gathers lines for a while, but must not lose lines of a burst by that.
            if len(self._waiting) in (1, self._capacity // 2):
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
        is_last = False
        while not is_last:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._is_closed:
                    self._changed.wait(_GATHER_SECONDS)
                lines = list(self._waiting)
                self._waiting.clear()
                lost, self._lost = self._lost, 0
                is_last = self._is_closed
            self._write_all(lines, lost)
        atexit.unregister(self.flush)

    def _write_all(self, lines: list[bytes], lost: int) -> None:
        """Write a notice of `lost` lines, if any, and the lines; count the lines that are not written whole as lost."""
        notices = [self._loss_notice(lost)] if lost and self._loss_notice is not None else []
        try:
            self._put(notices + lines)
        except _PartlyWritten as error:
            if error.whole_lines < len(notices):
                with self._changed:
                    self._lost += lost
            for _ in lines[max(0, error.whole_lines - len(notices)) :]:
                self._lose(error.problem)
        else:
            with self._changed:
                self._is_losing = self._is_losing and bool(self._waiting)

    def _lose(self, problem: str) -> None:
        with self._changed:
            self._lost += 1
            is_first = not self._is_losing
            self._is_losing = True
        self._on_loss(problem, is_first)

    def _put(self, lines: list[bytes]) -> None:
        """Write all lines; raises _PartlyWritten."""
        # The next line must not continue a line that was cut off.
        start = b"\n" if self._is_torn else b""
        rest = start + b"".join(lines)
        written = -len(start)
        try:
            while rest:
                try:
                    count = os.write(self._descriptor, rest)
                except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                    _wait_for_room(self._descriptor)
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
            raise _PartlyWritten(whole, error.strerror or type(error).__name__) from error
        self._is_torn = False


class _PartlyWritten(Exception):
    """Only some of the lines could be written whole."""

    def __init__(self, whole_lines: int, problem: str) -> None:
        super().__init__(problem)
        self.whole_lines = whole_lines
        self.problem = problem


def _wait_for_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
