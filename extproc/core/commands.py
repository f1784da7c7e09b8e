"""Commands: what the core wants done. Frozen values without behaviour.

A command that belongs to a detection or a session carries its number.
"""

from __future__ import annotations

from extproc.core.errors import Reason
from extproc.core.values import value
from extproc.core.vocabulary import Headers, Hook, Input, Leg, Timer


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
