"""Bar charts of the last minutes: the geometry of the bars, and the same numbers as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from extproc.admin import words
from extproc.telemetry.snapshot import MINUTES, Minute, Snapshot, added, quantile

_PITCH, _WIDTH = 10, 7.4
_HEIGHT = 100

_ACTIONS = (
    ("allow", "allowed"),
    ("monitor", "monitored"),
    ("anonymize", "redacted"),
    ("block", "blocked"),
    ("error", "no verdict"),
)


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of bar: its name, the CSS class of its colour, a value for each column, and their sum as text."""

    name: str
    kind: str
    values: Sequence[float]
    sum: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical axis: its upper end, and the labels of its middle and its end."""

    top: float
    middle_label: str
    top_label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in the units of the SVG."""

    kind: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with a bar for each column and series. The bars are stacked or overlap.

    `summary` is a sentence that says what the chart shows; `table` has a row of values, as text, for each column.
    """

    title: str
    summary: str
    columns: Sequence[str]
    series: Sequence[Series]
    scale: Scale
    table: Sequence[Sequence[str]]
    is_stacked: bool

    @property
    def width(self) -> int:
        """The width of the SVG."""
        return len(self.columns) * _PITCH

    @property
    def grid(self) -> tuple[float, ...]:
        """The heights of the grid lines."""
        return (0, _HEIGHT / 2, _HEIGHT)

    @property
    def bars(self) -> Iterator[Bar]:
        """The bars, column by column."""
        for position in range(len(self.columns)):
            floor = 0.0
            for each in self.series:
                value = each.values[position]
                if value <= 0:
                    continue
                height = min(value / self.scale.top * _HEIGHT, _HEIGHT - floor if self.is_stacked else _HEIGHT)
                yield Bar(
                    kind=each.kind,
                    x=f"{position * _PITCH + (_PITCH - _WIDTH) / 2:g}",
                    y=f"{_HEIGHT - floor - height:.2f}",
                    width=f"{_WIDTH:g}",
                    height=f"{height:.2f}",
                )
                floor += height if self.is_stacked else 0


def last_minutes(snapshot: Snapshot) -> list[Minute]:
    """Return the last minutes, empty ones included."""
    known = {minute.number: minute for minute in snapshot.minutes}
    last = int(snapshot.at // 60)
    return [known.get(number) or Minute(number, {}, {}, {}, 0, {}) for number in range(last - MINUTES + 1, last + 1)]


def verdicts(minutes: Sequence[Minute]) -> Chart:
    """Return the chart of the verdicts by action."""
    sums = added(minute.verdicts for minute in minutes)
    most = words.round_up(max(sum(minute.verdicts.values()) for minute in minutes))
    return Chart(
        "Verdicts",
        f"{words.count(sums.total(), 'verdict')} in {MINUTES} minutes: "
        + ", ".join(f"{sums[action]:,} {name}" for action, name in _ACTIONS)
        + ".",
        _columns(minutes),
        [
            Series(name, action, [minute.verdicts.get(action, 0) for minute in minutes], f"{sums[action]:,}")
            for action, name in _ACTIONS
        ],
        Scale(most, f"{most / 2:g}", f"{most:,}"),
        [[f"{minute.verdicts.get(action, 0):,}" for action, _ in _ACTIONS] for minute in minutes],
        is_stacked=True,
    )


def added_latency(minutes: Sequence[Minute]) -> Chart:
    """Return the chart of the median and the 95th percentile of the waits."""
    waits = added(minute.waits for minute in minutes)
    median, high = quantile(waits, 0.5), quantile(waits, 0.95)
    slowest = words.round_up(1000 * max(quantile(minute.waits, 0.95) for minute in minutes)) / 1000
    return Chart(
        "Added latency",
        f"{words.count(waits.total(), 'wait')} on the guard in {MINUTES} minutes, half of them within "
        f"{words.seconds(median)}, 95 % within {words.seconds(high)}."
        if waits
        else f"No exchange waited in {MINUTES} minutes.",
        _columns(minutes),
        [
            Series("95 %", "high", [quantile(minute.waits, 0.95) for minute in minutes], words.seconds(high)),
            Series("median", "median", [quantile(minute.waits, 0.5) for minute in minutes], words.seconds(median)),
        ],
        Scale(slowest, words.seconds(slowest / 2), words.seconds(slowest)),
        [[words.seconds(quantile(minute.waits, share)) for share in (0.95, 0.5)] for minute in minutes],
        is_stacked=False,
    )


def _columns(minutes: Sequence[Minute]) -> list[str]:
    return [*(datetime.fromtimestamp(60 * minute.number, UTC).strftime("%H:%M") for minute in minutes[:-1]), "now"]
