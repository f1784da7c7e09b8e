"""One HTTP exchange: the state machine that decides what may go on.

Theory of operation
-------------------
`Exchange.handle(event)` takes what happened and returns what is to be done. It is synchronous and total, and knows
no clock, no randomness, no I/O. One exchange has two legs, each a state machine of its own:

    state      headers                     body                          verdict or session         failed
    IDLE       not inspectable: PASSING    protocol error
               inspectable: HOLDING
               an event stream: STREAMING
    PASSING                                released unchanged
    HOLDING                                buffered; whole: JUDGING
    JUDGING                                ignored                       allow, monitor: as it came closed: refused
                                                                         anonymize: rewritten       open: as it came
                                                                         block: refused
    STREAMING                              events are queued and         verified: released         closed: refused
                                           their texts submitted         done: the rest             open: all released
    DONE                                   ignored

An exchange ends in one of three ways: Envoy ends it, it is answered (`Reply`, or a last body with end_of_stream), or
it is reset. `is_closed` says that nothing can follow. Envoy takes a clean end of our side before that as leave to
pass everything, so the shell has no other way out than these.

The verdict of the `moderation` hook belongs to the exchange, not to a leg: until it is there, all that the response
leg releases is kept behind a gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, assert_never

from extproc.core.commands import (
    Analyze,
    CancelAnalysis,
    Command,
    ReleaseBody,
    ReleaseHeaders,
    ReleaseTrailers,
    Reply,
    ReportFailOpen,
    ReportVerdict,
    Reset,
)
from extproc.core.dialects import DEFAULT, Dialect, pick
from extproc.core.errors import ProtocolError, Reason
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
from extproc.core.record import CALL_ID_HEADER, ExchangeRecord
from extproc.core.refusal import (
    BLOCKED_REQUEST,
    BLOCKED_RESPONSE,
    MISCONFIGURED,
    Refusal,
    blocked,
    failed,
    quotes_any,
    redaction_failed,
)
from extproc.core.request_leg import RequestLeg
from extproc.core.response_leg import ResponseLeg
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor, Outcome
from extproc.core.vocabulary import BodyMode, Hook, Input, Leg

if TYPE_CHECKING:
    from extproc.config.settings import Limits, Profile


def misconfigured() -> Reply:
    """Return the answer to a stream whose profile nobody configured."""
    head = (("content-type", "application/json"),)
    return Reply(MISCONFIGURED.status, head, DEFAULT.refuse(MISCONFIGURED), MISCONFIGURED.details)


class Exchange:
    """One request and its response; see the module's text."""

    def __init__(
        self,
        record: ExchangeRecord,
        profile: Profile,
        limits: Limits,
        *,
        verdict_timeout: float,
        request_mode: BodyMode = BodyMode.BUFFERED,
        is_overloaded: bool = False,
    ) -> None:
        """Begin an exchange under `profile`; one that finds the process overloaded is refused if it is inspected.

        `is_overloaded` may change later: a body that arrives then is not held, the exchange is refused.
        `verdict_timeout` is how long, in seconds, Aim may be silent in a session while it owes a word.
        """
        self.record = record
        self.profile = profile
        self.limits = limits
        self.verdict_timeout = verdict_timeout
        self.is_overloaded = is_overloaded
        self.dialect: Dialect | None = None
        self.is_closed = False
        self.held_bytes = 0
        """Bytes that this exchange holds now."""
        self.is_paused = False
        """Whether reading from Envoy is to wait, because as much is held as may be."""
        self.request = RequestLeg(self, request_mode)
        self.response = ResponseLeg(self)
        self._commands: list[Command] = []
        self._gated: list[Command] = []
        self._gated_bytes = 0
        self._moderation: int | None = None
        self._analyses: dict[int, Hook] = {}
        self._numbers = 0
        self._headers_out = False

    @property
    def is_gated(self) -> bool:
        """Tell whether what the response releases waits for the verdict of `moderation`."""
        return self._moderation is not None

    @property
    def is_complete(self) -> bool:
        """Tell whether the client got an end, and not by accident."""
        return self.is_closed or (self.response.is_done and not self._gated and not self._analyses)

    @property
    def is_inspected(self) -> bool:
        """Tell whether a dialect knows the request and a hook looks at it."""
        dialect, profile = self.dialect, self.profile
        return dialect is not None and bool(profile.hooks) and dialect.is_inspected(profile.inspect)

    @property
    def reads_answer(self) -> bool:
        """Tell whether the answer is looked at: it has texts that a hook is to judge."""
        return (
            self.is_inspected
            and self.dialect is not None
            and self.dialect.reads_answers
            and Hook.OUTPUT in self.profile.hooks
        )

    def handle(self, event: Event) -> list[Command]:
        """Return what is to be done about `event`, in order."""
        if not self.is_closed:
            try:
                self._dispatch(event)
            except ProtocolError as error:
                self.is_closed = True
                self.record.outcome = "aborted"
                self._clean_up()
                self._commands.append(Reset(str(error)))
            self._measure()
        commands, self._commands = self._commands, []
        return commands

    def _measure(self) -> None:
        """Tell how much is held, once for each event, and have a full hold watched."""
        self.held_bytes = held = self.request.held + self.response.held + self._gated_bytes
        is_paused = not self.is_closed and self.response.is_full(held)
        if is_paused or self.is_paused:
            self.is_paused = is_paused
            self.response.watch_hold()

    def _dispatch(self, event: Event) -> None:
        match event:
            case BodyReceived(leg=Leg.RESPONSE):
                self.response.on_body(event.data, event.end_of_stream)
            case ChunkVerified() | SessionDone() | SessionFailed() | StreamBlocked() | TimerFired():
                self.response.on_session(event)
            case BodyReceived():
                self.request.on_body(event.data, event.end_of_stream)
            case HeadersReceived(leg=Leg.REQUEST):
                self.request.on_headers(event)
            case HeadersReceived():
                self.response.on_headers(event)
            case TrailersReceived(leg=Leg.REQUEST):
                self.request.on_trailers()
            case TrailersReceived():
                self.response.on_trailers()
            case VerdictReached():
                self._on_verdict(event)
            case _:
                assert_never(event)

    def _on_verdict(self, event: VerdictReached) -> None:
        hook = self._analyses.pop(event.analysis, None)
        if hook is None:
            return
        leg = Leg.RESPONSE if hook is Hook.OUTPUT else Leg.REQUEST
        for outcome in event.outcomes:
            self.report(leg, hook, outcome)
        match hook:
            case Hook.PRE_CALL:
                self.request.on_verdict(event)
            case Hook.OUTPUT:
                self.response.on_verdict(event)
            case Hook.MODERATION:
                self._on_moderation(event)
            case _:
                assert_never(hook)

    def _on_moderation(self, event: VerdictReached) -> None:
        (outcome,) = event.outcomes
        self.record.judge(Leg.REQUEST, outcome.action, outcome.policies, event.milliseconds)
        match outcome:
            case Block():
                self.refuse_blocked(Leg.REQUEST, outcome.message)
                return
            case Anonymize():
                # The request is on its way: too late to redact it.
                self.refuse(redaction_failed(Leg.REQUEST))
                return
            case Failed():
                if not self.fails_open(Leg.REQUEST, outcome.reason):
                    return
            case Allow() | Monitor():
                pass
            case _:
                assert_never(outcome)
        self._moderation = None
        gated, self._gated = self._gated, []
        self._gated_bytes = 0
        for command in gated:
            self.emit(command)

    # -- what the legs use ---------------------------------------------------------------------------------------

    def pick_dialect(self, method: str, path: str) -> Dialect | None:
        """Choose the dialect by method and path, and remember it."""
        self.dialect = pick(method, path, self.profile.paths)
        if self.dialect is not None:
            self.record.dialect = self.dialect.name
        if self.is_inspected:
            self.record.reach("allowed")
        return self.dialect

    def emit(self, command: Command) -> None:
        """Have `command` done; what the response leg releases waits while moderation is under way."""
        if isinstance(command, (ReleaseHeaders, ReleaseBody, ReleaseTrailers)) and command.leg is Leg.RESPONSE:
            if self.is_gated:
                self._gated.append(command)
                if isinstance(command, ReleaseBody):
                    self._gated_bytes += len(command.data)
                return
            self._headers_out = True
        self._commands.append(command)

    def number(self) -> int:
        """Return a number that this exchange has not used yet."""
        self._numbers += 1
        return self._numbers

    def analyze(self, hook: Hook, inputs: Sequence[Input]) -> None:
        """Ask Aim."""
        number = self.number()
        self._analyses[number] = hook
        if hook is Hook.MODERATION:
            self._moderation = number
        self.emit(Analyze(number, hook, tuple(inputs)))

    def cancel_analyses(self) -> None:
        """Forget every question that is under way."""
        for number in self._analyses:
            self.emit(CancelAnalysis(number))
        self._analyses.clear()

    def report(self, leg: Leg, hook: Hook, outcome: Outcome) -> None:
        """Count an outcome."""
        reason = outcome.reason if isinstance(outcome, Failed) else None
        self.emit(ReportVerdict(leg, hook, outcome.action, reason, outcome.policies))

    def fails_open(self, leg: Leg, reason: Reason) -> bool:
        """Apply the failure policy: count an opening and return True, or refuse the exchange and return False."""
        if self.profile.failure_mode_allow.opens(leg, reason):
            self.record.reach("failed_open", reason)
            self.emit(ReportFailOpen(leg, reason))
            return True
        self.refuse_unread(leg, reason)
        return False

    def refuse_unread(self, leg: Leg, reason: Reason) -> None:
        """Refuse what could not be inspected."""
        self.refuse(failed(leg, reason))

    def refuse_blocked(self, leg: Leg, message: str | None, withheld: Iterable[str] = ()) -> None:
        """Refuse what Aim blocked; its message goes along unless it quotes what is being withheld."""
        fixed = BLOCKED_REQUEST if leg is Leg.REQUEST else BLOCKED_RESPONSE
        if message and leg is Leg.RESPONSE and quotes_any(message, withheld):
            message = None
        self.refuse(blocked(self.profile.block_message or message or fixed), outcome="blocked")

    def refuse(self, refusal: Refusal, *, outcome: str = "refused") -> None:
        """End the exchange with `refusal`: as a reply, or at the end of a stream that has begun."""
        self.record.reach(outcome, refusal.code)
        self.is_closed = True
        dialect = self.dialect or DEFAULT
        if self._headers_out:
            for command in self.response.ending(dialect.refuse_stream(refusal, self.response.sequence)):
                self._commands.append(command)
        else:
            body = dialect.refuse(refusal)
            head = (("content-type", "application/json"), (CALL_ID_HEADER, self.record.call_id))
            self._commands.append(Reply(refusal.status, head, body, refusal.details))
        self._clean_up()

    def forget(self) -> None:
        """Let go of the legs: they refer back, and what refers to itself waits for the garbage collector.

        Nothing can be handled after that.
        """
        del self.request, self.response

    def _clean_up(self) -> None:
        self._gated.clear()
        self._gated_bytes = 0
        self.cancel_analyses()
        self.request.drop()
        self.response.drop()
