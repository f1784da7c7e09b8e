"""The log of the process: structured records on standard error, and no content in them."""

from __future__ import annotations

import atexit
import logging
import traceback
from typing import TYPE_CHECKING

import structlog

from extproc.core.content import json_codec as codec
from extproc.telemetry.stdio import Stderr, give_up_stderr

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_log = structlog.get_logger()


def log_internal_error(error: Exception) -> None:
    """Log where an unforeseen error happened; its message may hold content."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-3:]]
    _log.error("internal_error", type=type(error).__name__, where=where)


class _Named(logging.Formatter):
    """Says which library spoke, and not what: a message, or the traceback of an error, may hold content."""

    def format(self, record: logging.LogRecord) -> str:
        return codec.encode({"event": "library", "logger": record.name, "level": record.levelname}).decode()


class _Lines:
    """What structlog writes records to.

    Its own kind has a lock, at which it would wait for itself: telling of what was lost writes within a write.
    """

    def __init__(self, file: Stderr) -> None:
        self._file = file

    def debug(self, line: bytes) -> None:
        self._file.write(line.decode() + "\n")

    info = warning = error = critical = debug


def _log_lost(count: int) -> None:
    _log.error("log_lines_lost", lines=count)


def configure_logging(level: str, worker: int | None = None) -> None:
    """Log to stderr, one JSON object a line, from `level` on; with `worker`, each record names it.

    What stderr does not take at once is lost: nothing waits for who reads it.
    """
    number = logging.getLevelNamesMapping()[level.upper()]

    def name_worker(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
        return {"worker": worker, **record}

    stderr = Stderr(_log_lost)
    atexit.register(give_up_stderr)
    atexit.register(stderr.tell_lost)  # the last one is the first to be called
    structlog.configure(
        processors=[
            *([] if worker is None else [name_worker]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(codec.encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak only when something is wrong, and nothing that they say at lower levels is free of content.
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(_Named())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
