"""What operators see of the traffic: metrics, and one access record for each exchange. No content, ever.

No label takes a value from a client: profiles and dialects are named in the settings and the code.
"""

from __future__ import annotations

import atexit
import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, values

from extproc.core.commands import ReportChunks, ReportFailOpen, ReportVerdict
from extproc.core.content import json_codec as codec
from extproc.core.errors import Reason
from extproc.core.verdict import Failed
from extproc.core.vocabulary import Hook, Leg
from extproc.telemetry.activity import Activity
from extproc.telemetry.audit import AuditLog
from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.stdio import Stderr, give_up_stderr

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

    from extproc.config.settings import Settings
    from extproc.telemetry.tracing import Tracing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

SHARED_VALUES = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which workers share the values of their metrics."""

_Metric = TypeVar("_Metric", Counter, Histogram)


class Telemetry:
    """The metrics of one process, as docs/operations.md lists them."""

    def __init__(self) -> None:
        """Register every metric in a registry of its own."""
        self.activity = Activity()
        self.registry = registry = CollectorRegistry()
        self._children: dict[tuple[object, ...], Counter | Histogram] = {}
        self._exchanges = Counter(
            "extproc_exchanges", "Exchanges, by how they ended", ("profile", "dialect", "outcome"), registry=registry
        )
        self._verdicts = Counter(
            "extproc_verdicts", "Verdicts of Aim", ("profile", "leg", "hook", "action"), registry=registry
        )
        self._detection_seconds = Histogram(
            "extproc_detection_seconds", "Time that Aim took", ("hook",), buckets=_SECONDS, registry=registry
        )
        self._detection_errors = Counter(
            "extproc_detection_errors", "Analyses and sessions without a verdict", ("hook", "reason"), registry=registry
        )
        self._fail_open = Counter(
            "extproc_fail_open", "Legs that went on without a verdict", ("leg", "reason"), registry=registry
        )
        self._added_latency = Histogram(
            "extproc_added_latency_seconds",
            "Time that an exchange waited on the guard",
            ("leg",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.streams = _gauge("extproc_streams", "Exchanges that are under way", registry)
        self.sessions = _gauge("extproc_sessions", "Sessions with Aim that are open or opening", registry)
        self.held_bytes = _gauge("extproc_held_bytes", "Bytes that wait for a verdict", registry)
        self._chunks = Counter(
            "extproc_stream_chunks", "Texts of event streams, by what became of them", ("result",), registry=registry
        )
        self._audit_errors = Counter(
            "extproc_audit_errors", "Lines of the audit log that could not be written", registry=registry
        )
        # An alert on an increase does not see a series begin: these are there from the start.
        for reason in Reason:
            for leg in Leg:
                self._child(self._fail_open, leg, reason)
            for hook in Hook:
                self._child(self._detection_errors, hook, reason)
        self.audit: AuditLog | None = None
        self.tracing: Tracing | None = None

    def keep_audit_log(self, settings: Settings) -> None:
        """Write audit lines from now on as `settings.audit` says, to a file that is opened anew."""
        if self.audit is not None:
            self.audit.close()
        self.audit = AuditLog(settings, self._audit_errors.inc) if settings.audit.file else None

    def _child(self, metric: _Metric, *labels: str) -> _Metric:
        """Return a metric's child, which the library looks up at some length."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child  # type: ignore[return-value]

    def report(self, record: ExchangeRecord, command: ReportVerdict | ReportFailOpen | ReportChunks) -> None:
        """Count what the core reports."""
        self.activity.report(record, command)
        match command:
            case ReportVerdict(leg, hook, outcomes):
                for outcome in outcomes:
                    self._child(self._verdicts, record.profile, leg, hook, outcome.action).inc()
                    if isinstance(outcome, Failed):
                        self._child(self._detection_errors, hook, outcome.reason).inc()
            case ReportFailOpen(leg, reason):
                self._child(self._fail_open, leg, reason).inc()
                _log.warning("failed_open", call_id=record.call_id, profile=record.profile, leg=leg, reason=reason)
            case ReportChunks(result, count):
                self._child(self._chunks, result).inc(count)

    def detected(self, hook: Hook, seconds: float) -> None:
        """Note how long Aim took."""
        self._child(self._detection_seconds, hook).observe(seconds)

    def waited(self, leg: Leg, seconds: float) -> None:
        """Note how long a leg waited on the guard."""
        self._child(self._added_latency, leg).observe(seconds)
        self.activity.waited(seconds)

    def finished(self, record: ExchangeRecord, seconds: float) -> None:
        """Count an exchange and write its access record."""
        self._child(self._exchanges, record.profile, record.dialect, record.outcome).inc()
        self.activity.finished(record)
        _log.info(
            "exchange",
            outcome=record.outcome,
            code=record.code,
            ms=round(seconds * 1000),
            **record.as_fields(),
        )


def _gauge(name: str, documentation: str, registry: CollectorRegistry) -> Gauge:
    """Return a gauge; over several workers it is the sum of those that live."""
    return Gauge(name, documentation, registry=registry, multiprocess_mode="livesum")


def add_process(registry: CollectorRegistry, is_ready: Callable[[], bool], settings: Callable[[], Settings]) -> None:
    """Add to `registry` what an admin port tells beside the traffic: readiness, limits, the process's own figures."""
    ProcessCollector(registry=registry)
    workers = settings().workers  # those that run: another number needs a restart
    for name, documentation, value in (
        ("extproc_ready", "1 when ready, 0 while starting or draining", is_ready),
        # The gauges that they are compared with are sums over the workers.
        ("extproc_streams_limit", "limits.streams", lambda: settings().limits.streams * workers),
        (
            "extproc_held_bytes_limit",
            "limits.total_held_bytes",
            lambda: settings().limits.total_held_bytes * workers,
        ),
    ):
        Gauge(name, documentation, registry=registry).set_function(value)


def share_values(worker: int) -> None:
    """Keep the values of every metric that is made from now on where the supervisor finds them.

    The files are named for the worker, not for its process: one that is started again counts on.
    """
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


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


_log = structlog.get_logger()
