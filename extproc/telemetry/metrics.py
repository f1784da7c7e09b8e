"""The metrics of one process, and an access record for each exchange, without content.

No label has a value from a client: profiles come from the settings, dialects from the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from extproc.core.commands import ReportChunks, ReportFailOpen, ReportVerdict
from extproc.core.errors import Reason
from extproc.core.verdict import Failed
from extproc.core.vocabulary import Hook, Leg
from extproc.telemetry.activity import Activity
from extproc.telemetry.audit import AuditLog
from extproc.telemetry.logs import log_exchange
from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.registry import make_registry

if TYPE_CHECKING:
    from extproc.config.settings import Settings
    from extproc.telemetry.tracing import Tracing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_DETECTIONS = (1, 2, 3, 4, 6, 8, 16, 32, 64)

_Metric = TypeVar("_Metric", Counter, Histogram)

_log = structlog.get_logger()


class Telemetry:
    """The metrics of one process, as docs/operations.md lists them."""

    def __init__(self) -> None:
        """Register every metric in a new registry."""
        self.activity = Activity()
        self.registry = registry = make_registry()
        self._children: dict[tuple[object, ...], Counter | Histogram] = {}
        self._exchanges = Counter(
            "extproc_exchanges", "Exchanges, by outcome", ("profile", "dialect", "outcome"), registry=registry
        )
        self._verdicts = Counter(
            "extproc_verdicts", "Verdicts of Aim", ("profile", "leg", "hook", "action"), registry=registry
        )
        self._detection_seconds = Histogram(
            "extproc_detection_seconds", "Time that Aim took", ("hook",), buckets=_SECONDS, registry=registry
        )
        self._detection_errors = Counter(
            "extproc_detection_errors",
            "Detections and sessions without a verdict",
            ("hook", "reason"),
            registry=registry,
        )
        self._detection_bytes = Counter(
            "extproc_detection_bytes",
            "Bytes of bodies and chunks sent to Aim, retries included",
            ("hook",),
            registry=registry,
        )
        self._detections = Histogram(
            "extproc_detections_per_exchange",
            "Detections of an exchange that needed any",
            buckets=_DETECTIONS,
            registry=registry,
        )
        self._fail_open = Counter(
            "extproc_fail_open", "Legs that were released without a verdict", ("leg", "reason"), registry=registry
        )
        self._added_latency = Histogram(
            "extproc_added_latency_seconds",
            "Time that an exchange waited for the guard",
            ("leg",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.streams = _gauge("extproc_streams", "Exchanges that are under way", registry)
        self.sessions = _gauge("extproc_sessions", "Sessions with Aim that are open or opening", registry)
        self.held_bytes = _gauge("extproc_held_bytes", "Bytes that are held for exchanges", registry)
        self._chunks = Counter(
            "extproc_stream_chunks", "Texts of event streams, by result", ("result",), registry=registry
        )
        self._audit_errors = Counter(
            "extproc_audit_errors", "Lines of the audit log that could not be written", registry=registry
        )
        # An alert on an increase misses the first value of a new series, so these series exist from the start.
        for reason in Reason:
            for leg in Leg:
                self._child(self._fail_open, leg, reason)
            for hook in Hook:
                self._child(self._detection_errors, hook, reason)
        for hook in Hook:
            self._child(self._detection_bytes, hook)
        self.audit: AuditLog | None = None
        self.tracing: Tracing | None = None

    def keep_audit_log(self, settings: Settings) -> None:
        """Apply `settings.audit`."""
        self.use_audit_log(self.new_audit_log(settings))

    def new_audit_log(self, settings: Settings) -> AuditLog | None:
        """Return the audit log that `settings` ask for. Any thread may call this, as it may have to wait for files."""
        return AuditLog(settings, self._audit_errors.inc) if settings.audit.file else None

    def use_audit_log(self, audit: AuditLog | None) -> None:
        """Write to `audit` from now on, and close the current audit log."""
        if self.audit is not None:
            self.audit.close(audit)
        self.audit = audit

    def _child(self, metric: _Metric, *labels: str) -> _Metric:
        """Return a metric's child from a cache, because the library's lookup is slow."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child  # type: ignore[return-value]

    def report(self, record: ExchangeRecord, command: ReportVerdict | ReportFailOpen | ReportChunks) -> None:
        """Count a verdict, a failure or chunks."""
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

    def detected(self, hook: Hook, seconds: float, *, is_stream: bool = False) -> None:
        """Record the time that Aim took for a detection or, if `is_stream`, for a whole stream."""
        self._child(self._detection_seconds, hook).observe(seconds)
        self.activity.detected("stream" if is_stream else hook, seconds)

    def sent(self, hook: Hook, size: int) -> None:
        """Count bytes that are sent to Aim."""
        self._child(self._detection_bytes, hook).inc(size)

    def waited(self, leg: Leg, seconds: float) -> None:
        """Record the time that a leg waited for the guard."""
        self._child(self._added_latency, leg).observe(seconds)
        self.activity.waited(seconds)

    def finished(self, record: ExchangeRecord, seconds: float, detections: int) -> None:
        """Count an exchange, with its number of `detections`, and write its access record."""
        if detections:
            self._detections.observe(detections)
        self._child(self._exchanges, record.profile, record.dialect, record.outcome).inc()
        self.activity.finished(record)
        ended = {"outcome": record.outcome, "code": record.code, "reason": record.reason, "ms": round(seconds * 1000)}
        log_exchange({**ended, **record.as_fields()})


def _gauge(name: str, documentation: str, registry: CollectorRegistry) -> Gauge:
    """Return a gauge. With several workers, its value is the sum over the live ones."""
    return Gauge(name, documentation, registry=registry, multiprocess_mode="livesum")


def add_process(registry: CollectorRegistry, is_ready: Callable[[], bool], settings: Callable[[], Settings]) -> None:
    """Add to `registry` the metrics of the process: readiness, limits, CPU, memory and files."""
    ProcessCollector(registry=registry)
    workers = settings().workers  # of the running process: a changed number needs a restart
    for name, documentation, value in (
        ("extproc_ready", "1 when ready, 0 while starting or draining", is_ready),
        # The limits are multiplied because the gauges beside them are sums over the workers.
        ("extproc_streams_limit", "limits.streams", lambda: settings().limits.streams * workers),
        (
            "extproc_held_bytes_limit",
            "limits.total_held_bytes",
            lambda: settings().limits.total_held_bytes * workers,
        ),
    ):
        Gauge(name, documentation, registry=registry).set_function(value)
