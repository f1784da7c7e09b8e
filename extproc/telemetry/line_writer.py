"""Writes lines in a thread, so that traffic never waits for a reader, a disk or a mount.

Setting O_NONBLOCK instead would affect every process that shares the descriptor, and has no effect on a file.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from threading import Condition, Thread

from extproc.telemetry.line_sink import PartlyWritten, Sink

CAPACITY = 8192
"""The most lines that may wait: a few seconds of heavy traffic."""

CAPACITY_BYTES = 8 << 20
"""The most bytes of lines that may wait."""

_BATCH_BYTES = 64 << 10
"""The most that is written at once, unless one line is longer. It comes on top of what waits."""

_GATHER_SECONDS = 0.05
"""How long the thread waits for more lines before it writes: waking it for each line would cost the traffic CPU."""

_EXIT_SECONDS = 2.0
"""How long the process may wait for its writers, all together, when it ends."""


class LineWriter:
    """Writes whole lines to a sink, in order.

    If too much waits, the oldest lines are lost. Lines that cannot be written, such as on a full disk, are lost too.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        on_loss: Callable[[str, int], None] = lambda _problem, _count: None,
        loss_notice: Callable[[int], bytes] | None = None,
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
        exit_seconds: float = _EXIT_SECONDS,
    ) -> None:
        """Write to `sink` until it is closed or the process ends.

        `on_loss(problem, count)` is called for lost lines, from any thread. `loss_notice(count)` returns the line to
        write in place of lost lines. The process waits for this writer until `exit_seconds` after it began to end.
        """
        self._sink = sink
        self._on_loss = on_loss
        self._loss_notice = loss_notice
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._exit_seconds = exit_seconds
        # Reentrant: a library may log while the garbage collector runs, in a thread that holds the lock.
        self._changed = Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._in_flight = 0  # lines that the thread is writing
        self._lost = 0
        self._is_closed = False
        self._thread = Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()
        atexit.register(self._flush_at_exit)

    def write(self, line: bytes) -> None:
        """Queue `line`, which must end in a line feed."""
        lost = 0
        with self._changed:
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            while len(self._waiting) > self._capacity or self._waiting_bytes > self._capacity_bytes:
                self._pop()
                lost += 1
            # The thread gathers lines for a while, but must not lose lines of a burst by that.
            is_half_full = 2 * len(self._waiting) >= self._capacity or 2 * self._waiting_bytes >= self._capacity_bytes
            if len(self._waiting) == 1 or is_half_full:
                self._changed.notify()
        if lost:
            self._lose("writing takes too long", lost)

    def close(self) -> None:
        """End the thread once it has written the waiting lines."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def close_early(self) -> list[bytes]:
        """Close, and return the lines that wait instead of writing them."""
        with self._changed:
            lines = [self._pop() for _ in range(len(self._waiting))]
            self.close()
        return lines

    def flush(self, seconds: float) -> None:
        """Close, and wait at most `seconds` until all lines are written. Those that are not written are lost."""
        self.close()
        self._thread.join(seconds)
        lost = len(self.close_early())
        with self._changed:
            lost += self._in_flight
        if lost:
            self._lose("the process ends", lost)

    def _flush_at_exit(self) -> None:
        self.flush(max(0.0, _exit_began() + self._exit_seconds - time.monotonic()))

    def _pop(self) -> bytes:
        line = self._waiting.popleft()
        self._waiting_bytes -= len(line)
        return line

    def _run(self) -> None:
        is_behind = is_last = False
        while not is_last:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._is_closed and not is_behind:
                    self._changed.wait(_GATHER_SECONDS)
                lines = self._next_batch()
                lost, self._lost = self._lost, 0
                is_behind = bool(self._waiting)
                is_last = self._is_closed and not is_behind
            self._write_batch(lines, lost)
        self._sink.close()
        atexit.unregister(self._flush_at_exit)

    def _next_batch(self) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while self._waiting and (not lines or size + len(self._waiting[0]) <= _BATCH_BYTES):
            lines.append(self._pop())
            size += len(lines[-1])
        self._in_flight = len(lines)
        return lines

    def _write_batch(self, lines: list[bytes], lost: int) -> None:
        """Write a notice of `lost` lines, if any, and the lines; count the lines that are not written whole as lost."""
        notices = [self._loss_notice(lost)] if lost and self._loss_notice is not None else []
        problem, whole = "", len(notices) + len(lines)
        try:
            self._sink.put(notices + lines)
        except PartlyWritten as error:
            problem, whole = error.problem, error.whole_lines
        with self._changed:
            self._in_flight = 0
            if whole < len(notices):
                self._lost += lost
        missing = len(lines) - max(0, whole - len(notices))
        if missing:
            self._lose(problem, missing)

    def _lose(self, problem: str, count: int) -> None:
        with self._changed:
            self._lost += count
        self._on_loss(problem, count)


@cache
def _exit_began() -> float:
    """Return when the process began to end, which is the first call."""
    return time.monotonic()
