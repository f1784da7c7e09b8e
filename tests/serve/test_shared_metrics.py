"""The sum of the metrics of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from extproc.serve.shared_metrics import FOLDER_VARIABLE, SharedMetrics

WORKER = """
from prometheus_client import Counter, Gauge, Histogram
Counter("asked", "Questions", ["leg"]).labels("request").inc(3)
Gauge("live", "Streams", multiprocess_mode="livesum").set(2)
Histogram("seconds", "Time", buckets=[1, 2]).observe(1.5)
"""


def run_worker(folder: Path) -> int:
    """Count in a process of its own, which ends; return its id."""
    process = subprocess.Popen([sys.executable, "-c", WORKER], env={**os.environ, FOLDER_VARIABLE: str(folder)})
    assert process.wait(60) == 0
    return process.pid


def samples(registry: CollectorRegistry) -> dict[str, float]:
    text = generate_latest(registry).decode()
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(times: int, live: int) -> dict[str, float]:
    sums = {"asked_totalrequest": 3, "seconds_sum": 1.5, "seconds_count": 1}
    buckets = {"seconds_bucket1.0": 0, "seconds_bucket2.0": 1, "seconds_bucket+Inf": 1}
    gauges = {"live": 2 * live} if live else {}
    return {name: times * value for name, value in (sums | buckets).items()} | gauges


def test_processes_are_added_up_and_ended_ones_keep_their_counts(tmp_path: Path) -> None:
    metrics, registry = SharedMetrics(str(tmp_path)), CollectorRegistry()
    registry.register(metrics)
    assert samples(registry) == {}
    pids = [run_worker(tmp_path) for _ in range(3)]
    assert samples(registry) == counted(3, live=3)
    for left, pid in zip((2, 1, 0), pids, strict=True):
        metrics.process_ended(pid)
        assert samples(registry) == counted(3, live=left)
    assert os.listdir(tmp_path) == []
    run_worker(tmp_path)
    assert samples(registry) == counted(4, live=1)


def test_empty_file_of_a_starting_worker_counts_nothing(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(SharedMetrics(str(tmp_path)))
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "counter_2.db").write_bytes(bytes(65536))
    run_worker(tmp_path)
    assert samples(registry) == counted(1, live=1)
