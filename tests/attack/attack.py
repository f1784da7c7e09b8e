"""One attack: a small script, and the promise that it tries to break."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.attack.target import Target

Script = Callable[[Target], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attack:
    """A script that raises AssertionError if it broke the promise."""

    name: str
    promise: str
    run: Script


UNSEEN_REQUEST = "a text that Aim blocks does not reach the model"
UNSEEN_ANSWER = "a text that Aim blocks does not reach the client"
SERVED = "other exchanges are served meanwhile"
PROBED = "probes and metrics are answered meanwhile"
PRIVATE = "the admin port shows a stranger nothing"
UNVERIFIED = "a text that Aim did not verify does not reach the client, and the stream does not look complete"
