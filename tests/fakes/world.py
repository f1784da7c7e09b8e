"""The environment of an exchange, without I/O. It performs commands as the shell does, and fails where Envoy would."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from extproc.core.chunk import MARK
from extproc.core.commands import (
    CancelDetection,
    Close,
    CloseSession,
    Command,
    Complete,
    Detect,
    Hold,
    ImmediateResponse,
    OpenSession,
    PauseReading,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    ReportChunks,
    ReportDialect,
    ReportFailOpen,
    ReportGivenUp,
    ReportOutcome,
    ReportUnmatched,
    ReportVerdict,
    Reset,
    ResumeReading,
    SubmitChunk,
    SubmitDone,
    UseProfile,
)
from extproc.core.errors import Reason
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    Event,
    HeadersReceived,
    LoadChanged,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TrailersReceived,
    VerdictReached,
    Woken,
)
from extproc.core.exchange import Exchange
from extproc.core.policy import EVERY_REASON, FailureModeAllow, Inspect, Limits, Policy, Unmatched
from extproc.core.verdict import Allow, Outcome
from extproc.core.vocabulary import BodyMode, Headers, Hook, Leg
from extproc.telemetry.record import ExchangeRecord

VERDICT_TIMEOUT = 15.0

_Reasons = bool | Iterable[str]


def policy(
    *,
    hooks: Iterable[str] = ("pre_call", "output"),
    failure_mode_allow: _Reasons | dict[str, _Reasons] = False,
    inspect: Iterable[str] = (),
    unmatched: str = "inspect",
    **more: Any,
) -> Policy:
    """Return a policy, with values as in the settings."""
    allow = failure_mode_allow
    legs = allow if isinstance(allow, dict) else {"request": allow, "response": allow}
    return Policy(
        hooks=frozenset(map(Hook, hooks)),
        failure_mode_allow=FailureModeAllow(**{leg: _reasons(value) for leg, value in legs.items()}),
        inspect=frozenset(map(Inspect, inspect)),
        unmatched=Unmatched(unmatched),
        **more,
    )


def _reasons(value: _Reasons) -> frozenset[Reason]:
    if isinstance(value, bool):
        return EVERY_REASON if value else frozenset()
    return frozenset(map(Reason, value))


@dataclass
class LegOut:
    """The released parts of one leg."""

    headers: ReleaseHeaders | None = None
    buffered: ReleaseBuffered | None = None
    body: bytes = b""
    is_ended: bool = False


@dataclass
class World:
    """An exchange and its environment."""

    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    mode: BodyMode = BodyMode.BUFFERED
    is_overloaded: bool = False

    def __post_init__(self) -> None:
        self.exchange = Exchange("call-1", self.policy, self.limits, request_mode=self.mode)
        self.now = 1000.0
        self.out = {Leg.REQUEST: LegOut(), Leg.RESPONSE: LegOut()}
        self.reply: ImmediateResponse | None = None
        self.reset: Reset | None = None
        self.detections: dict[int, Detect] = {}
        self.asked: list[Detect] = []
        self.session: int | None = None
        self.opened: list[int] = []
        self.chunks: list[dict[str, Any]] = []
        self.is_submitted_done = False
        self.held = self.yields = 0
        self.is_paused = False
        self.is_complete = False
        self.is_closed = False
        self.record = ExchangeRecord("call-1", "default")
        self.reports: list[ReportVerdict | ReportFailOpen | ReportChunks] = []
        self.unmatched: list[ReportUnmatched] = []
        if self.is_overloaded:
            self.send(LoadChanged(is_overloaded=True))

    def send(self, event: Event) -> list[Command]:
        """Let the exchange handle `event`, and perform its commands."""
        if isinstance(event, SessionFailed):
            self.session = None
        assert self.exchange.weight(event) >= 0  # the shell asks at any time
        commands = self.exchange.handle(event, self.now)
        for command in commands:
            self._perform(command)
        assert not (self.is_closed and self.is_paused), "a closed exchange keeps the shell from reading"
        return commands

    def _perform(self, command: Command) -> None:
        match command:
            case ReleaseHeaders() | ReleaseBuffered() | ReleaseBody() | ReleaseTrailers():
                assert self.reply is None, "a release after the reply"
                self._release(self.out[command.leg], command)
            case ImmediateResponse():
                assert self.reply is None, "two replies"
                assert self.out[Leg.RESPONSE].headers is None, "a reply after the response's headers"
                self.reply = command
            case Reset():
                self.reset = command
            case Detect():
                self.detections[command.detection] = command
                self.asked.append(command)
            case CancelDetection():
                del self.detections[command.detection]
            case OpenSession():
                assert self.session is None, "two sessions at once"
                self.session = command.session
                self.opened.append(command.session)
            case SubmitChunk():
                assert command.session == self.session
                self.chunks.append(json.loads(command.chunk))
            case SubmitDone():
                assert command.session == self.session
                assert not self.is_submitted_done
                self.is_submitted_done = True
            case CloseSession():
                assert command.session == self.opened[-1]
                self.session = None
            case Hold(size, yields):
                assert (size, yields) != (self.held, self.yields), "the same size reported twice"
                assert 0 <= yields <= size
                self.held, self.yields = size, yields
            case PauseReading() | ResumeReading():
                assert self.is_paused is isinstance(command, ResumeReading)
                self.is_paused = isinstance(command, PauseReading)
            case Complete():
                assert not self.is_complete
                self.is_complete = True
            case Close():
                assert not self.is_closed
                self.is_closed = True
            case _:
                self._note(command)

    def _note(self, command: Command) -> None:
        """Update the record and the reports, as the shell's telemetry does."""
        match command:
            case UseProfile(profile):
                self.record.profile = profile
            case ReportDialect(dialect):
                self.record.name_dialect(dialect)
            case ReportOutcome(outcome, code, reason):
                self.record.reach(outcome, code, reason)
            case ReportVerdict(leg, _, outcomes, milliseconds):
                self.record.add_outcomes(leg, outcomes, milliseconds)
                self.reports.append(command)
            case ReportFailOpen() | ReportChunks():
                self.reports.append(command)
            case ReportUnmatched():
                self.unmatched.append(command)
            case _:
                assert not isinstance(command, ReportGivenUp)

    def _release(self, leg: LegOut, command: Command) -> None:
        assert not leg.is_ended, f"{command} after the end of the leg"
        match command:
            case ReleaseHeaders():
                assert leg.headers is None, "headers twice"
                leg.headers = command
            case ReleaseBuffered():
                assert leg.headers is not None
                assert leg.buffered is None
                leg.buffered = command
            case ReleaseBody():
                assert leg.headers is not None, "a body before its headers"
                leg.body += command.data
                leg.is_ended = command.end_of_stream
            case ReleaseTrailers():
                assert leg.headers is not None
                leg.is_ended = True

    # -- Envoy's side --------------------------------------------------------------------------------------------

    def request(
        self,
        body: bytes | None,
        *headers: tuple[str, str],
        path: str = "/v1/chat/completions",
        method: str = "POST",
        trailers: bool = False,
    ) -> World:
        """Send a whole request."""
        head: Headers = ((":method", method), (":path", path), *headers)
        self.send(HeadersReceived(Leg.REQUEST, head, end_of_stream=body is None))
        if body is not None:
            self.send(BodyReceived(Leg.REQUEST, body, end_of_stream=not trailers))
            if trailers:
                self.send(TrailersReceived(Leg.REQUEST))
        return self

    def head(
        self, content_type: str = "text/event-stream", status: str = "200", *headers: tuple[str, str], end: bool = False
    ) -> World:
        """Send a response's headers."""
        head: Headers = ((":status", status), ("content-type", content_type), *headers)
        self.send(HeadersReceived(Leg.RESPONSE, head, end_of_stream=end))
        return self

    def body(self, data: bytes, *, end: bool = False) -> World:
        """Send bytes of a response, and let the exchange go on until it has read them."""
        self.send(BodyReceived(Leg.RESPONSE, data, end))
        return self.wait(0)

    def trailers(self) -> World:
        """Send a response's trailers, and let the exchange go on until it has read all before them."""
        self.send(TrailersReceived(Leg.RESPONSE))
        return self.wait(0)

    # -- Aim's side ----------------------------------------------------------------------------------------------

    def judge(self, *outcomes: Outcome) -> World:
        """Answer the oldest open detection, by default with an allow for each input."""
        number = next(iter(self.detections))
        detection = self.detections.pop(number)
        self.send(VerdictReached(number, outcomes or (Allow(),) * len(detection.inputs), 7))
        return self

    def verify(self, text: str | None, index: int = 0, mark: int | None = None) -> World:
        """Verify a chunk with one text, and a mark if Aim echoes it."""
        chunk: dict[str, Any] = {"choices": [{"index": index, "delta": {} if text is None else {"content": text}}]}
        return self.verify_chunk(chunk if mark is None else chunk | {MARK: mark})

    def verify_chunk(self, chunk: dict[str, Any]) -> World:
        """Verify this chunk."""
        texts = tuple((choice["index"], choice["delta"].get("content")) for choice in chunk["choices"])
        self.send(ChunkVerified(self.opened[-1], texts, chunk))
        return self

    def verify_all(self) -> World:
        """Verify every submitted chunk, unchanged."""
        for chunk in tuple(self.chunks):
            self.verify_chunk(chunk)
        self.chunks.clear()
        return self

    def block(self, message: str = "Not that.") -> World:
        self.send(StreamBlocked(self.opened[-1], message, 7))
        return self

    def done(self) -> World:
        self.send(SessionDone(self.opened[-1], 7))
        return self

    def lose(self, reason: Reason = Reason.SESSION, *, opened: bool = True) -> World:
        self.send(SessionFailed(self.opened[-1], reason, opened))
        return self

    # -- the clock -----------------------------------------------------------------------------------------------

    @property
    def due_in(self) -> float | None:
        """Seconds until the exchange wants to be woken; None if it does not."""
        deadline = self.exchange.deadline
        return None if deadline is None else deadline - self.now

    def wait(self, seconds: float) -> World:
        """Let time pass, and wake the exchange at each of its deadlines."""
        end = self.now + seconds
        while (deadline := self.exchange.deadline) is not None and deadline <= end:
            self.wake()
        self.now = end
        return self

    def wake(self) -> World:
        """Let time pass until the exchange's deadline, and wake it."""
        deadline = self.exchange.deadline
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.send(Woken())
        return self

    @property
    def response(self) -> LegOut:
        return self.out[Leg.RESPONSE]

    @property
    def upstream(self) -> LegOut:
        return self.out[Leg.REQUEST]

    @property
    def status(self) -> int:
        """The status of the refusal."""
        assert self.reply is not None, "no reply"
        return self.reply.status

    @property
    def code(self) -> str:
        """The code of the refusal."""
        assert self.reply is not None, "no reply"
        return str(json.loads(self.reply.body)["error"]["code"])
