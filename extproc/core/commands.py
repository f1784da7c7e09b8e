"""Commands: what an exchange asks the shell to do. Frozen values without behaviour.

A command for a detection or a session carries its number.
"""

from __future__ import annotations

from dataclasses import dataclass

from extproc.core.errors import Reason
from extproc.core.verdict import Outcome
from extproc.core.vocabulary import Headers, Hook, Input, Leg

# -- for Envoy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReleaseHeaders:
    """Release a leg's headers, with these fields set and removed.

    `replace_body` is Envoy's CONTINUE_AND_REPLACE without a body: Envoy sends the rest of the leg past the sidecar.
    """

    leg: Leg
    set: Headers = ()
    remove: tuple[str, ...] = ()
    replace_body: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseBuffered:
    """Release the body of a BUFFERED leg: unchanged if `body` is None, else replaced by `body`."""

    leg: Leg
    body: bytes | None = None
    set: Headers = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseBody:
    """Release bytes of a full-duplex leg; `end_of_stream` ends the leg."""

    leg: Leg
    data: bytes
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseTrailers:
    """Release a leg's trailers, which ends the leg."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class ImmediateResponse:
    """Answer the client in place of the upstream. No command for Envoy can follow."""

    status: int
    headers: Headers
    body: bytes
    details: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Abort the gRPC stream. No command for Envoy can follow.

    `misconfigured` means that Envoy's filter is set up wrongly.
    """

    message: str
    misconfigured: bool = False


# -- for Aim -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detect:
    """Start a detection of each input. A `VerdictReached` with the same number brings the outcomes."""

    detection: int
    hook: Hook
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class CancelDetection:
    """Stop a detection whose verdict no longer matters."""

    detection: int


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open Aim's websocket for the streamed answer that is expected."""

    session: int


@dataclass(frozen=True, slots=True)
class SubmitChunk:
    """Send one chunk, as JSON text, in the session; if it is still opening, once it is open."""

    session: int
    chunk: str


@dataclass(frozen=True, slots=True)
class SubmitDone:
    """Tell Aim that no further chunk follows."""

    session: int


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Close a session that is no longer needed."""

    session: int


# -- for the shell itself ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hold:
    """Count the exchange as holding this many bytes from now on.

    `yields` of them are freed, or at least sent on, if the exchange gets `RoomDemanded`.
    """

    size: int
    yields: int = 0


@dataclass(frozen=True, slots=True)
class PauseReading:
    """Stop reading from Envoy: the exchange has reached its limit of held bytes."""


@dataclass(frozen=True, slots=True)
class ResumeReading:
    """Read from Envoy again."""


@dataclass(frozen=True, slots=True)
class Complete:
    """Accept the end of the gRPC stream from now on: the client has its whole answer."""


@dataclass(frozen=True, slots=True)
class Close:
    """Forget the exchange: it handles no further event. What was released before is still sent."""


@dataclass(frozen=True, slots=True)
class UseProfile:
    """Make later detections and reports under this profile, because of the model that the request names."""

    profile: str


# -- for operators -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportDialect:
    """Record the dialect of the request."""

    dialect: str


@dataclass(frozen=True, slots=True)
class ReportUnmatched:
    """Record that no dialect knows the path of the request. Both values are the client's."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class ReportVerdict:
    """Count each outcome of a detection or a session that took `milliseconds`."""

    leg: Leg
    hook: Hook
    outcomes: tuple[Outcome, ...]
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """Record how the exchange ends: one of `extproc.telemetry.record.OUTCOMES`, with the code of its refusal.

    `reason` says why a leg failed, where the code has several causes.
    """

    outcome: str
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReportFailOpen:
    """Count a leg that is released without a verdict because its failure policy allows it."""

    leg: Leg
    reason: Reason


@dataclass(frozen=True, slots=True)
class ReportChunks:
    """Count `count` submitted chunks with this result: verified, rewritten, dropped or no_text."""

    result: str
    count: int


@dataclass(frozen=True, slots=True)
class ReportGivenUp:
    """Log that a dry run stopped its detections, because it held too much or because of `error`."""

    error: Exception | None = None


ToEnvoy = ReleaseHeaders | ReleaseBuffered | ReleaseBody | ReleaseTrailers | ImmediateResponse | Reset
ToAim = Detect | CancelDetection | OpenSession | SubmitChunk | SubmitDone | CloseSession
ToShell = Hold | PauseReading | ResumeReading | Complete | Close | UseProfile
Report = ReportDialect | ReportUnmatched | ReportVerdict | ReportOutcome | ReportFailOpen | ReportChunks | ReportGivenUp
Command = ToEnvoy | ToAim | ToShell | Report
