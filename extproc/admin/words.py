"""Numbers and times in readable form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Sentence:
    """Text that may contain a time; `at` is in seconds since the epoch."""

    before: str
    at: float | None = None
    after: str = ""


def clock(at: float) -> str:
    """Return `at`, in seconds since the epoch, as a time of day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def timestamp(at: float) -> str:
    """Return `at`, in seconds since the epoch, in ISO 8601."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def count(number: int, noun: str) -> str:
    """Return a number with its noun; `noun` is the singular."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """Return `part` as a percentage of `whole`. A small part is not shown as zero."""
    percent = 100 * part / whole if whole else 0.0
    shown = "<\N{NO-BREAK SPACE}1" if 0 < percent < 1 else f"{percent:.0f}"
    return f"{shown}\N{NO-BREAK SPACE}%"


def duration(time: float) -> str:
    """Return `time`, in seconds, in its two largest units."""
    whole = int(time)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def seconds(time: float) -> str:
    """Return `time`, in seconds, as seconds or milliseconds."""
    milliseconds = 1000 * time
    if milliseconds >= 1000:
        return f"{time:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 or not milliseconds else f"{milliseconds:.1f} ms"


def size(number: int) -> str:
    """Return a number of bytes with a suitable unit."""
    value, units = float(number), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1024:
        value, unit = value / 1024, next(units, "TiB")
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def round_up(value: float) -> int:
    """Return the upper end of an axis for `value`: it is at least as large, and its half is a round number."""
    for top in (2, 4, 6, 8):
        if value <= top:
            return top
    power = 1
    while True:
        for leading in (10, 12, 16, 20, 24, 30, 40, 50, 60, 80):
            if value <= leading * power:
                return leading * power
        power *= 10
