"""Generates the tables of docs/reliability.md from the rows of the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.envoy.faults.fault import Fault, Leg
from tests.envoy.faults.matrix import GROUPS
from tests.envoy.faults.others import OTHERS

PAGE: Final = Path(__file__).parents[3] / "docs/reliability.md"

_BEGIN = "<!-- From here to the end: written by `make reliability`. -->\n"
_HEAD = ("fault", "request", "JSON answer", "stream", "reason")
_OTHERS = ("fault", "what happens")


def tables() -> str:
    """Return a table for each group, and one of the faults beside the matrix."""
    matrix = [f"### {group}\n\n{_table(_HEAD, list(_rows(rows)))}" for group, rows in GROUPS.items()]
    others = _table(_OTHERS, [(other.fault, other.outcome) for other in OTHERS])
    return "\n".join([*matrix, f"## Other faults\n\nEach has tests of its own.\n\n{others}"])


def current(page: str) -> str:
    """Return `page` with current tables."""
    text, mark, _ = page.partition(_BEGIN)
    assert mark
    return f"{text}{mark}\n{tables()}"


def _rows(faults: object) -> Iterator[tuple[str, ...]]:
    assert isinstance(faults, list)
    for fault in faults:
        reason = f"`{fault.reason}`" if fault.reason is not None else ""
        yield (fault.name, *(_cell(fault, leg) for leg in Leg), reason)


def _cell(fault: Fault, leg: Leg) -> str:
    if leg not in fault.legs:
        return ""
    closed, opened = (str(outcome) for outcome in fault.legs[leg])
    return closed if closed == opened else f"{closed} / {opened}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |") for cells in lines)
