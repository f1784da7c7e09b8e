"""Events: what happened to an exchange. Frozen values without behaviour.

An event of a detection or a session carries its number. The core ignores one whose number no longer matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from extproc.core.errors import Reason
from extproc.core.values import value
from extproc.core.verdict import Outcome
from extproc.core.vocabulary import Headers, Leg


@value
class HeadersReceived:
    """The headers of a leg. `metadata` and `attributes` are Envoy's, of a request: plain values by namespace."""

    leg: Leg
    headers: Headers
    end_of_stream: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@value
class BodyReceived:
    """Bytes of a leg's body, cut at arbitrary boundaries (the whole body under BUFFERED)."""

    leg: Leg
    data: bytes
    end_of_stream: bool = False


@value
class TrailersReceived:
    """The trailers of a leg, which end its body."""

    leg: Leg


@value
class StreamEnded:
    """Envoy ended the gRPC stream, or it broke: nothing more arrives and nothing more can be sent."""


@value
class LoadChanged:
    """The process became overloaded, or no longer is. An overloaded process holds no further body."""

    is_overloaded: bool


@value
class Woken:
    """The exchange's deadline has passed."""


@value
class VerdictReached:
    """The outcomes of a detection, in the order of its inputs, and its duration in milliseconds.

    There is one outcome for each input. If one of them is a block, which decides, later ones may be missing.
    """

    detection: int
    outcomes: tuple[Outcome, ...]
    milliseconds: int = 0


@value
class ChunkVerified:
    """Aim released a chunk. `texts` are (choice index, text), with None where a choice has no text."""

    session: int
    texts: tuple[tuple[int, str | None], ...]
    chunk: Mapping[str, Any]


@value
class StreamBlocked:
    """Aim blocked the streamed answer, `milliseconds` after its first chunk."""

    session: int
    message: str
    milliseconds: int = 0


@value
class SessionDone:
    """Aim said that it has released everything, `milliseconds` after the first chunk."""

    session: int
    milliseconds: int = 0


@value
class SessionFailed:
    """The session is unusable. `opened` is False if it never opened."""

    session: int
    reason: Reason
    opened: bool = True


FromEnvoy = HeadersReceived | BodyReceived | TrailersReceived
"""Envoy's messages."""

FromSession = ChunkVerified | StreamBlocked | SessionDone | SessionFailed
"""What a session reports."""

Event = FromEnvoy | FromSession | StreamEnded | LoadChanged | Woken | VerdictReached
