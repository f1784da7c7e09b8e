"""The sum of the metrics of all workers, including ended processes.

Workers run in prometheus_client's multiprocess mode: each process maps its values to files in a shared folder, so that
a crash loses no count. The files are named by process id. Those of an ended process are added up and removed, so that a
worker that crashes repeatedly does not fill the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that switches prometheus_client to multiprocess mode and names the shared folder."""


class SharedMetrics(Collector):
    """Collects the metrics from the folder that the workers share."""

    def __init__(self, folder: str) -> None:
        """Read the files in `folder`."""
        self._folder = Path(folder)
        self._lock = Lock()  # a scrape and an export over OTLP may collect at the same time
        self._ended: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """Return the sum over all processes."""
        with self._lock:
            return _summed(self._ended, _merged(self._folder.glob("*.db")))

    def process_ended(self, pid: int) -> None:
        """Keep the counters of a process that has ended, and drop its gauges."""
        with self._lock:
            mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
            files = list(self._folder.glob(f"*_{pid}.db"))
            self._ended = _summed(self._ended, _merged(files))
            for file in files:
                file.unlink(missing_ok=True)


def _merged(files: Iterable[Path]) -> list[Metric]:
    # A file that a worker has just created is still empty, and the library cannot read an empty file.
    written = [str(file) for file in files if os.path.getsize(file)]
    return list(MultiProcessCollector.merge(written))  # type: ignore[no-untyped-call]


def _summed(*parts: list[Metric]) -> list[Metric]:
    """Return the metrics of all `parts`; metrics of the same name are added up sample by sample."""
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    metrics: dict[str, Metric] = {}
    for metric in (metric for part in parts for metric in part):
        metrics.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        samples = sums.setdefault(metric.name, {})
        for sample in metric.samples:
            key = (sample.name, tuple(sample.labels.items()))
            samples[key] = samples.get(key, 0.0) + sample.value
    for name, samples in sums.items():
        for (sample_name, labels), value in samples.items():
            metrics[name].add_sample(sample_name, dict(labels), value)
    return list(metrics.values())
