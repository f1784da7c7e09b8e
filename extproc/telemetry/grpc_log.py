"""The log of gRPC's core, which writes text to standard error itself, as records of the process's log.

gRPC's core names failed handshakes and its own faults nowhere else. But it would block the process if nothing reads
standard error, and any peer can make it write by failing handshakes. So it writes into a pipe that a thread reads. The
thread turns each line into a record without content and logs at most one record of a kind per window. Lines that do not
fit into the pipe are lost.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

import structlog

VERBOSITY = "INFO"
"""gRPC's default here. It tells of failed handshakes at this verbosity, and of nothing else that happens often."""

_WINDOW_SECONDS = 10.0
_MOST_KINDS = 64
_LINE_BYTES = 4096
_PIPE_BYTES = 1 << 20

# Until gRPC has set up its log, a line has the seconds since 1970 where others have the seconds of a minute.
_LINE = re.compile(r"(?P<level>[IWEF])\d{4} \d\d:\d\d:\d+\.\d+ +\d+ (?P<file>[\w./-]+):(?P<line>\d+)\] (?P<message>.*)")
_EARLY = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"
"""It stands in front of such lines."""

_FAULTS = re.compile(r"Handshake failed with error .*|Failed parsing HTTP/2 \(.*\)|Parse failed with .*")
"""What an informational message may say. Others describe traffic, with headers, if GRPC_TRACE asks for that."""

_HIDDEN = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b(?:ipv4|ipv6|unix)\S+|0x[0-9a-f]+|[^ -~]")
_PROBLEM_CHARACTERS = 200

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fault:
    """What gRPC's core says of one fault: its source file, and the text without quotations and addresses."""

    level: str
    source: str
    problem: str


def read(line: str) -> Fault | None:
    """Return the fault that a line of gRPC's core names; None if it names none. Raises ValueError for other text."""
    if line == _EARLY:
        return None
    found = _LINE.match(line)
    if found is None:
        raise ValueError("not a line of gRPC's core")
    message = found["message"]
    if found["file"] in ("log.cc", "trace.cc"):
        return None  # about its own verbosity
    if found["level"] == "I":
        fault = _FAULTS.search(message)
        if fault is None:
            return None
        message = fault[0]
    level = "error" if found["level"] in "EF" else "warning"
    problem = _HIDDEN.sub("...", message)[:_PROBLEM_CHARACTERS]
    return Fault(level, f"{found['file'].rpartition('/')[2]}:{found['line']}", problem)


class Repeats:
    """Counts faults. `report(fault, count)` is called for the first of its kind, and then once per window."""

    def __init__(self, report: Callable[[Fault, int], None], now: Callable[[], float] = time.monotonic) -> None:
        """Report with the time of `now`, in seconds."""
        self._report = report
        self._now = now
        self._open: dict[Fault, tuple[float, int]] = {}  # the end of the window, and the faults not yet reported

    def add(self, fault: Fault) -> None:
        """Report a fault now, or count it for the end of its window."""
        self.flush()
        if fault not in self._open and len(self._open) >= _MOST_KINDS:
            fault = Fault(fault.level, "various", "more kinds of faults than the log shows")
        known = self._open.get(fault)
        if known is None:
            self._open[fault] = self._now() + _WINDOW_SECONDS, 0
            self._report(fault, 1)
        else:
            self._open[fault] = known[0], known[1] + 1

    def flush(self) -> None:
        """Report what was counted in windows that have ended."""
        now = self._now()
        for fault, (end, count) in tuple(self._open.items()):
            if end <= now:
                del self._open[fault]
                if count:
                    self._open[fault] = now + _WINDOW_SECONDS, 0
                    self._report(fault, count)


class Diversion:
    """Standard error, diverted into the pipe. `descriptor` is where it led before."""

    def __init__(self) -> None:
        """Divert standard error from now on."""
        sys.stderr.flush()
        self._number = sys.stderr.fileno()
        self.descriptor = os.dup(self._number)
        self._end, pipe = os.pipe()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(pipe, False)  # no other process shares it
        os.dup2(pipe, self._number, inheritable=False)
        os.close(pipe)

    def start(self, write: Callable[[bytes], None]) -> None:
        """Log what arrives, from a thread. Lines that are not gRPC's, such as tracebacks, go to `write` as they are."""
        Thread(target=self._run, args=(write,), name="grpc-log", daemon=True).start()

    def end(self) -> None:
        """Let standard error lead where it led before."""
        sys.stderr.flush()
        os.dup2(self.descriptor, self._number)

    def _run(self, write: Callable[[bytes], None]) -> None:
        repeats = Repeats(_report)
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        rest = b""
        while True:
            if not poll.poll(_WINDOW_SECONDS * 1000):
                repeats.flush()
                continue
            data = os.read(self._end, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                _take(line[:_LINE_BYTES], repeats, write)


def _take(line: bytes, repeats: Repeats, write: Callable[[bytes], None]) -> None:
    try:
        fault = read(line.decode("latin-1"))
    except ValueError:
        if line:
            write(line + b"\n")
    else:
        if fault is not None:
            repeats.add(fault)


def _report(fault: Fault, count: int) -> None:
    log = _log.error if fault.level == "error" else _log.warning
    log("grpc_fault", source=fault.source, problem=fault.problem, count=count)
