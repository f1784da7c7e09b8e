"""A report as JSON and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from extproc.report.tally import Mode, Row, Tally

_OUTCOMES = ("blocked", "redacted", "allowed", "refused", "failed_open", "aborted")
_FOUND = ("blocked_by", "redacted_by", "reported_by")
_WIDTH = 140
"""The width of tables that do not go to a terminal, in characters."""

_LONGEST_HOUR = len("2026-01-31T12:00Z")


def as_json(tally: Tally) -> dict[str, Any]:
    """Return the report as a JSON value."""
    return {
        "from": _stamp(tally.begin),
        "to": _stamp(tally.end),
        "lines": tally.lines,
        "other_lines": tally.other_lines,
        "bad_lines": tally.bad_lines,
        "first_bad_lines": [
            {"file": file, "line": number, "problem": problem} for file, number, problem in tally.named_bad_lines
        ],
        "enforce_changes": [
            {"time": _stamp(change.time), "profile": change.profile, "enforce": change.enforce}
            for change in sorted(tally.changes, key=lambda change: change.time)
        ],
        "dry_run": _mode(tally.dry_run),
        "enforced": _mode(tally.enforced),
    }


def _stamp(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _mode(mode: Mode) -> dict[str, Any]:
    return {
        "total": _row(mode.total),
        "profiles": {name: _row(row) for name, row in sorted(mode.profiles.items())},
        "dialects": {name: _row(row) for name, row in sorted(mode.dialects.items())},
        "hours": {name: _row(row) for name, row in sorted(mode.hours.items())},
        "policies": {
            name: {found: counts[found] for found in _FOUND} for name, counts in sorted(mode.policies.items())
        },
    }


def _row(row: Row) -> dict[str, int]:
    return {
        "exchanges": row.exchanges,
        **{outcome: row.outcomes[outcome] for outcome in _OUTCOMES},
        "detections": row.detections,
        "detection_bytes": row.detection_bytes,
    }


def show(tally: Tally) -> None:
    """Print the report as tables."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(f"lines: {tally.lines}, from {_stamp(tally.begin) or '-'} to {_stamp(tally.end) or '-'}")
    if tally.other_lines:
        console.print(f"JSON lines that are not of the audit log: {tally.other_lines}")
    if tally.bad_lines:
        console.print(f"bad lines: {tally.bad_lines}")
        for file, number, problem in tally.named_bad_lines:
            console.print(f"  {_printable(file)}:{number}: {problem}")
    for mode, title in (
        (tally.dry_run, "Dry run: what would have happened"),
        (tally.enforced, "Enforced: what happened"),
    ):
        if mode.total.exchanges:
            _show_mode(console, mode, title)
    if tally.changes:
        console.print()
    for change in sorted(tally.changes, key=lambda change: change.time):
        value = str(change.enforce).lower()
        console.print(f"{_stamp(change.time)}: enforce of {_printable(change.profile)} became {value}")


def _show_mode(console: Console, mode: Mode, title: str) -> None:
    console.print()
    console.print(title, style="bold")
    console.print()
    console.print(_policies(mode.policies))
    for name, rows in (("profile", mode.profiles), ("dialect", mode.dialects), ("hour (UTC)", mode.hours)):
        table = _table(name, "exchanges", *_OUTCOMES, "detections", "sent to Aim")
        for key, row in sorted(rows.items()):
            _add(table, key, row)
        if name == "profile":
            table.add_section()
            _add(table, "all", mode.total)
        console.print()
        console.print(table)


def _policies(policies: Mapping[str, Counter[str]]) -> Table:
    table = _table("policy", "blocked", "redacted", "reported")
    by_blocks = sorted(policies.items(), key=lambda item: (-item[1]["blocked_by"], -item[1]["redacted_by"], item[0]))
    for name, counts in by_blocks:
        table.add_row(Text(_printable(name)), *(str(counts[found]) for found in _FOUND))
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold", min_width=_LONGEST_HOUR)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    return table


def _add(table: Table, name: str, row: Row) -> None:
    counts = (row.exchanges, *(row.outcomes[outcome] for outcome in _OUTCOMES), row.detections)
    table.add_row(Text(_printable(name) or "-"), *map(str, counts), _size(row.detection_bytes))


def _size(count: int) -> str:
    """Return a number of bytes in kB or MB, rounded up."""
    unit, name = (1_000_000, "MB") if count >= 1_000_000 else (1000, "kB")
    return f"{-(-count * 10 // unit) / 10:.1f} {name}"


def _printable(text: str) -> str:
    """Return `text` without characters that would control a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
