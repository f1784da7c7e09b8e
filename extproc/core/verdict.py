"""Aim's typed verdicts. Any other answer of Aim is a `DetectionError`, never an allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from extproc.core.errors import Reason

MAX_POLICIES = 32
"""The most policies that are named for a verdict and for a leg. Aim chooses how many it sends."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What Aim says of its own work on a verdict: the id that it gave it, and how many milliseconds it took.

    It is for operators and decides nothing, so verdicts are compared without it.
    """

    id: str | None = None
    milliseconds: int | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    """Aim found nothing."""

    policies: tuple[str, ...] = ()
    invocation: Invocation | None = field(default=None, compare=False)
    action = "allow"


@dataclass(frozen=True, slots=True)
class Monitor:
    """Aim found something that is only reported."""

    policies: tuple[str, ...] = ()
    invocation: Invocation | None = field(default=None, compare=False)
    action = "monitor"


@dataclass(frozen=True, slots=True)
class Anonymize:
    """Aim redacted: `texts[i]` replaces the text of the i-th message that was sent; None if Aim returned no text."""

    texts: tuple[str | None, ...]
    policies: tuple[str, ...] = ()
    invocation: Invocation | None = field(default=None, compare=False)
    action = "anonymize"


@dataclass(frozen=True, slots=True)
class Block:
    """The content must not be released. `message` is Aim's message for the client, if there is one.

    `input` is the number of the input that was blocked, of a detection with several.
    """

    message: str | None = None
    policies: tuple[str, ...] = ()
    invocation: Invocation | None = field(default=None, compare=False)
    input: int = 0
    action = "block"


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no verdict: the failure policy decides."""

    reason: Reason
    policies: tuple[str, ...] = ()
    invocation: Invocation | None = field(default=None, compare=False)
    """known if Aim answered, but with an action that is unknown"""
    action = "error"


Verdict = Allow | Monitor | Anonymize | Block
Outcome = Verdict | Failed

STRICTNESS = {"block": 4, "error": 3, "anonymize": 2, "monitor": 1, "allow": 0}
"""The strictness of each action."""


def strictest(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome that decides among those of one detection; `Allow` if there are none.

    A failure is stricter than a redaction, because its text is not verified, and weaker than a block, which no failure
    policy may open.
    """
    if len(outcomes) == 1:
        return outcomes[0]
    return max(outcomes, key=lambda outcome: STRICTNESS[outcome.action], default=Allow())
