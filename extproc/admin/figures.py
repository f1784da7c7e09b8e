"""The figures of the status page: current numbers, and the sums of the last minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from extproc.admin import words
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import MINUTES, Minute, Snapshot, added


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its name and a note."""

    name: str
    value: str
    beside: str


def figures(snapshot: Snapshot, settings: Settings, minutes: Sequence[Minute]) -> Iterator[Figure]:
    """Yield the figures of all workers. A limit is that of one worker, times the number of workers."""
    outcomes = added(minute.outcomes for minute in minutes)
    workers = snapshot.workers
    limits, share = settings.limits, len(workers)
    recently = f"in {MINUTES} min"
    yield Figure("Streams", f"{sum(worker.streams for worker in workers):,}", f"of {limits.streams * share:,}")
    yield Figure("Sessions", f"{sum(worker.sessions for worker in workers):,}", "with Aim")
    held = words.size(sum(worker.held_bytes for worker in workers))
    yield Figure("Held", held, f"of {words.size(limits.total_held_bytes * share)}")
    yield Figure("Exchanges", f"{outcomes.total():,}", recently)
    yield Figure("Blocked", f"{outcomes['blocked']:,}", recently)
    yield Figure("Redacted", f"{outcomes['redacted']:,}", recently)
    yield Figure("Failed open", f"{sum(minute.failed_open for minute in minutes):,}", recently)
