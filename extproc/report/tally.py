"""Counts the lines of audit logs, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from extproc.report.line import BadLine, Ended, Other, Switched, parse

MOST_ROWS = 10_000
"""The most names that a table has. The rest of them are counted together."""

OTHERS = "(others)"
UNNAMED = "(not named)"

_MOST_NAMED = 20
_MOST_CHANGES = 1000

_FOUND = {"blocked": "blocked_by", "redacted": "redacted_by"}
"""For each outcome the policies that explain it."""


@dataclass(slots=True)
class Row:
    """Exchanges that have something in common."""

    outcomes: Counter[str] = field(default_factory=Counter)
    detections: int = 0
    detection_bytes: int = 0

    @property
    def exchanges(self) -> int:
        """The number of exchanges."""
        return self.outcomes.total()

    def add(self, ended: Ended) -> None:
        """Count an exchange."""
        self.outcomes[ended.outcome] += 1
        self.detections += ended.detections
        self.detection_bytes += ended.detection_bytes


@dataclass(slots=True)
class Mode:
    """All exchanges of dry runs, or all that were enforced."""

    total: Row = field(default_factory=Row)
    profiles: dict[str, Row] = field(default_factory=dict)
    dialects: dict[str, Row] = field(default_factory=dict)
    hours: dict[str, Row] = field(default_factory=dict)
    policies: dict[str, Counter[str]] = field(default_factory=dict)
    """for each policy how many exchanges it blocked, redacted or reported, under `blocked_by` and so on"""

    def add(self, ended: Ended) -> None:
        """Count an exchange."""
        self.total.add(ended)
        for rows, name in (
            (self.profiles, ended.profile),
            (self.dialects, ended.dialect),
            (self.hours, ended.time.strftime("%Y-%m-%dT%H:00Z")),
        ):
            rows.setdefault(_within(rows, name), Row()).add(ended)
        for found, named in ended.policies.items():
            for policy in dict.fromkeys(named):
                self._name(policy, found)
        explained = _FOUND.get(ended.outcome)
        if explained is not None and not ended.policies[explained]:
            self._name(UNNAMED, explained)

    def _name(self, policy: str, found: str) -> None:
        self.policies.setdefault(_within(self.policies, policy), Counter())[found] += 1


def _within(rows: dict[str, Row] | dict[str, Counter[str]], name: str) -> str:
    return name if name in rows or len(rows) < MOST_ROWS else OTHERS


@dataclass(slots=True)
class Tally:
    """What a report says."""

    since: datetime | None = None
    """lines before this time are not counted"""
    dry_run: Mode = field(default_factory=Mode)
    enforced: Mode = field(default_factory=Mode)
    changes: list[Switched] = field(default_factory=list)
    """the changes of `enforce`, up to a limit"""
    begin: datetime | None = None
    end: datetime | None = None
    lines: int = 0
    other_lines: int = 0
    bad_lines: int = 0
    named_bad_lines: list[tuple[str, int, str]] = field(default_factory=list)
    """file, number of the line and problem of the first bad lines"""

    def add(self, file: str, number: int, line: bytes | str) -> None:
        """Count line `number` of `file`, or a problem with it."""
        self.lines += 1
        try:
            if isinstance(line, str):
                raise BadLine(line)
            said = parse(line)
        except BadLine as error:
            self.bad_lines += 1
            if len(self.named_bad_lines) < _MOST_NAMED:
                self.named_bad_lines.append((file, number, str(error)))
            return
        if isinstance(said, Other):
            self.other_lines += not said.is_audit
        elif self.since is None or said.time >= self.since:
            self.begin = said.time if self.begin is None else min(self.begin, said.time)
            self.end = said.time if self.end is None else max(self.end, said.time)
            if isinstance(said, Ended):
                (self.dry_run if said.is_dry_run else self.enforced).add(said)
            elif len(self.changes) < _MOST_CHANGES:
                self.changes.append(said)
