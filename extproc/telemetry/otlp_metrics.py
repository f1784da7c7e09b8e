"""Exports the metrics over OTLP at an interval, with the same values as a scrape."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from extproc import __version__
from extproc.core.errors import SettingsError
from extproc.telemetry.outage import Outage

_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_DEFAULT_MILLISECONDS = "60000"

_UNITS = {"_seconds": "s", "_bytes": "By"}

_CUMULATIVE = AggregationTemporality.CUMULATIVE


class MetricsExport:
    """Exports a registry in a thread of its own, until it is flushed."""

    def __init__(self, registry: CollectorRegistry, exporter: MetricExporter, resource: Resource) -> None:
        """Start the export; raises SettingsError for an invalid interval."""
        try:
            self._seconds = max(int(os.environ.get(_INTERVAL) or _DEFAULT_MILLISECONDS), 1) / 1000
        except ValueError:
            raise SettingsError([f"environment: {_INTERVAL} is no number of milliseconds"]) from None
        self._registry = registry
        self._exporter = exporter
        self._resource = resource
        self._started = time.time_ns()
        self._outage = Outage("metrics")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            families = self._registry.collect()
            scope = ScopeMetrics(
                InstrumentationScope("extproc", __version__), tuple(metrics(families, self._started)), ""
            )
            data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
            was_exported = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception:
            was_exported = False
        self._outage.note(was_exported=was_exported)

    def flush(self) -> None:
        """Export once more and end the thread. Blocks as long as the collector does."""
        self._stopping.set()
        self._thread.join()

    def close(self) -> None:
        """Drop what could not be exported."""
        self._exporter.shutdown()


def metrics(families: Iterable[Family], started: int) -> Iterator[Metric]:
    """Yield the families of a scrape in OpenTelemetry's form; `started` is in nanoseconds since the epoch."""
    now = time.time_ns()
    for family in families:
        unit = next((unit for suffix, unit in _UNITS.items() if family.name.endswith(suffix)), "1")
        data: Sum | Gauge | Histogram
        match family.type:
            case "counter":
                points = _numbers(family, f"{family.name}_total", started, now)
                data = Sum(points, _CUMULATIVE, is_monotonic=True)
            case "histogram":
                data = Histogram(_histograms(family, started, now), _CUMULATIVE)
            case _:
                data = Gauge(_numbers(family, family.name, started, now))
        if data.data_points:
            yield Metric(family.name, family.documentation, unit, data)


def _numbers(family: Family, name: str, started: int, now: int) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(sample.labels, started, now, sample.value) for sample in family.samples if sample.name == name
    ]


def _histograms(family: Family, started: int, now: int) -> list[HistogramDataPoint]:
    """Return a point for each set of labels. Prometheus counts cumulatively, OpenTelemetry bucket by bucket."""
    by_labels: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in family.samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        by_labels.setdefault(labels, []).append(sample)
    points = []
    for labels, samples in by_labels.items():
        buckets = sorted((float(sample.labels["le"]), sample.value) for sample in samples if "le" in sample.labels)
        counts = [int(count) for _, count in buckets]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=started,
                time_unix_nano=now,
                count=counts[-1],
                sum=next(sample.value for sample in samples if sample.name == f"{family.name}_sum"),
                bucket_counts=[count - before for before, count in zip([0, *counts], counts, strict=False)],
                explicit_bounds=[bound for bound, _ in buckets[:-1]],
                min=None,  # type: ignore[arg-type]  # not known, and optional on the wire
                max=None,  # type: ignore[arg-type]
            )
        )
    return points
