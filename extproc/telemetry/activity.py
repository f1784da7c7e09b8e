"""The recent activity of a process, for the status page. It is in memory, bounded and without content."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from extproc.core.commands import ReportChunks, ReportFailOpen, ReportVerdict
from extproc.core.errors import Reason
from extproc.core.refusal import BLOCKED_CODE
from extproc.core.verdict import Block as BlockVerdict
from extproc.core.verdict import Failed, Outcome
from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.snapshot import (
    BLOCKS,
    MINUTES,
    Block,
    KeyUse,
    Minute,
    Reload,
    Snapshot,
    Worker,
    endings,
    failures,
    step,
)
from extproc.telemetry.unmatched_paths import UnmatchedPaths

_POLICIES = 8
_POLICY_CHARACTERS = 80
"""Bounds on the number of a block's policies and on the length of their names: Aim chooses both."""


@dataclass(slots=True)
class _Counts:
    """The counts of one minute."""

    outcomes: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    waits: Counter[int] = field(default_factory=Counter)
    failed_open: int = 0
    detections: dict[str, Counter[int]] = field(default_factory=dict)


class Activity:
    """The counts of each minute, the last blocks, and the totals."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Count minutes by `clock`, in seconds since the epoch, so that the minutes of several workers agree."""
        self._clock = clock
        self._minutes: dict[int, _Counts] = {}
        self._number: int | None = None
        self._counts = _Counts()  # those of the minute that was counted last
        self._blocks: deque[Block] = deque(maxlen=BLOCKS)
        self._failed_open: Counter[tuple[str, str]] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._keys: dict[str, tuple[bool, float]] = {}
        self.unmatched = UnmatchedPaths()
        self.started = clock()
        self.reload: Reload | None = None

    def report(self, record: ExchangeRecord, command: ReportVerdict | ReportFailOpen | ReportChunks) -> None:
        """Count what the core reports."""
        match command:
            case ReportVerdict():
                for outcome in command.outcomes:
                    self._note(record, command, outcome)
            case ReportFailOpen(leg, reason):
                self._at(self._clock()).failed_open += 1
                self._failed_open[leg, reason] += 1
            case ReportChunks():
                pass

    def _note(self, record: ExchangeRecord, command: ReportVerdict, outcome: Outcome) -> None:
        now = self._clock()
        self._at(now).verdicts[outcome.action] += 1
        reason = outcome.reason if isinstance(outcome, Failed) else None
        if reason is None or reason is Reason.KEY_REFUSED:
            self._keys[record.profile] = (reason is not None, now)
        if reason is not None:
            self._failed[command.hook, reason] += 1
        if isinstance(outcome, BlockVerdict):
            self._blocks.append(
                Block(
                    now,
                    record.call_id,
                    record.profile,
                    record.dialect,
                    command.leg,
                    command.hook,
                    tuple(policy[:_POLICY_CHARACTERS] for policy in outcome.policies[:_POLICIES]),
                    BLOCKED_CODE,
                )
            )

    def waited(self, seconds: float) -> None:
        """Record how long a leg waited on the guard."""
        self._at(self._clock()).waits[step(seconds)] += 1

    def detected(self, name: str, seconds: float) -> None:
        """Record how long Aim took; `name` is the hook, or `stream` for a whole stream."""
        detections = self._at(self._clock()).detections
        steps = detections.get(name)
        if steps is None:
            steps = detections[name] = Counter()
        steps[step(seconds)] += 1

    def finished(self, record: ExchangeRecord) -> None:
        """Count an exchange that ended."""
        outcome = record.outcome
        self._at(self._clock()).outcomes[outcome] += 1
        self._ended[record.profile, record.dialect, outcome] += 1
        if outcome == "refused" or (outcome == "aborted" and record.code):
            self._refused[record.code, record.reason] += 1

    def reloaded(self, problems: Sequence[str] = (), restart_needed: Sequence[str] = ()) -> None:
        """Record a reload: refused with `problems`, or in force except for the settings in `restart_needed`."""
        # A problem may quote a path that is not UTF-8, and the snapshot is JSON.
        encodable = tuple(problem.encode(errors="backslashreplace").decode() for problem in problems)
        self.reload = Reload(self._clock(), encodable, tuple(restart_needed))

    def snapshot(self, worker: Worker) -> Snapshot:
        """Return a snapshot for `worker`. The latest block comes first."""
        now = self._clock()
        self._at(now)
        return Snapshot(
            at=now,
            workers=(worker,),
            minutes=tuple(
                Minute(
                    number,
                    Counter(counts.outcomes),
                    Counter(counts.verdicts),
                    Counter(counts.waits),
                    counts.failed_open,
                    {name: Counter(steps) for name, steps in counts.detections.items()},
                )
                for number, counts in self._minutes.items()
                if _minute(now) - MINUTES < number <= _minute(now)
            ),
            blocks=tuple(reversed(self._blocks)),
            failed_open=failures(self._failed_open),
            failed=failures(self._failed),
            refused=failures(self._refused),
            ended=endings(self._ended),
            unmatched=self.unmatched.rows(),
            other_unmatched=self.unmatched.others,
            keys=tuple(KeyUse(profile, *use) for profile, use in self._keys.items()),
        )

    def _at(self, now: float) -> _Counts:
        number = int(now // 60)
        if number != self._number:
            counts = self._minutes.get(number)
            if counts is None:
                counts = self._minutes[number] = _Counts()
                # Remove by order, not by number: the minutes then stay bounded even if the clock is set back.
                while len(self._minutes) > MINUTES:
                    del self._minutes[next(iter(self._minutes))]
            self._number, self._counts = number, counts
        return self._counts


def _minute(now: float) -> int:
    return int(now // 60)
