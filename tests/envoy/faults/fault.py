"""The rows of the fault matrix: each has a fault, the way to cause it, and the expected outcomes.

A row has an outcome for each leg that the fault can affect, under a closed and under an open policy.
`tests.envoy.test_faults` runs the matrix, and `python -m tests.envoy.faults` writes it to docs/reliability.md.
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
    """The part of an exchange that a fault affects."""

    REQUEST = "request"
    ANSWER = "answer"
    STREAM = "stream"


class Outcome(ABC):
    """The expected outcome of a fault; `label` is the exchange's outcome in the metrics."""

    label = "aborted"
    opens = False

    @abstractmethod
    def check(self, trial: Trial, got: Got | None) -> None:
        """Raise AssertionError if `trial` had another outcome."""


@dataclass(frozen=True)
class Refused(Outcome):
    """The client gets the sidecar's whole refusal, and nothing else."""

    status: int
    code: str
    is_read: bool = True
    """Whether a dialect had begun to read the exchange, so that the refusal has a call id."""
    label = "refused"

    def __str__(self) -> str:
        return f"{self.status} `{self.code}`"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole) == (self.status, True), got
        error = json.loads(got.body)["error"]
        assert error["code"] == self.code
        assert error["message"].endswith(".")
        assert bool(got.header("x-aim-call-id")) is self.is_read


@dataclass(frozen=True)
class Ended(Outcome):
    """The client gets the verified events, then the refusal's event and the end."""

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
    """The client gets the upstream's whole answer, unchanged."""

    status: int = 200
    words: str = "no effect"
    label = "allowed"

    def __str__(self) -> str:
        return self.words

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is not None
        assert (got.status, got.is_whole) == (self.status, True), got
        assert got.body == trial.said, got.body


class Opened(Whole):
    """The client gets the upstream's whole answer, without what Aim has taken out, and not judged to its end."""

    label = "failed_open"
    opens = True


@dataclass(frozen=True)
class ByEnvoy(Outcome):
    """The client gets an answer of Envoy itself, and nothing of the upstream's answer."""

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
    """The client gets the verified events, and can see that the stream is incomplete."""

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
    """The client has left: call, session and upstream are given up, and everything is freed."""

    label: str = "aborted"

    def __str__(self) -> str:
        return "given up, freed"

    def check(self, trial: Trial, got: Got | None) -> None:
        assert got is None


FINE = Whole()
PASSES = Opened(words="passes")
RELAYED = "the upstream's own"
UNAVAILABLE = Refused(503, "guardrail_unavailable")
UNREADABLE = Refused(502, "guardrail_unreadable_response")
OVERLOADED = Refused(503, "guardrail_overloaded")
NO_ROOM = Refused(503, "guardrail_overloaded", is_read=False)
INVALID = Refused(400, "invalid_body")
TOO_LARGE = Refused(413, "request_too_large", is_read=False)
INFLATED = Refused(413, "request_too_large")
LATE = Ended("guardrail_unavailable")

Arrange = Callable[["Trial"], Awaitable[None] | None]
Outcomes = tuple[Outcome, Outcome]


def by_policy(closed: Outcome) -> Outcomes:
    """Return the outcomes for a fault that is subject to the policy: `closed`, or the whole answer if it is open."""
    return closed, PASSES


def always(outcome: Outcome) -> Outcomes:
    """Return the outcomes for a fault that ends in `outcome` under every policy."""
    return outcome, outcome


@dataclass(frozen=True)
class Fault:
    """A row. `reason` is what the failure counts as; `recovers` means that the chain works again afterwards."""

    name: str
    arrange: Arrange
    legs: Mapping[Leg, Outcomes]
    reason: Reason | None = None
    chain: str = field(default="usual", kw_only=True)
    opened_by: str = field(default="open", kw_only=True)
    """The profile with the open policy."""
    recovers: bool = field(default=True, kw_only=True)
    is_counted: bool = field(default=True, kw_only=True)
    """Whether the process that counts survives the fault."""
    others: tuple[str, ...] = field(default=(), kw_only=True)
    """The outcomes of the other exchanges that the fault needs."""
    holds_till_mended: bool = field(default=False, kw_only=True)
    seconds: float = field(default=SECONDS, kw_only=True)
    """The time in which the exchange ends and is freed. Faults with more than the default are marked `long`."""
    is_dear: bool = field(default=False, kw_only=True)
    """Whether it takes seconds: all its trials except one are then marked `long`."""

    def is_long(self, leg: Leg, policy: str) -> bool:
        """Return whether a trial is marked `long`."""
        return self.seconds > SECONDS or (self.is_dear and (leg, policy) != (list(self.legs)[-1], "open"))


def every(outcomes: Outcomes) -> Mapping[Leg, Outcomes]:
    """Return the same outcomes for every leg."""
    return dict.fromkeys(Leg, outcomes)


def on(**legs: Outcomes) -> Mapping[Leg, Outcomes]:
    """Return the outcomes by leg: request, answer, stream."""
    return {Leg(name): outcomes for name, outcomes in legs.items()}
