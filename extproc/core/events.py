"""What happens to an exchange (events) and what is to be done about it (commands).

The only interface between the core, which decides, and the shell, which talks to Envoy and to Aim. All are
frozen values without behaviour. An event that belongs to an analysis or a session carries its number, so that
a late answer to a question that no longer matters is recognised and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum, StrEnum
from typing import Any

from extproc.core.errors import Reason
from extproc.core.values import value
from extproc.core.verdict import Outcome


class Leg(StrEnum):
    """The two halves of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"


class Hook(StrEnum):
    """Aim's names for the phases whose guards apply."""

    PRE_CALL = "pre_call"
    MODERATION = "moderation"
    OUTPUT = "output"


class BodyMode(Enum):
    """How the data plane hands a body over."""

    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


class Timer(StrEnum):
    """The clocks that the core asks the shell to run; each fires once."""

    HEAD = "head"  # how long the head of a stream waits for the first verdict
    SILENCE = "silence"  # how long Aim may be silent in a session while text waits
    HELD = "held"  # how long a full hold may stay without a release
    PING = "ping"  # how long a client hears nothing while events wait


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names in lower case, duplicates kept. Values are bytes decoded as latin-1."""


# -- events ------------------------------------------------------------------------------------------------------


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


# -- commands ----------------------------------------------------------------------------------------------------


@value
class ReleaseHeaders:
    """Let a leg's headers go on, changed as said.

    `replace_body` is Envoy's CONTINUE_AND_REPLACE without a body: the rest of the leg passes us by.
    """

    leg: Leg
    set: Headers = ()
    remove: tuple[str, ...] = ()
    replace_body: bool = False


@value
class ReleaseBuffered:
    """Answer the body of a BUFFERED leg: None lets the original go on, bytes replace it."""

    leg: Leg
    body: bytes | None = None
    set: Headers = ()
    remove: tuple[str, ...] = ()


@value
class ReleaseBody:
    """Let bytes of a full-duplex leg go on; `end_of_stream` ends the leg."""

    leg: Leg
    data: bytes
    end_of_stream: bool = False


@value
class ReleaseTrailers:
    """Let a leg's trailers go on, which ends it."""

    leg: Leg


@value
class Reply:
    """Answer the client in the upstream's place. Nothing can follow."""

    status: int
    headers: Headers
    body: bytes
    details: str


@value
class Reset:
    """Abort the exchange. Nothing can follow. `misconfigured` tells a wrong filter from a broken exchange."""

    message: str
    misconfigured: bool = False


@value
class Input:
    """One question to Aim: chat messages, and for an answer its text."""

    messages: tuple[Mapping[str, Any], ...]
    output: str | None = None


@value
class Analyze:
    """Ask Aim about each input; `VerdictReached` answers with the same number."""

    analysis: int
    hook: Hook
    inputs: tuple[Input, ...]


@value
class CancelAnalysis:
    """The answer no longer matters."""

    analysis: int


@value
class OpenSession:
    """Open Aim's websocket for the answer that is to come."""

    session: int


@value
class SubmitChunk:
    """Send one chunk, as JSON text, to the session (after its opening, if that is still under way)."""

    session: int
    chunk: str


@value
class SubmitDone:
    """Tell Aim that no chunk follows."""

    session: int


@value
class CloseSession:
    """The session is no longer needed."""

    session: int


@value
class SetTimer:
    """Start a clock, or start it anew."""

    timer: Timer
    seconds: float


@value
class ClearTimer:
    """Stop a clock; nothing happens if it does not run."""

    timer: Timer


@value
class ReportVerdict:
    """Count a verdict, or the failure to get one (then with its reason)."""

    leg: Leg
    hook: Hook
    action: str
    reason: Reason | None = None
    policies: tuple[str, ...] = ()


@value
class ReportFailOpen:
    """Count that a leg went on without a verdict, because its policy says so."""

    leg: Leg
    reason: Reason


@value
class ReportChunks:
    """Count how submitted stream chunks ended: verified, rewritten, dropped or no_text."""

    result: str
    count: int


ToEnvoy = ReleaseHeaders | ReleaseBuffered | ReleaseBody | ReleaseTrailers | Reply | Reset

Errand = (
    Analyze
    | CancelAnalysis
    | OpenSession
    | SubmitChunk
    | SubmitDone
    | CloseSession
    | SetTimer
    | ClearTimer
    | ReportVerdict
    | ReportFailOpen
    | ReportChunks
)
"""What is done on Aim's side, by the clock and for the metrics."""

Command = ToEnvoy | Errand
