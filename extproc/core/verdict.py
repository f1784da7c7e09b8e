"""Aim's typed answer. An answer that is none of these is a `DetectionError`, never an allow."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.core.errors import Reason
from extproc.core.values import value

MAX_POLICIES = 32
"""Policies that are named, of a verdict and of a leg: how many there are is Aim's to choose."""


@value
class Allow:
    """Nothing found."""

    policies: tuple[str, ...] = ()
    action = "allow"


@value
class Monitor:
    """Found, to be reported only."""

    policies: tuple[str, ...] = ()
    action = "monitor"


@value
class Anonymize:
    """`texts[i]` replaces the text of the i-th message that was sent; None where Aim returned no text."""

    texts: tuple[str | None, ...]
    policies: tuple[str, ...] = ()
    action = "anonymize"


@value
class Block:
    """Must not go on. `message` is Aim's sentence for the client, if it gave one."""

    message: str | None = None
    policies: tuple[str, ...] = ()
    action = "block"


@value
class Failed:
    """No verdict: what the failure policy decides on."""

    reason: Reason
    policies: tuple[str, ...] = ()
    action = "error"


Verdict = Allow | Monitor | Anonymize | Block
Outcome = Verdict | Failed

STRICTNESS = {"block": 4, "error": 3, "anonymize": 2, "monitor": 1, "allow": 0}
"""The actions, by how little they let pass."""


def strictest(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome that decides among analyses of one answer; `Allow` when there were none.

    A failure is stricter than a redaction (its text is not verified) and weaker than a block (which no failure
    policy may open).
    """
    return max(outcomes, key=lambda outcome: STRICTNESS[outcome.action], default=Allow())
