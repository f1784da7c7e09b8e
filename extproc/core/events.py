"""Events: what happened to an exchange. Frozen values without behaviour.

An event of a detection or a session carries its number. The core ignores one whose number no longer matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from extproc.core.errors import Reason
from extproc.core.verdict import Outcome
from extproc.core.vocabulary import Headers, Leg


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """The headers of a leg. A request also has Envoy's `metadata` and `attributes`: plain values by namespace."""

    leg: Leg
    headers: Headers
    end_of_stream: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """Bytes of a leg's body, cut at arbitrary boundaries (the whole body under BUFFERED)."""

    leg: Leg
    data: bytes
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class TrailersReceived:
    """The trailers of a leg, which end its body."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The gRPC stream has ended or broken: no message can be received or sent any more."""


@dataclass(frozen=True, slots=True)
class LoadChanged:
    """The process became overloaded, or is no longer overloaded. An overloaded process holds no further body."""

    is_overloaded: bool


@dataclass(frozen=True, slots=True)
class RoomDemanded:
    """The process holds more than it may, and this exchange is to give up the bytes that its last `Hold` offered."""


@dataclass(frozen=True, slots=True)
class Woken:
    """The exchange's deadline has passed."""


@dataclass(frozen=True, slots=True)
class VerdictReached:
    """The outcomes of a detection, in the order of its inputs, and its duration.

    There is one outcome for each input. A block decides, so that the outcomes after a block may be missing.
    """

    detection: int
    outcomes: tuple[Outcome, ...]
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class ChunkVerified:
    """Aim verified a chunk. `texts` are pairs of choice index and text; the text is None if the choice has none."""

    session: int
    texts: tuple[tuple[int, str | None], ...]
    chunk: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StreamBlocked:
    """Aim blocked the streamed answer, `milliseconds` after its first chunk."""

    session: int
    message: str
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class SessionDone:
    """Aim sent `done`: it has verified everything, `milliseconds` after the first chunk."""

    session: int
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The session is unusable. `opened` is False if it never opened."""

    session: int
    reason: Reason
    opened: bool = True


FromEnvoy = HeadersReceived | BodyReceived | TrailersReceived
"""The events that are messages of Envoy."""

FromSession = ChunkVerified | StreamBlocked | SessionDone | SessionFailed
"""The events of a session."""

Event = FromEnvoy | FromSession | StreamEnded | LoadChanged | RoomDemanded | Woken | VerdictReached
