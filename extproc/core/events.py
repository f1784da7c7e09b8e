"""Events: what happened to an exchange. Frozen values without behaviour.

An event that belongs to a detection or a session carries its number, so that a late answer that no longer matters is
recognised and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from extproc.core.errors import Reason
from extproc.core.values import value
from extproc.core.verdict import Outcome
from extproc.core.vocabulary import Headers, Leg, Timer


@value
class HeadersReceived:
    """The head of a leg. `metadata` and `attributes` are the data plane's, of a request: plain values by namespace."""

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
    """The trailers of a leg; its body has ended."""

    leg: Leg


@value
class VerdictReached:
    """The outcomes of one `Analyze`, in the order of its inputs, and how long they took, in milliseconds.

    One for each input; with a block among them, which decides, only those that were reached by then.
    """

    analysis: int
    outcomes: tuple[Outcome, ...]
    milliseconds: int = 0


@value
class ChunkVerified:
    """Aim released a chunk: its texts as (choice index, text), text None where the chunk has none there."""

    session: int
    texts: tuple[tuple[int, str | None], ...]
    chunk: Mapping[str, Any]


@value
class StreamBlocked:
    """Aim blocked the stream, so long after its first chunk."""

    session: int
    message: str
    milliseconds: int = 0


@value
class SessionDone:
    """Aim said that it has released all, so long after the first chunk."""

    session: int
    milliseconds: int = 0


@value
class SessionFailed:
    """The session is unusable. `opened` tells a session that was lost from one that never came to be."""

    session: int
    reason: Reason
    opened: bool = True


@value
class TimerFired:
    """A clock that was set and not cleared has run out."""

    timer: Timer


Event = (
    HeadersReceived
    | BodyReceived
    | TrailersReceived
    | VerdictReached
    | ChunkVerified
    | StreamBlocked
    | SessionDone
    | SessionFailed
    | TimerFired
)
