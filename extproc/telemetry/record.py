"""What is known of one exchange: for its access record, its metrics and Envoy's access log.

Content-free by construction: no field takes a text, a header value or a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extproc.core.values import value
from extproc.core.verdict import MAX_POLICIES, STRICTNESS, Outcome, strictest

OUTCOMES = ("unmatched", "allowed", "redacted", "failed_open", "refused", "blocked", "aborted")
"""How an exchange can end, the gravest last. A dry run ends as `dry_run`, with one of these as its code."""


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
    """The facts of one exchange. `version` grows with each change that Envoy's metadata shall show."""

    call_id: str
    profile: str
    dialect: str = ""
    outcome: str = "unmatched"
    code: str = ""
    legs: dict[str, LegRecord] = field(default_factory=dict)
    version: int = 0

    def name_dialect(self, dialect: str) -> None:
        """Note the dialect of the request."""
        self.dialect = dialect
        self.version += 1

    def judge(self, leg: str, outcomes: Sequence[Outcome], milliseconds: int) -> None:
        """Note the verdicts of one detection or session.

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
        """Note an outcome; the gravest counts."""
        if OUTCOMES.index(outcome) >= OUTCOMES.index(self.outcome):
            self.outcome = outcome
            self.code = code or self.code
        self.version += 1

    def facts(self) -> dict[str, str | LegRecord]:
        """Return what Envoy's dynamic metadata says of the exchange, namespace `aim`."""
        return {"call_id": self.call_id, "profile": self.profile, "dialect": self.dialect, **self.legs}

    def as_fields(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {name: fact if isinstance(fact, str) else fact.as_fields() for name, fact in self.facts().items()}
