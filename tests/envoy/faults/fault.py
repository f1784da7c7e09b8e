"""What a row of the fault matrix is: a fault, how it is brought about, and what has to come of it.

A row names its outcome for each leg that the fault can hit, under a policy that is closed and one that is open. The
matrix is run by `tests.envoy.test_faults`, and printed into docs/reliability.md by `python -m tests.envoy.faults`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from extproc.core.errors import Reason
from tests.envoy.apis import DONE
from tests.envoy.faults.chain import SECONDS
from tests.fakes.client import Got

if TYPE_CHECKING:
    from tests.envoy.faults.trial import Trial


class Leg(StrEnum):
    """What a fault hits."""

    REQUEST = "request"
    ANSWER = "answer"
    STREAM = "stream"


class Outcome(ABC):
    """What has to come of a fault; `label` is the exchange's outcome in the metrics."""

    label = "aborted"
    opens = False

    @abstractmethod
    def check(self, trial: Trial, got: Got | None) -> None:
        """Raise AssertionError where something else came of `trial`."""


@dataclass(frozen=True)
class Refused(Outcome):
    """The client gets our refusal, whole, and nothing else."""

    status: int
    code: str
    label = "refused"

    def __str__(self) -> str:
        return f"{self.status} `{self.code}`"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole) == (self.status, True), got
        error = json.loads(got.body)["error"]
        assert error["code"] == self.code
        assert error["message"].endswith(".")
        assert got.header("x-aim-call-id")


@dataclass(frozen=True)
class Ended(Outcome):
    """The client gets what was verified, then the refusal's event and the end."""

    code: str
    events: int = 2
    label = "refused"

    def __str__(self) -> str:
        return f"error event `{self.code}`"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole) == (200, True), got
        before = b"".join(trial.events[: self.events])
        assert got.body.startswith(before), got.body
        refusal, end = got.body.removeprefix(before).split(b"\n\n", 1)
        assert json.loads(refusal.removeprefix(b"data: "))["error"]["code"] == self.code
        assert end == DONE


@dataclass(frozen=True)
class Whole(Outcome):
    """The client gets all that the upstream said, as it came."""

    status: int = 200
    words: str = "no effect"
    label = "allowed"

    def __str__(self) -> str:
        return self.words

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole) == (self.status, True), got
        assert got.body == trial.said, got.body


class _Opened(Whole):
    label = "failed_open"
    opens = True


@dataclass(frozen=True)
class ByEnvoy(Outcome):
    """The client gets an answer of Envoy's own, and nothing of the upstream's."""

    status: int
    label: str = "aborted"

    def __str__(self) -> str:
        return f"{self.status} of Envoy"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert got.status == self.status, got
        assert not any(text.encode() in got.body for text in trial.texts)


@dataclass(frozen=True)
class Cut(Outcome):
    """The client gets what was verified, and sees that it is not all."""

    events: int = 2
    words: str = "cut after what was verified"
    opens: bool = False
    label: str = "aborted"

    def __str__(self) -> str:
        return self.words

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole) == (200, False), got
        assert got.body == b"".join(trial.events[: self.events])


@dataclass(frozen=True)
class Broken(Outcome):
    """The client's connection ends without an answer."""

    label: str = "aborted"

    def __str__(self) -> str:
        return "connection lost"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole, got.body) == (0, False, b""), got


@dataclass(frozen=True)
class Gone(Outcome):
    """Nobody is left to see it: question, session and upstream are given up, and all is freed."""

    label: str = "aborted"

    def __str__(self) -> str:
        return "given up, freed"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is None


FINE = Whole()
PASSES = _Opened(words="passes")
RELAYED = "the upstream's own"
UNAVAILABLE = Refused(503, "guardrail_unavailable")
UNREADABLE = Refused(502, "guardrail_unreadable_response")
OVERLOADED = Refused(503, "guardrail_overloaded")
INVALID = Refused(400, "invalid_body")
TOO_LARGE = Refused(413, "request_too_large")
LATE = Ended("guardrail_unavailable")

Arrange = Callable[["Trial"], Awaitable[None] | None]
Outcomes = tuple[Outcome, Outcome]


def by_policy(closed: Outcome) -> Outcomes:
    """What is closed ends so, what is open passes."""
    return closed, PASSES


def always(outcome: Outcome) -> Outcomes:
    """It ends so whatever the policy."""
    return outcome, outcome


@dataclass(frozen=True)
class Fault:
    """A row; `reason` is what a failure is counted with, `recovers` whether the chain works again afterwards."""

    name: str
    arrange: Arrange
    legs: Mapping[Leg, Outcomes]
    reason: Reason | None = None
    chain: str = field(default="usual", kw_only=True)
    opened_by: str = field(default="open", kw_only=True)
    """The profile that stands for open."""
    recovers: bool = field(default=True, kw_only=True)
    is_counted: bool = field(default=True, kw_only=True)
    """Whether the process that counts outlives the fault."""
    others: tuple[str, ...] = field(default=(), kw_only=True)
    """The outcomes of other exchanges that the fault takes."""
    holds_till_mended: bool = field(default=False, kw_only=True)
    seconds: float = field(default=SECONDS, kw_only=True)
    """In which it ends, and is freed; what needs longer than usual is left to the long run."""
    is_dear: bool = field(default=False, kw_only=True)
    """Whether it takes seconds: then all but one of its trials are left to the long run."""

    def is_long(self, leg: Leg, policy: str) -> bool:
        """Tell whether a trial is left to the long run."""
        return self.seconds > SECONDS or (self.is_dear and (leg, policy) != (list(self.legs)[-1], "open"))


def every(outcomes: Outcomes) -> Mapping[Leg, Outcomes]:
    """The same on every leg."""
    return dict.fromkeys(Leg, outcomes)


def on(**legs: Outcomes) -> Mapping[Leg, Outcomes]:
    """Name the legs: request, answer, stream."""
    return {Leg(name): outcomes for name, outcomes in legs.items()}
