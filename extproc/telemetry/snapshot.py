"""The values that the status page shows: those of one process, or the sum over all workers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import TypeVar

MINUTES = 15
"""The number of minutes kept, including the current one."""

BLOCKS = 12
"""The number of blocks kept."""

UNMATCHED = 50
"""The number of paths kept that no dialect knows."""

_FINEST_SECONDS = 0.0001
_GROWTH = math.log(1.1)

_Key = TypeVar("_Key")


class Phase(StrEnum):
    """The phases of a serving process."""

    STARTING = "starting"
    SERVING = "serving"
    UNREADY = "not ready"  # it serves, but readiness depends on Aim, and Aim cannot be reached
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Minute:
    """The events of one minute; `number` counts minutes since the epoch.

    `outcomes` counts the exchanges that ended in the minute, `verdicts` the verdicts by action, `waits` the waits of
    legs for the guard by `step`, and `failed_open` the legs that failed open. `detections` counts how long Aim took, by
    hook and `step`; whole streams have a name of their own, `stream`.
    """

    number: int
    outcomes: Mapping[str, int]
    verdicts: Mapping[str, int]
    waits: Mapping[int, int]
    failed_open: int
    detections: Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class Block:
    """One block; `at` is in seconds since the epoch."""

    at: float
    call_id: str
    profile: str
    dialect: str
    leg: str
    hook: str
    policies: tuple[str, ...]
    code: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The number of failures for `reason`; `place` is the leg, the hook, or the code of a refusal."""

    place: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The number of exchanges of a profile and dialect that ended with this outcome."""

    profile: str
    dialect: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class UnmatchedPath:
    """The number of exchanges on a path that no dialect knows, and what was done: passed, inspected or refused.

    `path` is a form that may be shown: it holds nothing that identifies a person or a thing.
    """

    method: str
    path: str
    done: str
    count: int


@dataclass(frozen=True, slots=True)
class KeyUse:
    """Whether Aim refused a profile's key at its last use; `at` is in seconds since the epoch."""

    profile: str
    is_refused: bool
    at: float


@dataclass(frozen=True, slots=True)
class Reload:
    """The last reload of the settings. They are in force if `problems` is empty."""

    at: float
    problems: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """The current state of one process."""

    number: int
    phase: Phase
    started: float
    streams: int
    sessions: int
    held_bytes: int
    is_breaker_open: bool
    is_session_breaker_open: bool
    reload: Reload | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one or all workers at the time `at`, in seconds since the epoch.

    `failed_open` counts legs, `failed` detections by hook, `refused` refusals by code, and `ended` all exchanges, since
    the workers started. `other_unmatched` counts the exchanges on paths that are not among the `unmatched`. `silent` is
    the number of workers that did not answer.
    """

    at: float
    workers: tuple[Worker, ...]
    minutes: tuple[Minute, ...]
    blocks: tuple[Block, ...]
    failed_open: tuple[Failure, ...]
    failed: tuple[Failure, ...]
    refused: tuple[Failure, ...]
    ended: tuple[Ended, ...]
    unmatched: tuple[UnmatchedPath, ...]
    other_unmatched: int
    keys: tuple[KeyUse, ...]
    silent: int = 0


def total(parts: Sequence[Snapshot], workers: int, *, at: float) -> Snapshot:
    """Return the sum of the snapshots in `parts` at the time `at`; `workers` is the number of all workers."""
    by_number: dict[int, list[Minute]] = {}
    for minute in chain.from_iterable(part.minutes for part in parts):
        by_number.setdefault(minute.number, []).append(minute)
    keys: dict[str, KeyUse] = {}
    for use in chain.from_iterable(part.keys for part in parts):
        if use.profile not in keys or use.at > keys[use.profile].at:
            keys[use.profile] = use
    paths = added({(each.method, each.path, each.done): each.count for each in part.unmatched} for part in parts)
    shown = paths.most_common(UNMATCHED)
    return Snapshot(
        at=at,
        workers=tuple(sorted(chain.from_iterable(part.workers for part in parts), key=lambda worker: worker.number)),
        minutes=tuple(
            Minute(
                number,
                added(minute.outcomes for minute in same),
                added(minute.verdicts for minute in same),
                added(minute.waits for minute in same),
                sum(minute.failed_open for minute in same),
                added_by_hook(minute.detections for minute in same),
            )
            for number, same in sorted(by_number.items())
        ),
        blocks=tuple(
            sorted(chain.from_iterable(part.blocks for part in parts), key=lambda block: block.at, reverse=True)[
                :BLOCKS
            ]
        ),
        failed_open=_added_failures(part.failed_open for part in parts),
        failed=_added_failures(part.failed for part in parts),
        refused=_added_failures(part.refused for part in parts),
        ended=endings(
            added({(each.profile, each.dialect, each.outcome): each.count for each in part.ended} for part in parts)
        ),
        unmatched=tuple(UnmatchedPath(*key, count) for key, count in shown),
        other_unmatched=sum(part.other_unmatched for part in parts) + paths.total() - sum(count for _, count in shown),
        keys=tuple(keys.values()),
        silent=workers - len(parts),
    )


def added(counts: Iterable[Mapping[_Key, int]]) -> Counter[_Key]:
    """Return the sum of `counts`, key by key."""
    summed: Counter[_Key] = Counter()
    for each in counts:
        summed.update(each)
    return summed


def added_by_hook(parts: Iterable[Mapping[str, Mapping[int, int]]]) -> dict[str, Counter[int]]:
    """Return the sum of counts by hook and step."""
    summed: dict[str, Counter[int]] = {}
    for part in parts:
        for hook, steps in part.items():
            summed.setdefault(hook, Counter()).update(steps)
    return summed


def endings(counts: Mapping[tuple[str, str, str], int]) -> tuple[Ended, ...]:
    """Return the ended exchanges for counts by profile, dialect and outcome."""
    return tuple(Ended(*key, count) for key, count in counts.items())


def failures(counts: Mapping[tuple[str, str], int]) -> tuple[Failure, ...]:
    """Return the failures for counts by place and reason."""
    return tuple(Failure(place, reason, count) for (place, reason), count in counts.items())


def _added_failures(parts: Iterable[Sequence[Failure]]) -> tuple[Failure, ...]:
    return failures(added({(each.place, each.reason): each.count for each in part} for part in parts))


def step(seconds: float) -> int:
    """Return the step of a time on a scale that begins at 0 for 0.1 ms. Each step is a tenth longer than the last."""
    return max(0, math.ceil(math.log(max(seconds, _FINEST_SECONDS) / _FINEST_SECONDS) / _GROWTH))


def quantile(waits: Mapping[int, int], share: float) -> float:
    """Return the time, in seconds, that `share` of the `waits` did not exceed; 0 if there are no waits."""
    due = share * sum(waits.values())
    for number, count in sorted(waits.items()):
        due -= count
        if due <= 0 and count:
            return _FINEST_SECONDS * math.exp(_GROWTH * number)
    return 0.0
