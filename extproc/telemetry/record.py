"""The record of one exchange, for the sidecar's access log, the metrics and Envoy's access log.

It is content-free by construction: no field takes a text, a header value or a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extproc.core.values import value
from extproc.core.verdict import MAX_POLICIES, STRICTNESS, Outcome, strictest

OUTCOMES = ("unmatched", "allowed", "redacted", "failed_open", "refused", "blocked", "aborted")
"""The outcomes of an exchange, the most severe last. A dry run ends as `dry_run`, with one of these as its code."""


@value
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
    """The facts of one exchange. `version` increases with each change that Envoy's metadata must show."""

    call_id: str
    profile: str
    dialect: str = ""
    outcome: str = "unmatched"
    code: str = ""
    legs: dict[str, LegRecord] = field(default_factory=dict)
    version: int = 0

    def name_dialect(self, dialect: str) -> None:
        """Record the dialect of the request."""
        self.dialect = dialect
        self.version += 1

    def judge(self, leg: str, outcomes: Sequence[Outcome], milliseconds: int) -> None:
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
        self.legs[str(leg)] = LegRecord(action, tuple(dict.fromkeys(policies))[:MAX_POLICIES], milliseconds)
        self.version += 1

    def reach(self, outcome: str, code: str = "") -> None:
        """Record an outcome. The most severe one counts."""
        if OUTCOMES.index(outcome) >= OUTCOMES.index(self.outcome):
            self.outcome = outcome
            self.code = code or self.code
        self.version += 1

    def facts(self) -> dict[str, str | LegRecord]:
        """Return the facts for Envoy's dynamic metadata, namespace `aim`."""
        return {"call_id": self.call_id, "profile": self.profile, "dialect": self.dialect, **self.legs}

    def as_fields(self) -> dict[str, Any]:
        """Return the same facts as plain values."""
        return {name: fact if isinstance(fact, str) else fact.as_fields() for name, fact in self.facts().items()}
