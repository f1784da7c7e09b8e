"""The recent activity for the status page: minutes, blocks and totals, bounded, and summed over workers."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.commands import ReportChunks, ReportFailOpen, ReportVerdict
from extproc.core.errors import Reason
from extproc.core.verdict import Allow, Block, Failed, Outcome
from extproc.core.vocabulary import Hook, Leg
from extproc.telemetry.activity import Activity
from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.snapshot import (
    BLOCKS,
    MINUTES,
    UNMATCHED,
    Ended,
    Failure,
    Phase,
    Snapshot,
    UnmatchedPath,
    Worker,
    quantile,
    step,
    total,
)

NOON = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def activity(clock: Clock) -> Activity:
    return Activity(clock)


def worker(number: int = 0, **more: Any) -> Worker:
    fields = {"phase": Phase.SERVING, "started": NOON, "streams": 2, "sessions": 1, "held_bytes": 10}
    return Worker(number, **{**fields, "is_breaker_open": False, "is_session_breaker_open": False, **more})


def verdict(activity: Activity, outcome: Outcome = Allow(), profile: str = "default") -> None:  # noqa: B008
    activity.report(ExchangeRecord("call", profile), ReportVerdict(Leg.REQUEST, Hook.PRE_CALL, (outcome,)))


def block(activity: Activity, call_id: str, *policies: str) -> None:
    record = ExchangeRecord(call_id, "default", "openai-chat")
    activity.report(record, ReportVerdict(Leg.REQUEST, Hook.PRE_CALL, (Block("no", policies),), 7))


def taken(activity: Activity) -> Snapshot:
    return activity.snapshot(worker())


class TestMinutes:
    def test_each_minute_counts_its_own_events(self, activity: Activity, clock: Clock) -> None:
        verdict(activity)
        verdict(activity, Failed(Reason.TIMEOUT))
        clock.now += 60
        verdict(activity)
        activity.waited(0.02)
        activity.detected("pre_call", 0.01)
        activity.detected("pre_call", 0.01)
        activity.detected("stream", 4)
        activity.report(ExchangeRecord("call", "default"), ReportFailOpen(Leg.REQUEST, Reason.TIMEOUT))
        activity.report(ExchangeRecord("call", "default"), ReportChunks("verified", 3))
        activity.finished(ExchangeRecord("call", "default", outcome="failed_open"))
        first, second = taken(activity).minutes
        assert (first.number, second.number) == (NOON // 60, NOON // 60 + 1)
        assert (first.verdicts, first.outcomes, first.waits) == ({"allow": 1, "error": 1}, {}, {})
        assert (second.verdicts, second.outcomes, second.failed_open) == ({"allow": 1}, {"failed_open": 1}, 1)
        assert list(second.waits.values()) == [1]
        assert first.detections == {}
        assert second.detections == {"pre_call": {step(0.01): 2}, "stream": {step(4): 1}}

    def test_only_the_last_minutes_are_kept(self, activity: Activity, clock: Clock) -> None:
        for _ in range(3 * MINUTES):
            verdict(activity)
            clock.now += 60
        minutes = taken(activity).minutes
        assert [minute.number for minute in minutes] == [clock.now // 60 - back for back in reversed(range(MINUTES))]
        assert minutes[-1].verdicts == {}

    def test_old_minute_is_not_shown_after_a_pause(self, activity: Activity, clock: Clock) -> None:
        verdict(activity)
        clock.now += 60 * MINUTES
        assert [minute.verdicts for minute in taken(activity).minutes] == [{}]

    def test_minutes_stay_bounded_when_the_clock_is_set_back(self, activity: Activity, clock: Clock) -> None:
        for _ in range(100):
            verdict(activity)
            clock.now -= 60
        numbers = [minute.number for minute in taken(activity).minutes]
        assert numbers == [clock.now // 60]


class TestBlocks:
    def test_last_blocks_are_kept_the_latest_first(self, activity: Activity) -> None:
        for number in range(BLOCKS + 5):
            block(activity, str(number), "PII")
        blocks = taken(activity).blocks
        assert [each.call_id for each in blocks] == [str(number) for number in reversed(range(5, BLOCKS + 5))]
        first = blocks[0]
        assert (first.profile, first.dialect, first.leg, first.hook) == (
            "default",
            "openai-chat",
            "request",
            "pre_call",
        )
        assert (first.at, first.policies, first.code) == (NOON, ("PII",), "content_policy_violation")

    def test_policies_are_bounded(self, activity: Activity) -> None:
        block(activity, "1", *("x" * 100_000 for _ in range(1000)))
        (kept,) = taken(activity).blocks
        assert len("".join(kept.policies)) < 1000


class TestTotals:
    def test_failures_are_counted_by_their_reason(self, activity: Activity, clock: Clock) -> None:
        record = ExchangeRecord("call", "default")
        for _ in range(2):
            verdict(activity, Failed(Reason.TIMEOUT))
            activity.report(record, ReportFailOpen(Leg.REQUEST, Reason.TIMEOUT))
            clock.now += 3600
        assert taken(activity).failed == (Failure("pre_call", "timeout", 2),)
        assert taken(activity).failed_open == (Failure("request", "timeout", 2),)

    def test_refusals_are_counted_by_code_and_reason(self, activity: Activity) -> None:
        for outcome, code, reason in (
            ("refused", "guardrail_unavailable", "timeout"),
            ("refused", "guardrail_unavailable", "timeout"),
            ("refused", "path_not_allowed", ""),
            ("aborted", "guardrail_misconfigured", ""),
            ("aborted", "", ""),
            ("blocked", "content_policy_violation", ""),
            ("failed_open", "timeout", "timeout"),
            ("dry_run", "refused", "timeout"),
        ):
            activity.finished(ExchangeRecord("call", "default", "", outcome, code, reason))
        assert taken(activity).refused == (
            Failure("guardrail_unavailable", "timeout", 2),
            Failure("path_not_allowed", "", 1),
            Failure("guardrail_misconfigured", "", 1),
        )

    def test_exchanges_are_counted_by_profile_dialect_and_outcome(self, activity: Activity, clock: Clock) -> None:
        for outcome in ("allowed", "allowed", "blocked"):
            activity.finished(ExchangeRecord("call", "default", "gemini", outcome))
            clock.now += 3600
        assert taken(activity).ended == (
            Ended("default", "gemini", "allowed", 2),
            Ended("default", "gemini", "blocked", 1),
        )

    def test_key_shows_what_aim_said_last(self, activity: Activity, clock: Clock) -> None:
        verdict(activity, Failed(Reason.KEY_REFUSED), profile="a")
        verdict(activity, profile="b")
        clock.now += 1
        verdict(activity, Failed(Reason.TIMEOUT), profile="a")
        assert {use.profile: (use.is_refused, use.at) for use in taken(activity).keys} == {
            "a": (True, NOON),
            "b": (False, NOON),
        }
        verdict(activity, profile="a")
        assert not any(use.is_refused for use in taken(activity).keys)

    def test_last_reload_is_remembered(self, activity: Activity) -> None:
        assert activity.reload is None
        activity.reloaded(problems=["colour: unknown setting"])
        assert activity.reload is not None
        assert activity.reload.problems == ("colour: unknown setting",)
        activity.reloaded(restart_needed=["workers"])
        assert (activity.reload.problems, activity.reload.restart_needed) == ((), ("workers",))


class TestSum:
    def test_workers_add_up(self) -> None:
        clocks = [Clock(), Clock()]
        parts = [Activity(clock) for clock in clocks]
        clocks[1].now += 61
        for part, count in zip(parts, (2, 3), strict=True):
            for number in range(count):
                verdict(part)
                block(part, f"{count}-{number}")
                part.waited(0.01)
        clocks[0].now += 61
        verdict(parts[0], Failed(Reason.KEY_REFUSED))
        snapshots = [part.snapshot(worker(number)) for number, part in enumerate(parts)]
        both = total(snapshots[::-1], 3, at=NOON + 61)
        assert (both.at, both.silent) == (NOON + 61, 1)
        assert [each.number for each in both.workers] == [0, 1]
        assert [dict(minute.verdicts) for minute in both.minutes] == [
            {"allow": 2, "block": 2},
            {"allow": 3, "block": 3, "error": 1},
        ]
        assert [sum(minute.waits.values()) for minute in both.minutes] == [2, 3]
        assert [each.call_id[0] for each in both.blocks] == ["3"] * 3 + ["2"] * 2
        assert both.failed == (Failure("pre_call", "key_refused", 1),)
        assert len(both.keys) == 1

    def test_tables_of_workers_add_up(self) -> None:
        parts = [Activity(Clock()) for _ in range(2)]
        for part in parts:
            part.detected("output", 0.2)
            part.finished(ExchangeRecord("call", "default", "gemini", "refused", "guardrail_unavailable", "timeout"))
            part.unmatched.count(ExchangeRecord("call", "default"), "GET", "/both")
        parts[1].unmatched.count(ExchangeRecord("call", "default", "generic", "allowed"), "GET", "/both")
        both = total([part.snapshot(worker()) for part in parts], 2, at=NOON)
        assert [minute.detections for minute in both.minutes] == [{"output": {step(0.2): 2}}]
        assert both.refused == (Failure("guardrail_unavailable", "timeout", 2),)
        assert both.ended == (Ended("default", "gemini", "refused", 2),)
        assert both.unmatched == (
            UnmatchedPath("GET", "/both", "passed", 2),
            UnmatchedPath("GET", "/both", "inspected", 1),
        )
        assert both.other_unmatched == 0

    def test_paths_of_many_workers_are_bounded(self) -> None:
        parts = [Activity(Clock()) for _ in range(3)]
        for number, part in enumerate(parts):
            for path in range(UNMATCHED + 4):
                part.unmatched.count(ExchangeRecord("call", "default"), "GET", f"/{number}/{path}")
            part.unmatched.count(ExchangeRecord("call", "default"), "GET", "/all")
        both = total([part.snapshot(worker()) for part in parts], 3, at=NOON)
        assert both.unmatched[0] == UnmatchedPath("GET", "/all", "passed", 3)
        assert len(both.unmatched) == UNMATCHED
        assert sum(row.count for row in both.unmatched) + both.other_unmatched == 3 * (UNMATCHED + 5)

    def test_snapshot_does_not_change(self, activity: Activity) -> None:
        snapshot = taken(activity)
        verdict(activity)
        assert snapshot.minutes[-1].verdicts == {}


class TestQuantiles:
    @pytest.mark.parametrize("seconds", [0.0001, 0.0012, 0.05, 0.9, 4.2, 299.0])
    def test_quantile_is_within_a_tenth_of_the_time(self, seconds: float) -> None:
        assert seconds <= quantile({step(seconds): 1}, 0.5) * 1.000001 <= seconds * 1.11

    def test_quantile_of_many_waits(self) -> None:
        waits = {step(0.01): 95, step(1): 5}
        assert quantile(waits, 0.5) == quantile(waits, 0.95) == pytest.approx(0.01, rel=0.1)
        assert quantile(waits, 0.96) == pytest.approx(1, rel=0.1)

    def test_quantile_of_no_waits_is_zero(self) -> None:
        assert quantile({}, 0.5) == 0

    @pytest.mark.parametrize("seconds", [-1.0, 0.0])
    def test_step_of_no_time_is_zero(self, seconds: float) -> None:
        assert step(seconds) == 0
