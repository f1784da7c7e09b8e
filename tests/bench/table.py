"""Tables in Markdown, and the forms of the figures in their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MISSING: Final = "-"
KINDS: Final = {"first_byte_ms": "first byte", "total_ms": "total", "delay_ms": "delay"}
"""The names of the kinds of latency."""

Rows = list[tuple[str, list[str]]]
"""The label and the cells of each row."""


def table(what: str, rows: Rows, columns: Sequence[str]) -> str:
    """Return a table; `what` stands above the labels."""
    body = [[label, *cells] for label, cells in rows]
    widths = [max(map(len, column)) for column in zip([what, *columns], *body, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |\n"
        for cells in ([what, *columns], ["-" * width for width in widths], *body)
    ]
    return "".join(lines)


def whole(value: float | None) -> str:
    """Return a whole number; a dash for None."""
    return MISSING if value is None else f"{value:,.0f}"


def p50_p99(values: dict[str, float]) -> str:
    """Return the median and the 99th percentile of a latency."""
    return f"{values['p50']:.2f} / {values['p99']:.2f}"
