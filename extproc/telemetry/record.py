"""The record of one exchange, for the sidecar's access log, the metrics and Envoy's access log.

It is content-free by construction: no field contains a text, a header value or a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extproc.core.verdict import MAX_POLICIES, STRICTNESS, Outcome, strictest

OUTCOMES = ("unmatched", "allowed", "redacted", "failed_open", "refused", "blocked", "aborted")
"""The outcomes of an exchange, the most severe last. A dry run ends as `dry_run`, with one of these as its code."""


@dataclass(frozen=True, slots=True)
class LegRecord:
    """The verdict on one leg."""

    action: str = ""
    policies: tuple[str, ...] = ()
    milliseconds: int = 0

    def as_fields(self) -> dict[str, Any]:
        """Return the leg as plain values."""
        return {"action": self.action, "policies": list(self.policies), "ms": self.milliseconds}


@dataclass(slots=True)
class ExchangeRecord:
    """The facts of one exchange."""

    call_id: str
    profile: str
    dialect: str = ""
    outcome: str = "unmatched"
    code: str = ""
    reason: str = ""
    legs: dict[str, LegRecord] = field(default_factory=dict)
    untold: dict[str, str | LegRecord] = field(default_factory=dict)
    """The facts that are not yet in Envoy's dynamic metadata, namespace `aim`."""

    def name_dialect(self, dialect: str) -> None:
        """Record the dialect of the request."""
        self.dialect = dialect

    def add_outcomes(self, leg: str, outcomes: Sequence[Outcome], milliseconds: int) -> None:
        """Record the outcomes of one detection or session.

        A leg keeps the strictest action of all its verdicts (`pre_call`, then `moderation`), the policies of all of
        them, and the sum of their times.
        """
        action = strictest(outcomes).action
        policies = tuple(name for outcome in outcomes for name in outcome.policies)
        before = self.legs.get(leg)
        if before is not None:
            action = max(before.action, action, key=STRICTNESS.__getitem__)
            policies = (*before.policies, *policies)
            milliseconds += before.milliseconds
        leg_record = LegRecord(action, tuple(dict.fromkeys(policies))[:MAX_POLICIES], milliseconds)
        self.legs[str(leg)] = self.untold[str(leg)] = leg_record

    def reach(self, outcome: str, code: str = "", reason: str = "") -> None:
        """Record an outcome; the record keeps the most severe one. Envoy gets no facts before the first outcome."""
        if self.outcome == "unmatched" and self.dialect:
            self.untold |= {"call_id": self.call_id, "profile": self.profile, "dialect": self.dialect}
        if OUTCOMES.index(outcome) >= OUTCOMES.index(self.outcome):
            self.outcome = outcome
            self.reason = reason if code else reason or self.reason  # it belongs to the code
            self.code = code or self.code

    def take_untold(self) -> dict[str, str | LegRecord]:
        """Remove and return the facts that Envoy does not have yet. Envoy keeps earlier facts."""
        untold, self.untold = self.untold, {}
        return untold

    def as_fields(self) -> dict[str, Any]:
        """Return all facts for Envoy as plain values."""
        legs = {leg: record.as_fields() for leg, record in self.legs.items()}
        return {"call_id": self.call_id, "profile": self.profile, "dialect": self.dialect, **legs}
