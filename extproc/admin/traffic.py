"""The traffic of the status page: the busiest profiles and dialects, Aim's latency, and the unmatched paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from extproc.admin import words
from extproc.telemetry.snapshot import Ended, Minute, Snapshot, UnmatchedPath, added_by_hook, quantile

BUSIEST = 8
"""The most rows of a table of the busiest."""

_UNREAD = "unmatched"
"""The outcome of exchanges that were not inspected."""


@dataclass(frozen=True, slots=True)
class BusyRow:
    """How the exchanges of a profile or a dialect ended: numbers, and their share of all exchanges, as text."""

    name: str
    exchanges: str
    share: str
    blocked: str
    redacted: str
    unread: str


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """How long Aim took for a hook: the number of detections and three quantiles, as text."""

    hook: str
    count: str
    median: str
    high: str
    highest: str


def busiest_profiles(snapshot: Snapshot) -> list[BusyRow]:
    """Return the profiles with the most exchanges; the profile of a refused stream may be empty."""
    return _busiest((each.profile, each) for each in snapshot.ended)


def busiest_dialects(snapshot: Snapshot) -> list[BusyRow]:
    """Return the dialects with the most exchanges; that of an exchange on an unmatched path is empty."""
    return _busiest((each.dialect, each) for each in snapshot.ended)


def _busiest(named: Iterable[tuple[str, Ended]]) -> list[BusyRow]:
    outcomes: dict[str, Counter[str]] = {}
    for name, ended in named:
        outcomes.setdefault(name, Counter())[ended.outcome] += ended.count
    total = sum(counts.total() for counts in outcomes.values())
    most_first = sorted(outcomes.items(), key=lambda item: -item[1].total())
    return [
        BusyRow(
            name=name,
            exchanges=f"{counts.total():,}",
            share=words.share(counts.total(), total),
            blocked=f"{counts['blocked']:,}",
            redacted=f"{counts['redacted']:,}",
            unread=f"{counts[_UNREAD]:,}",
        )
        for name, counts in most_first[:BUSIEST]
    ]


_HOOKS = (
    ("pre_call", "pre_call"),
    ("moderation", "moderation"),
    ("output", "output, whole answers"),
    ("stream", "output, whole streams"),
)


def latencies(minutes: Sequence[Minute]) -> Iterator[LatencyRow]:
    """Yield how long Aim took in the last minutes, for each hook with detections."""
    by_hook = added_by_hook(minute.detections for minute in minutes)
    for hook, name in _HOOKS:
        if hook in by_hook:
            steps = by_hook[hook]
            median, high, highest = (words.seconds(quantile(steps, share)) for share in (0.5, 0.95, 0.99))
            yield LatencyRow(name, f"{steps.total():,}", median, high, highest)


def unmatched_paths(snapshot: Snapshot) -> list[UnmatchedPath]:
    """Return the paths that no dialect knows, with the most frequent first."""
    return sorted(snapshot.unmatched, key=lambda row: -row.count)
