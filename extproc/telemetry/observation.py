"""What is observed of one exchange: its counts and, where they are asked for, its audit lines and its spans."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from extproc.core.commands import (
    ReleaseBuffered,
    ReleaseHeaders,
    Reply,
    ReportChunks,
    ReportFailOpen,
    ReportVerdict,
    ToEnvoy,
)
from extproc.core.events import BodyReceived
from extproc.core.identity import Identity
from extproc.core.record import ExchangeRecord
from extproc.core.verdict import Failed, Outcome, strictest
from extproc.core.vocabulary import Hook, Leg
from extproc.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from extproc.telemetry.tracing import Trace

_TOLD = -1.0
"""In place of a time: the wait of this leg has been counted."""


class Observation:
    """The witness of one exchange, from its first message to its record."""

    __slots__ = (
        "_callers",
        "_is_dry_run",
        "_opened",
        "_session_verdict",
        "_telemetry",
        "_waiting_since",
        "began",
        "record",
        "trace",
    )

    def __init__(
        self, telemetry: Telemetry, record: ExchangeRecord, identity: Identity, *, began: float, is_dry_run: bool
    ) -> None:
        """Observe the exchange of `record`, which began at `began` by the monotonic clock, for `telemetry`."""
        self._telemetry = telemetry
        self.record = record
        self.began = began
        self.trace: Trace | None = None
        self._is_dry_run = is_dry_run
        self._callers = telemetry.audit.callers(record.profile, identity) if telemetry.audit is not None else {}
        self._opened = began
        self._session_verdict: ReportVerdict | None = None
        self._waiting_since: dict[Leg, float] = {}

    def arrived(self, event: BodyReceived) -> None:
        """Take that a body has come, or a piece of one: from its first and then from its last the leg waits."""
        if event.end_of_stream or event.leg not in self._waiting_since:
            self._waiting_since[event.leg] = time.monotonic()

    def released(self, command: ToEnvoy) -> None:
        """Take that `command` is about to leave: the waiting of its leg is over, a reply's of both."""
        match command:
            case ReleaseBuffered(leg=leg) | ReleaseHeaders(leg=leg):
                self._note_waited(leg)
            case Reply():
                for leg in tuple(self._waiting_since):
                    self._note_waited(leg)

    def _note_waited(self, leg: Leg) -> None:
        since = self._waiting_since.get(leg)
        if since is not None and since != _TOLD:
            self._waiting_since[leg] = _TOLD
            self._telemetry.waited(leg, time.monotonic() - since)

    def report(self, command: ReportVerdict | ReportFailOpen | ReportChunks) -> None:
        """Take what the core reports."""
        self._telemetry.report(self.record, command)
        if not isinstance(command, ReportVerdict):
            return
        if command.hook is Hook.OUTPUT:
            self._session_verdict = command
        audit = self._telemetry.audit
        if audit is not None:
            line = self._line("verdict")
            line |= {"leg": command.leg, "hook": command.hook, "action": command.action}
            line["policies"] = command.policies
            if command.reason is not None:
                line["reason"] = command.reason
            audit.write(line)

    def analyzed(self, hook: Hook, began: float, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of an analysis that began at `began` and has ended now."""
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
        """Take that a session is being opened."""
        self._telemetry.sessions.inc()
        self._opened, self._session_verdict = time.monotonic(), None

    def session_judged(self, milliseconds: int) -> None:
        """Take that a session has come to its verdict, so long after its first chunk."""
        self._telemetry.detected(Hook.OUTPUT, milliseconds / 1000)

    def session_closed(self) -> None:
        """Take that the session is over; one without a verdict was not needed."""
        self._telemetry.sessions.dec()
        if self.trace is not None:
            verdict = self._session_verdict
            self.trace.detection(
                "session",
                Hook.OUTPUT,
                self._opened,
                time.monotonic(),
                action=verdict.action if verdict is not None else None,
                reason=verdict.reason if verdict is not None else None,
            )

    def finished(self) -> None:
        """Take that the exchange is over; its record says how."""
        now = time.monotonic()
        record = self.record
        self._telemetry.finished(record, now - self.began)
        audit = self._telemetry.audit
        if audit is not None and record.outcome != "unmatched":
            audit.write(self._line("exchange") | {"outcome": record.outcome, "code": record.code})
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
