"""What the status page shows, as plain values: those of one process, or the sum over all workers."""

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

_FINEST_SECONDS = 0.0001
_GROWTH = math.log(1.1)

_Key = TypeVar("_Key")


class Phase(StrEnum):
    """Where a serving process is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    UNREADY = "not ready"  # it serves, but Aim, which readiness asks for, cannot be reached
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Minute:
    """What happened in one minute; `number` counts minutes since the epoch.

    `outcomes` counts the exchanges that ended in it, `verdicts` is by action, `waits` counts the times that exchanges
    waited on the guard, by `step`; `failed_open` counts legs.
    """

    number: int
    outcomes: Mapping[str, int]
    verdicts: Mapping[str, int]
    waits: Mapping[int, int]
    failed_open: int


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
    """How often something failed for `reason`; `place` is the leg or the hook."""

    place: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class KeyUse:
    """Whether Aim refused a profile's key when it was last used, `at` in seconds since the epoch."""

    profile: str
    is_refused: bool
    at: float


@dataclass(frozen=True, slots=True)
class Reload:
    """The last reload of the settings; they are in force if `problems` is empty."""

    at: float
    problems: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """One process as it is now."""

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
    """The state of one or all workers at the moment `at`, in seconds since the epoch.

    `failed_open` counts legs, `failed` detections by hook, both since the workers started; `silent` is the number of
    workers that did not answer.
    """

    at: float
    workers: tuple[Worker, ...]
    minutes: tuple[Minute, ...]
    blocks: tuple[Block, ...]
    failed_open: tuple[Failure, ...]
    failed: tuple[Failure, ...]
    keys: tuple[KeyUse, ...]
    silent: int = 0


def total(parts: Sequence[Snapshot], workers: int, *, at: float) -> Snapshot:
    """Return the sum of the snapshots in `parts`, at the moment `at`; `workers` is the number of all workers."""
    by_number: dict[int, list[Minute]] = {}
    for minute in chain.from_iterable(part.minutes for part in parts):
        by_number.setdefault(minute.number, []).append(minute)
    keys: dict[str, KeyUse] = {}
    for use in chain.from_iterable(part.keys for part in parts):
        if use.profile not in keys or use.at > keys[use.profile].at:
            keys[use.profile] = use
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
        keys=tuple(keys.values()),
        silent=workers - len(parts),
    )


def added(counts: Iterable[Mapping[_Key, int]]) -> Counter[_Key]:
    """Return the sum of `counts`, key by key."""
    summed: Counter[_Key] = Counter()
    for each in counts:
        summed.update(each)
    return summed


def failures(counts: Mapping[tuple[str, str], int]) -> tuple[Failure, ...]:
    """Return counts by place and reason as failures."""
    return tuple(Failure(place, reason, count) for (place, reason), count in counts.items())


def _added_failures(parts: Iterable[Sequence[Failure]]) -> tuple[Failure, ...]:
    counts: Counter[tuple[str, str]] = Counter()
    for failure in chain.from_iterable(parts):
        counts[failure.place, failure.reason] += failure.count
    return failures(counts)


def step(seconds: float) -> int:
    """Return the step of a time on a scale that grows by a tenth each, from 0 for 0.1 ms."""
    return max(0, math.ceil(math.log(max(seconds, _FINEST_SECONDS) / _FINEST_SECONDS) / _GROWTH))


def quantile(waits: Mapping[int, int], share: float) -> float:
    """Return the time, in seconds, that `share` of the `waits` did not exceed; 0 without waits."""
    due = share * sum(waits.values())
    for number, count in sorted(waits.items()):
        due -= count
        if due <= 0 and count:
            return _FINEST_SECONDS * math.exp(_GROWTH * number)
    return 0.0
