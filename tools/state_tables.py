"""Writes the state tables of docs/architecture.md, from the tables in extproc/core.

make docs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from extproc.core.held_answer import HELD_TABLE, HeldState
from extproc.core.request_leg import REQUEST_TABLE, RequestState
from extproc.core.response_leg import RESPONSE_TABLE, ResponseState
from extproc.core.response_stream import STREAM_TABLE, StreamState
from extproc.core.transitions import INBOUND, Table, ignore

TARGET = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
BEGIN = "<!-- made by `make docs` from the tables in extproc/core -->"
END = "<!-- end -->"


def sections() -> str:
    """Return the Markdown of every table."""
    return "\n".join(
        [
            BEGIN,
            *_section("The order of a leg's messages (`INBOUND`)", _order()),
            *_section("The request leg (`REQUEST_TABLE`)", _table(REQUEST_TABLE, RequestState)),
            *_section("The response leg (`RESPONSE_TABLE`)", _table(RESPONSE_TABLE, ResponseState)),
            *_section("An answer that is held (`HELD_TABLE`)", _table(HELD_TABLE, HeldState)),
            *_section("A streamed answer (`STREAM_TABLE`)", _table(STREAM_TABLE, StreamState)),
            "",
            END,
        ]
    )


def _section(title: str, rows: Iterable[str]) -> Iterator[str]:
    yield f"\n**{title}**\n"
    yield from rows


def _order() -> Iterator[str]:
    yield "| what has arrived | message | then |"
    yield "|---|---|---|"
    for (state, event), following in INBOUND.items():
        yield f"| {state} | `{event.__name__}` | {following} |"


def _table(table: Table, states: type[StrEnum]) -> Iterator[str]:
    yield "| state | event | what happens |"
    yield "|---|---|---|"
    for state in states:
        handled: dict[str, list[str]] = {}
        for (at, event), method in table.items():
            if at is state:
                what = "ignored" if method is ignore else (method.__doc__ or "").strip().partition("\n")[0]
                handled.setdefault(what, []).append(f"`{event.__name__}`")
        for what, events in handled.items():
            yield f"| {state} | {', '.join(events)} | {what} |"


def with_tables(page: str) -> str:
    """Return the page with its tables written anew; raise ValueError if it has no place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the lines {BEGIN} and {END}")
    return before + sections() + after


if __name__ == "__main__":
    TARGET.write_text(with_tables(TARGET.read_text()))
