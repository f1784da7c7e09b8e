"""The policy of an exchange: the settings of its profile as plain values, built by `extproc.config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from extproc.core.errors import Reason
from extproc.core.vocabulary import Hook, Leg


class Inspect(StrEnum):
    """Optional inspections, in addition to prompts and answers."""

    EMBEDDINGS = "embeddings"
    TOOLS = "tools"
    FILES = "files"


class Unmatched(StrEnum):
    """What happens on a path that no dialect knows."""

    INSPECT = "inspect"
    """what is JSON is read by the generic dialect; the rest passes"""
    PASS = "pass"  # noqa: S105 - a word, not a password
    """it passes unread"""
    BLOCK = "block"
    """it is refused"""


EVERY_REASON = frozenset(Reason) - {Reason.KEY_REFUSED}
"""The reasons that `true` means in the settings. A refused key fails open only where a list names it."""


@dataclass(frozen=True, slots=True)
class FailureModeAllow:
    """The reasons for which each leg is released without a verdict."""

    request: frozenset[Reason] = frozenset()
    response: frozenset[Reason] = frozenset()

    def opens(self, leg: Leg, reason: Reason) -> bool:
        """Return whether `leg` is released although its inspection failed for `reason`."""
        return reason in (self.request if leg is Leg.REQUEST else self.response)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that bound the memory of one exchange. Sizes are in bytes; `values` is a number of values."""

    request_bytes: int = 20_971_520
    response_bytes: int = 20_971_520
    event_bytes: int = 16_777_216
    held_bytes: int = 4_194_304
    headers: int = 256
    values: int = 500_000
    inflate_ratio: int = 100


@dataclass(frozen=True, slots=True)
class Policy:
    """One profile, as the core needs it. Times are in seconds."""

    name: str = "default"
    """the profile's name"""
    hooks: frozenset[Hook] = frozenset({Hook.PRE_CALL, Hook.OUTPUT})
    failure_mode_allow: FailureModeAllow = FailureModeAllow()
    stream_head_seconds: float = 2
    stream_ping_seconds: float = 0
    timeout_seconds: float = 5
    """how long the search for the blocked records of a batch may take, which is as long as one detection may take"""
    verdict_timeout_seconds: float = 15
    block_message: str = ""
    block_status: int = 400
    """the HTTP status of a block that is refused with an error"""
    answers_blocks: bool = False
    """whether a block becomes an answer whose text is the message, where the API has one"""
    unmatched: Unmatched = Unmatched.INSPECT
    paths: Mapping[str, str] = field(default_factory=dict)
    """`[METHOD ]GLOB` -> the name of a dialect, or a value of `Unmatched`; the first match wins"""
    inspect: frozenset[Inspect] = frozenset({Inspect.TOOLS})
    models: Mapping[str, Policy] = field(default_factory=dict)
    """a glob of model names -> the policy of requests that name such a model; the first match wins"""

    def for_model(self, names: Iterable[str]) -> Policy | None:
        """Return the policy of requests that name these models; None if no glob matches one of them.

        Letter case does not matter: some providers ignore it, so it must not choose the policy.
        """
        for name in names:
            for pattern, policy in self.models.items():
                if fnmatchcase(name.casefold(), pattern.casefold()):
                    return policy
        return None

    def may_inspect(self, inspect: Inspect) -> bool:
        """Return whether the inspection is on under this policy, or for some model."""
        return inspect in self.inspect or any(inspect in policy.inspect for policy in self.models.values())
