"""The log of the process: structured records on standard error, without content."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from extproc.core.content import json_codec as codec
from extproc.telemetry.line_sink import Descriptor
from extproc.telemetry.line_writer import LineWriter

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_log = structlog.get_logger()


_write_access: Callable[[dict[str, Any]], None] | None = None


def log_exchange(fields: dict[str, Any]) -> None:
    """Log that an exchange has ended.

    There is one such record for each exchange, so it takes a shorter way to the log than through structlog.
    """
    if _write_access is None:
        _log.info("exchange", **fields)
    else:
        _write_access(fields)


def log_internal_error(error: Exception) -> None:
    """Log where an unforeseen error happened, but not its message, which may hold content."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-3:]]
    _log.error("internal_error", type=type(error).__name__, where=where)


def configure_logging(level: str, worker: int | None = None, descriptor: int | None = None) -> Callable[[bytes], None]:
    """Log to stderr, one JSON object a line, from `level` on; with `worker`, each record names it.

    `descriptor` is where to write if stderr itself leads elsewhere. A stopped reader of stderr delays nothing; lines
    that it misses are counted in a record `log_lines_lost`. Return what writes one more line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]

    def name_worker(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
        return {"worker": worker, **record}

    processors: list[Processor] = [
        *([] if worker is None else [name_worker]),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]

    def loss_notice(lost: int) -> bytes:
        record: EventDict = {"lines": lost, "event": "log_lines_lost"}
        for processor in processors:
            processed = processor(None, "error", record)
            assert isinstance(processed, dict)
            record = processed
        return codec.encode(record) + b"\n"

    write = _stderr_writer(loss_notice, descriptor)
    structlog.configure(
        processors=[*processors, structlog.processors.JSONRenderer(codec.encode)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(write),
        cache_logger_on_first_use=True,
    )
    base = {} if worker is None else {"worker": worker}

    def write_access(fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        write(codec.encode({**base, **fields, "event": "exchange", "level": "info", "timestamp": now}) + b"\n")

    global _write_access
    _write_access = write_access if number <= logging.INFO else _discard
    # Libraries log only when something is wrong, and below this level their records may hold content.
    logging.basicConfig(level=logging.ERROR, handlers=[LibraryHandler(write)])
    return write


def _stderr_writer(loss_notice: Callable[[int], bytes], descriptor: int | None) -> Callable[[bytes], None]:
    """Return a function that writes a line to stderr, or to `descriptor`; without a stderr it discards the line."""
    if sys.stderr is None:
        return lambda _: None
    number = sys.stderr.fileno()
    # Callbacks run in reverse order: the writer, which registers its own, is flushed first.
    atexit.register(_discard_stderr, number)
    return LineWriter(Descriptor(number if descriptor is None else descriptor), loss_notice=loss_notice).write


def _discard(_: dict[str, Any]) -> None:
    """Log nothing: the log level is above info."""


def _discard_stderr(descriptor: int) -> None:
    """Point stderr to the null device: the interpreter's last flush must neither block nor fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


class LibraryHandler(logging.Handler):
    """Logs which library spoke, but not what it said: a message or a traceback may hold content."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        """Pass each record, as a line, to `write`."""
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's logger and level."""
        self._write(codec.encode({"event": "library", "logger": record.name, "level": record.levelname}) + b"\n")


class _Lines:
    """The logger that structlog wraps: writes rendered records."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def debug(self, line: bytes) -> None:
        self._write(line + b"\n")

    info = warning = error = critical = debug
