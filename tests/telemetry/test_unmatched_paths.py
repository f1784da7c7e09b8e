"""The table of unmatched paths: what was done there, and that no client can make the table grow."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.snapshot import UNMATCHED, UnmatchedPath
from extproc.telemetry.unmatched_paths import UnmatchedPaths


def record(dialect: str = "", outcome: str = "unmatched", code: str = "") -> ExchangeRecord:
    return ExchangeRecord("call", "default", dialect, outcome, code)


@pytest.mark.parametrize(
    ("ended", "done"),
    [
        (record(), "passed"),
        (record(outcome="aborted"), "passed"),
        (record(outcome="refused", code="path_not_allowed"), "refused"),
        (record("generic", "allowed"), "inspected"),
        (record("generic", "redacted"), "inspected"),
        (record("generic", "blocked"), "inspected"),
        (record("generic", "refused", "guardrail_unavailable"), "refused"),
        (record("generic", "failed_open", "timeout"), "passed"),
        (record("generic", "dry_run", "blocked"), "inspected"),
        (record("generic", "dry_run", "failed_open"), "passed"),
        (record("generic", "dry_run", "refused"), "passed"),
        (record("", "dry_run", "refused"), "passed"),
    ],
)
def test_row_says_what_was_done(ended: ExchangeRecord, done: str) -> None:
    table = UnmatchedPaths()
    for _ in range(2):
        table.count(ended, "POST", "/x")
    assert table.rows() == (UnmatchedPath("POST", "/x", done, 2),)


def test_exchange_whose_body_was_of_a_known_api_is_not_counted() -> None:
    table = UnmatchedPaths()
    table.count(record("mcp", "allowed"), "POST", "/x")
    assert (table.rows(), table.others) == ((), 0)


def test_frequent_path_stays_whatever_a_client_sends() -> None:
    table = UnmatchedPaths()
    for number in range(100 * UNMATCHED):
        if number % 10 == 0:
            table.count(record(), "POST", "/frequent")
        table.count(record(), "POST", f"/{number}")
    counts = {row.path: row.count for row in table.rows()}
    assert counts["/frequent"] == 10 * UNMATCHED
    assert len(counts) == UNMATCHED
    assert f"/{100 * UNMATCHED - 1}" in counts


def test_path_that_was_rarest_the_longest_makes_room() -> None:
    table = UnmatchedPaths()
    for number in range(UNMATCHED):
        table.count(record(), "POST", f"/{number}")
    table.count(record(), "POST", "/0")
    table.count(record(), "POST", "/new")
    shown = {row.path for row in table.rows()}
    assert {"/0", "/2", "/new"} < shown
    assert "/1" not in shown
    assert table.others == 1


@given(st.lists(st.integers(0, 3 * UNMATCHED), max_size=600))
def test_table_is_bounded_and_loses_no_exchange(paths: list[int]) -> None:
    table = UnmatchedPaths()
    for path in paths:
        table.count(record(), "GET", f"/{path}")
    rows = table.rows()
    assert len(rows) <= UNMATCHED
    assert sum(row.count for row in rows) + table.others == len(paths)
    seen = Counter(paths)
    assert all(row.count <= seen[int(row.path[1:])] for row in rows)
