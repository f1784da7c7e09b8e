"""What surrounds an exchange, without I/O: it performs commands as Envoy would, and objects where Envoy would."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from extproc.config.settings import Limits, Profile
from extproc.core.commands import (
    Analyze,
    CancelAnalysis,
    ClearTimer,
    CloseSession,
    Command,
    OpenSession,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    Reply,
    ReportChunks,
    ReportFailOpen,
    ReportVerdict,
    Reset,
    SetTimer,
    SubmitChunk,
    SubmitDone,
)
from extproc.core.errors import Reason
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    Event,
    HeadersReceived,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TimerFired,
    TrailersReceived,
    VerdictReached,
)
from extproc.core.exchange import Exchange
from extproc.core.record import ExchangeRecord
from extproc.core.verdict import Allow, Outcome
from extproc.core.vocabulary import BodyMode, Headers, Leg, Timer

VERDICT_TIMEOUT = 15.0


@dataclass
class LegOut:
    """What went on of one leg."""

    headers: ReleaseHeaders | None = None
    buffered: ReleaseBuffered | None = None
    body: bytes = b""
    is_ended: bool = False


@dataclass
class World:
    """An exchange and its surroundings."""

    profile: Profile = field(default_factory=Profile)
    limits: Limits = field(default_factory=Limits)
    mode: BodyMode = BodyMode.BUFFERED
    is_overloaded: bool = False

    def __post_init__(self) -> None:
        self.exchange = Exchange(
            ExchangeRecord("call-1", "default"),
            self.profile,
            self.limits,
            verdict_timeout=VERDICT_TIMEOUT,
            request_mode=self.mode,
            is_overloaded=self.is_overloaded,
        )
        self.out = {Leg.REQUEST: LegOut(), Leg.RESPONSE: LegOut()}
        self.reply: Reply | None = None
        self.reset: Reset | None = None
        self.questions: dict[int, Analyze] = {}
        self.asked: list[Analyze] = []
        self.session: int | None = None
        self.opened: list[int] = []
        self.chunks: list[dict[str, Any]] = []
        self.is_submitted_done = False
        self.timers: dict[Timer, float] = {}
        self.times_set: Counter[Timer] = Counter()
        self.reports: list[Command] = []

    def send(self, event: Event) -> list[Command]:
        """Let the exchange handle `event`, and do what it says."""
        if isinstance(event, SessionFailed):
            self.session = None
        commands = self.exchange.handle(event)
        for command in commands:
            self._perform(command)
        return commands

    def _perform(self, command: Command) -> None:
        match command:
            case ReleaseHeaders() | ReleaseBuffered() | ReleaseBody() | ReleaseTrailers():
                assert self.reply is None, "a release after the reply"
                self._release(self.out[command.leg], command)
            case Reply():
                assert self.reply is None, "two replies"
                assert self.out[Leg.RESPONSE].headers is None, "a reply after the response's headers"
                self.reply = command
            case Reset():
                self.reset = command
            case Analyze():
                self.questions[command.analysis] = command
                self.asked.append(command)
            case CancelAnalysis():
                del self.questions[command.analysis]
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
            case SetTimer():
                self.timers[command.timer] = command.seconds
                self.times_set[command.timer] += 1
            case ClearTimer():
                del self.timers[command.timer]
            case ReportVerdict() | ReportFailOpen() | ReportChunks():
                self.reports.append(command)

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
        """Send bytes of a response."""
        self.send(BodyReceived(Leg.RESPONSE, data, end))
        return self

    def trailers(self) -> World:
        """Send a response's trailers."""
        self.send(TrailersReceived(Leg.RESPONSE))
        return self

    # -- Aim's side ----------------------------------------------------------------------------------------------

    def judge(self, *outcomes: Outcome) -> World:
        """Answer the oldest question; by default with an allow for each input."""
        number = next(iter(self.questions))
        question = self.questions.pop(number)
        self.send(VerdictReached(number, outcomes or (Allow(),) * len(question.inputs), 7))
        return self

    def verify(self, text: str | None, index: int = 0) -> World:
        """Release a chunk with one text."""
        chunk = {"choices": [{"index": index, "delta": {} if text is None else {"content": text}}]}
        return self.verify_chunk(chunk)

    def verify_chunk(self, chunk: dict[str, Any]) -> World:
        """Release a chunk as it is."""
        texts = tuple((choice["index"], choice["delta"].get("content")) for choice in chunk["choices"])
        self.send(ChunkVerified(self.opened[-1], texts, chunk))
        return self

    def verify_all(self) -> World:
        """Release every chunk that was submitted, as it was."""
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

    def fire(self, timer: Timer) -> World:
        """Let a clock run out that was set."""
        del self.timers[timer]
        self.send(TimerFired(timer))
        return self

    @property
    def response(self) -> LegOut:
        return self.out[Leg.RESPONSE]

    @property
    def upstream(self) -> LegOut:
        return self.out[Leg.REQUEST]

    @property
    def code(self) -> str:
        """The code of the refusal that was replied."""
        assert self.reply is not None, "no reply"
        return json.loads(self.reply.body)["error"]["code"]
