"""Observes one exchange: counts it and, if enabled, writes its audit lines and its spans."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

import structlog

from extproc.core.commands import (
    ImmediateResponse,
    ReleaseBuffered,
    ReleaseHeaders,
    Report,
    ReportChunks,
    ReportDialect,
    ReportFailOpen,
    ReportGivenUp,
    ReportOutcome,
    ReportUnmatched,
    ReportVerdict,
    ToEnvoy,
)
from extproc.core.events import BodyReceived
from extproc.core.identity import Identity
from extproc.core.verdict import MAX_POLICIES, Failed, Outcome, strictest
from extproc.core.vocabulary import OUTPUT, Hook, Leg
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.shown_path import shown_method, shown_path

if TYPE_CHECKING:
    from extproc.telemetry.tracing import Trace

_log = structlog.get_logger()

_FOUND = {"block": "blocked_by", "anonymize": "redacted_by", "monitor": "reported_by"}
"""For each action the field of an exchange's audit line that names the policies."""

_RELEASES = (ReleaseBuffered, ReleaseHeaders)

_COUNTED = -1.0
"""Replaces the start time of a leg's wait once the wait has been counted."""


class Observation:
    """Observes one exchange, from its first message to its record."""

    __slots__ = (
        "_callers",
        "_detection_bytes",
        "_detections",
        "_identity",
        "_is_dry_run",
        "_opened",
        "_policies",
        "_session_verdict",
        "_submitted",
        "_telemetry",
        "_unmatched",
        "_waiting_since",
        "began",
        "record",
        "trace",
    )

    def __init__(
        self, telemetry: Telemetry, record: ExchangeRecord, identity: Identity, *, began: float, is_dry_run: bool
    ) -> None:
        """Observe the exchange of `record`, which began at `began` on the monotonic clock, for `telemetry`."""
        self._telemetry = telemetry
        self.record = record
        self.began = began
        self.trace: Trace | None = None
        self._is_dry_run = is_dry_run
        self._identity = identity
        self._callers = self._called()
        self._detections = 0
        self._detection_bytes = 0
        self._policies: dict[str, tuple[str, ...]] = {}
        self._opened = began
        self._submitted = 0
        self._session_verdict: ReportVerdict | None = None
        self._waiting_since: dict[Leg, float] = {}
        self._unmatched: tuple[str, str] | None = None

    def _called(self) -> dict[str, str]:
        audit = self._telemetry.audit
        return audit.callers(self.record.profile, self._identity) if audit is not None else {}

    def use_profile(self, profile: str) -> None:
        """Record the rest of the exchange under `profile`."""
        self.record.profile = profile
        self._callers = self._called()

    def arrived(self, event: BodyReceived) -> None:
        """Record that a leg waits. The wait starts with the first piece of its body, and restarts with the last."""
        if self._is_dry_run:
            return
        if event.end_of_stream or event.leg not in self._waiting_since:
            self._waiting_since[event.leg] = time.monotonic()

    def released(self, command: ToEnvoy) -> None:
        """Record that `command` goes to Envoy. This ends the wait of its leg; an immediate response ends both waits."""
        # A match statement would take three times as long.
        if isinstance(command, _RELEASES):
            self._note_waited(command.leg)
        elif isinstance(command, ImmediateResponse):
            for leg in tuple(self._waiting_since):
                self._note_waited(leg)

    def _note_waited(self, leg: Leg) -> None:
        since = self._waiting_since.get(leg)
        if since is not None and since != _COUNTED:
            self._waiting_since[leg] = _COUNTED
            self._telemetry.waited(leg, time.monotonic() - since)

    def report(self, command: Report) -> None:
        """Record a report of the core."""
        record = self.record
        match command:
            case ReportVerdict():
                record.add_outcomes(command.leg, command.outcomes, command.milliseconds)
                self._telemetry.report(record, command)
                self._note_verdict(command)
            case ReportOutcome():
                record.reach(command.outcome, command.code, command.reason)
            case ReportDialect():
                record.name_dialect(command.dialect)
            case ReportGivenUp():
                if command.error is not None:
                    log_internal_error(command.error)
                _log.warning("dry_run_given_up", call_id=record.call_id)
            case ReportFailOpen() | ReportChunks():
                self._telemetry.report(record, command)
            case ReportUnmatched():
                self._unmatched = shown_method(command.method), shown_path(command.path)
            case _:
                assert_never(command)

    def _note_verdict(self, command: ReportVerdict) -> None:
        if command.hook is OUTPUT:
            self._session_verdict = command
        audit = self._telemetry.audit
        for outcome in command.outcomes:
            verdict: dict[str, object] = {"leg": command.leg, "hook": command.hook, "action": outcome.action}
            invocation = _invocation(outcome)
            if invocation:
                _log.debug("verdict", call_id=self.record.call_id, **verdict, **invocation)
            if audit is None:
                continue
            self._note_policies(outcome)
            line = self._line("verdict") | verdict | {"policies": outcome.policies}
            if isinstance(outcome, Failed):
                line["reason"] = outcome.reason
            audit.write(line | invocation)

    def _note_policies(self, outcome: Outcome) -> None:
        if outcome.policies and outcome.action in _FOUND:
            name = _FOUND[outcome.action]
            named = (*self._policies.get(name, ()), *outcome.policies)
            self._policies[name] = tuple(dict.fromkeys(named))[:MAX_POLICIES]

    def detecting(self, inputs: int) -> None:
        """Record that a detection of so many inputs begins."""
        self._detections += inputs

    def sent(self, hook: Hook, size: int) -> None:
        """Record that a body of `size` bytes is sent to Aim over REST, perhaps again."""
        self._detection_bytes += size
        self._telemetry.sent(hook, size)

    def submitted(self, chunk: str) -> None:
        """Record a chunk of a session. The metric counts all of them at the session's end, which is cheaper."""
        self._submitted += len(chunk) if chunk.isascii() else len(chunk.encode(errors="surrogatepass"))

    def detected(self, hook: Hook, began: float, outcomes: Sequence[Outcome]) -> None:
        """Record the outcomes of a detection that began at `began` and ends now."""
        now = time.monotonic()
        self._telemetry.detected(hook, now - began)
        if self.trace is not None:
            outcome = strictest(outcomes)
            self.trace.detection(
                "analysis",
                hook,
                began,
                now,
                action=outcome.action,
                reason=outcome.reason if isinstance(outcome, Failed) else None,
                policies=outcome.policies,
            )

    def session_opened(self) -> None:
        """Record that a session is being opened."""
        self._telemetry.sessions.inc()
        self._opened, self._session_verdict = time.monotonic(), None

    def session_decided(self, milliseconds: int) -> None:
        """Record that a session reached its verdict `milliseconds` after its first chunk."""
        self._telemetry.detected(OUTPUT, milliseconds / 1000, is_stream=True)

    def session_closed(self) -> None:
        """Record the end of the session, which has no verdict if the exchange did not need one."""
        self._telemetry.sessions.dec()
        if self._submitted:
            self._detections += 1
            self._detection_bytes += self._submitted
            self._telemetry.sent(OUTPUT, self._submitted)
            self._submitted = 0
        if self.trace is not None:
            outcome = strictest(self._session_verdict.outcomes) if self._session_verdict is not None else None
            self.trace.detection(
                "session",
                OUTPUT,
                self._opened,
                time.monotonic(),
                action=outcome.action if outcome is not None else None,
                reason=outcome.reason if isinstance(outcome, Failed) else None,
            )

    def finished(self) -> None:
        """Record the end of the exchange, with the outcome in its record."""
        now = time.monotonic()
        record = self.record
        if self._is_dry_run and record.outcome != "unmatched":
            record.code, record.outcome = record.outcome, "dry_run"
        self._telemetry.finished(record, now - self.began, self._detections)
        if self._unmatched is not None:
            self._telemetry.activity.unmatched.count(record, *self._unmatched)
        audit = self._telemetry.audit
        if audit is not None and record.outcome != "unmatched":
            ended = {"outcome": record.outcome, "code": record.code}
            cost = {"detections": self._detections, "detection_bytes": self._detection_bytes}
            audit.write(self._line("exchange") | ended | cost | self._policies)
        if self.trace is not None:
            self.trace.finish(record, self.began, now)

    def _line(self, kind: str) -> dict[str, object]:
        record = self.record
        return {
            "type": kind,
            "call_id": record.call_id,
            "profile": record.profile,
            "dialect": record.dialect,
            "dry_run": self._is_dry_run,
            **self._callers,
        }


def _invocation(outcome: Outcome) -> dict[str, str | int]:
    """Return what Aim said of its own work on a verdict, under the names of Aim's API."""
    invocation = outcome.invocation
    if invocation is None:
        return {}
    named = {"invocation_id": invocation.id, "analysis_time_ms": invocation.milliseconds}
    return {name: value for name, value in named.items() if value is not None}
