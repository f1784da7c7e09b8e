"""One HTTP exchange: the state machine that decides what is released.

Theory of operation
-------------------
`Exchange.handle(event, now)` takes an event and its time, and returns the commands that follow from it, in order. It is
total and synchronous, and has no clock, no randomness and no I/O. `deadline` says when the exchange wants to be woken;
the shell sets one timer and sends `Woken`.

An exchange has two legs. Each leg is a state machine of its own, written down as a table:

- `RequestLeg` (`REQUEST_TABLE`): a request that a dialect knows, or that is JSON on an unmatched path, is held until it
  is whole, sent to Aim under `pre_call`, and released unchanged or redacted. `reading` decides; other requests pass.
- `ResponseLeg` (`RESPONSE_TABLE`): a response that is read is handed to a `HeldAnswer` or a `ResponseStream`. Where the
  content type does not tell to which of them, its first bytes are awaited.
- `HeldAnswer` (`HELD_TABLE`): an answer is held until it is whole, and sent to Aim under `output`.
- `ResponseStream` (`STREAM_TABLE`): events wait in a `ReleaseQueue` while their texts are submitted to Aim's session.
  They are released as Aim verifies them.

`Inbound` (`INBOUND`) is the order in which the messages of a leg may arrive. An event that no table allows raises
`IllegalEvent`, which resets the exchange. docs/architecture.md shows the tables, generated from the code.

The legs share a `Context`, never the exchange. A leg that wants to end the exchange sets `Context.refusal`, and the
exchange ends itself once the leg returns.

An exchange ends in one of three ways: Envoy ends the stream (`StreamEnded`), the client is answered
(`ImmediateResponse`, or the end of the response), or the stream is reset (`Reset`). The shell must not end the
stream in any other way: after a clean end before `Complete`, Envoy would let everything pass.

The verdict of the `moderation` hook belongs to the exchange, not to a leg. Until it is known, all releases of the
response leg wait at a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never, get_args

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.writer import MEDIA_TYPES, reply
from extproc.core.commands import (
    Close,
    Command,
    Complete,
    Hold,
    ImmediateResponse,
    PauseReading,
    ReleaseHeaders,
    ReportOutcome,
    Reset,
    ResumeReading,
)
from extproc.core.context import Context
from extproc.core.dialects.endpoints import DEFAULT
from extproc.core.errors import IllegalEvent, ProtocolError
from extproc.core.events import (
    BodyReceived,
    Event,
    FromSession,
    HeadersReceived,
    LoadChanged,
    RoomDemanded,
    StreamEnded,
    TrailersReceived,
    VerdictReached,
    Woken,
)
from extproc.core.policy import Limits, Policy
from extproc.core.refusal import MISCONFIGURED, REQUEST_TOO_LARGE, Refusal, redaction_failed
from extproc.core.request_leg import RequestLeg
from extproc.core.response_leg import ResponseLeg
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor, strictest
from extproc.core.vocabulary import CALL_ID_HEADER, MODERATION, OUTPUT, PRE_CALL, REQUEST, RESPONSE, BodyMode, Headers


def misconfigured() -> ImmediateResponse:
    """Return the answer to a stream whose profile is not configured."""
    head = (("content-type", "application/json"),)
    return ImmediateResponse(MISCONFIGURED.status, head, DEFAULT.refuse(MISCONFIGURED), MISCONFIGURED.details)


class Exchange:
    """One request and its response."""

    yields_room = False
    """Whether the exchange gives up when the process is overloaded, to leave memory to others."""

    __slots__ = (
        "_bodies",
        "_context",
        "_held",
        "_is_closed",
        "_is_complete",
        "_is_paused",
        "_request",
        "_response",
        "_yields",
    )

    def __init__(
        self,
        call_id: str,
        policy: Policy,
        limits: Limits,
        *,
        request_mode: BodyMode = BodyMode.BUFFERED,
        began: int = 0,
    ) -> None:
        """Begin an exchange under `policy`, within `limits`. `call_id` identifies it to the client and to Aim.

        `began` is in seconds since 1970.
        """
        self._context = Context(call_id, policy, limits, began)
        self._request = RequestLeg(self._context, request_mode)
        self._response = ResponseLeg(self._context)
        self._bodies = self._held = self._yields = 0
        self._is_paused = False
        self._is_complete = False
        self._is_closed = False

    @property
    def deadline(self) -> float | None:
        """The time at which the exchange wants to be woken, in the time of `handle`; None if it does not."""
        if self._is_closed:
            return None
        of_search, of_stream = self._request.block.deadline, self._response.deadline
        if of_search is None:
            return of_stream
        return of_search if of_stream is None else min(of_search, of_stream)

    @property
    def is_request_unreleased(self) -> bool:
        """Return whether the request has arrived, at least in part, and was not released."""
        return self._request.is_unreleased

    @property
    def is_waiting(self) -> bool:
        """Return whether the exchange waits for a verdict or for a deadline."""
        return self._context.is_detecting or self.deadline is not None

    @property
    def is_complete(self) -> bool:
        """Return whether the client has its whole answer."""
        return self._is_complete

    @property
    def held_bodies(self) -> int:
        """Bytes of bodies and events that are held: what `limits.held_bytes` bounds for an event stream."""
        return self._bodies

    def weight(self, event: Event) -> int:
        """Return about how many bytes are read to handle `event`, 0 for few: the time that it takes grows with them."""
        if isinstance(event, _PIECES):
            leg = self._response if event.leg is RESPONSE else self._request
            return leg.weight(event)
        if isinstance(event, VerdictReached):
            return self._bodies
        return self._response.weight(event) if isinstance(event, _OF_STREAM) else 0

    def response_headers(self) -> ReleaseHeaders:
        """Return the command that releases the response's headers unchanged."""
        return self._context.response_headers()

    def handle(self, event: Event, now: float) -> list[Command]:
        """Handle `event`; return the commands that follow from it, in order.

        `now` is in seconds of a monotonic clock.
        """
        if self._is_closed:
            return []
        context = self._context
        context.now = now
        try:
            _ROUTES[type(event)](self, event)
        except ProtocolError as error:
            self._reset(error)
        if context.refusal is not None and not self._is_closed:
            self._refuse(context.refusal)
        self._account()
        return context.take_commands()

    # -- the two legs ----------------------------------------------------------------------------------------------

    def _on_headers(self, event: HeadersReceived) -> None:
        if event.leg is RESPONSE:
            self._on_response_headers(event)
        elif self._response.has_begun:
            raise IllegalEvent("a request after its response")
        else:
            self._request.handle(event)

    def _on_body(self, event: BodyReceived | TrailersReceived) -> None:
        if event.leg is RESPONSE:
            self._response.handle(event)
        else:
            self._request.handle(event)
            self._prepare_stream()

    def _on_session(self, event: FromSession | RoomDemanded) -> None:
        self._response.handle(event)

    def _on_woken(self, event: Woken) -> None:
        self._request.block.wake()
        self._response.handle(event)

    def _on_load_changed(self, event: LoadChanged) -> None:
        self._context.is_overloaded = event.is_overloaded

    def _prepare_stream(self) -> None:
        """Open a session as soon as the request is released, so that its handshake does not delay the client."""
        if self._request.expects_stream:
            self._request.expects_stream = False
            self._response.open_session()

    def _on_response_headers(self, event: HeadersReceived) -> None:
        if self._request.is_unreleased:
            # The request was not released, so this response is Envoy's own.
            self._context.is_reply_local = True
            self._context.cancel_detections()
            self._request.drop()
            if next((value for name, value in event.headers if name == ":status"), "") == "413":
                self._context.refuse(REQUEST_TOO_LARGE)
                return
        self._response.handle(event)

    # -- verdicts --------------------------------------------------------------------------------------------------

    def _on_verdict(self, event: VerdictReached) -> None:
        hook = self._context.finish_detection(event.detection)
        if hook is None:
            return
        leg = RESPONSE if hook is OUTPUT else REQUEST
        self._context.report(leg, hook, event.outcomes, event.milliseconds)
        if leg is RESPONSE:
            self._response.handle(event)
        elif hook is PRE_CALL:
            self._request.handle(event)
            self._prepare_stream()
        else:
            self._on_moderation(event)

    def _on_moderation(self, event: VerdictReached) -> None:
        context = self._context
        if self._request.block.takes(MODERATION, event.outcomes):
            return
        outcome = strictest(event.outcomes)
        match outcome:
            case Block():
                self._request.block.begin(MODERATION, outcome)
                return
            case Anonymize():
                # The request is upstream already: it is too late to redact it.
                context.refuse(redaction_failed(REQUEST))
            case Failed():
                context.fails_open(REQUEST, outcome.reason)
            case Allow() | Monitor():
                pass
            case _:
                assert_never(outcome)
        if not context.is_refused:
            for command in context.gate.open():
                context.release_response(command)

    # -- ends ------------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """End with `refusal`: as an immediate response, or in a response that has begun as its last bytes."""
        context = self._context
        context.emit(ReportOutcome(refusal.outcome, refusal.code, refusal.reason))
        if context.has_response_begun:
            for command in self._response.ending(refusal):
                context.emit(command)
        else:
            answer = context.new_answer() if refusal.is_block else None
            context.emit(self._refused(refusal) if answer is None else self._answered(refusal, answer))
        self._is_complete = True
        context.emit(Complete())
        self._close()

    def _refused(self, refusal: Refusal) -> ImmediateResponse:
        """Return the error that answers the client."""
        dialect = self._context.inspection.dialect or DEFAULT
        head = (("content-type", "application/json"), *dialect.refusal_headers(refusal), *refusal.headers)
        body = dialect.refuse(refusal)
        return ImmediateResponse(dialect.status(refusal), (*head, *self._named), body, refusal.details)

    def _answered(self, refusal: Refusal, answer: BlockAnswer) -> ImmediateResponse:
        """Return the answer that the block becomes: in the framing of the upstream's, or as the request asks."""
        framing = self._response.begun_framing or self._context.asked_framing
        head = (("content-type", MEDIA_TYPES[framing]), *self._named)
        return ImmediateResponse(200, head, reply(answer, refusal.message, framing), refusal.details)

    @property
    def _named(self) -> Headers:
        """The header with the call id, if the client gets it."""
        return ((CALL_ID_HEADER, self._context.call_id),) if self._context.inspection.was_read else ()

    def _reset(self, error: ProtocolError) -> None:
        self._context.emit(ReportOutcome("aborted"))
        self._context.emit(Reset(str(error)))
        self._close()

    def _on_stream_ended(self, _: StreamEnded) -> None:
        if not self._is_complete:
            self._context.emit(ReportOutcome("aborted"))
        self._close()

    def _close(self) -> None:
        """Free everything and tell the shell to forget the exchange."""
        self._is_closed = True
        context = self._context
        context.gate.open()
        context.cancel_detections()
        self._request.drop()
        self._response.drop()
        context.messages = ()
        context.emit(Close())

    # -- accounting ------------------------------------------------------------------------------------------------

    def _account(self) -> None:
        """Report the held bytes, whether reading must pause, and whether the client's answer is complete."""
        context, response = self._context, self._response
        is_over = not self._is_complete and response.is_done and context.gate.is_empty and not context.is_detecting
        if is_over:
            context.messages = ()
        of_response, kept, yields = response.holds()
        self._bodies = held = self._request.held + of_response + context.gate.held
        total = held + kept + context.held
        if total != self._held or yields != self._yields:
            self._held, self._yields = total, yields
            context.emit(Hold(total, yields))
        if self._is_closed:
            if self._is_paused:
                context.emit(ResumeReading())  # the shell must read on to see the end of the stream
            return
        if self._is_paused or held > context.limits.held_bytes:
            self._watch_hold(held)
        if is_over:
            self._is_complete = True
            context.emit(Complete())

    def _watch_hold(self, held: int) -> None:
        """Pause reading while the response holds as much as it may, and limit how long that lasts."""
        is_full = self._response.is_full(held)
        if is_full or self._is_paused:
            self._response.watch_hold(is_full=is_full)
        if is_full != self._is_paused:
            self._is_paused = is_full
            self._context.emit(PauseReading() if is_full else ResumeReading())


_PIECES = (BodyReceived, TrailersReceived)
_OF_STREAM = (*get_args(FromSession), RoomDemanded, Woken)

_ROUTES: Mapping[type[Event], Callable[[Exchange, Any], None]] = {
    HeadersReceived: Exchange._on_headers,
    BodyReceived: Exchange._on_body,
    TrailersReceived: Exchange._on_body,
    VerdictReached: Exchange._on_verdict,
    **dict.fromkeys((*get_args(FromSession), RoomDemanded), Exchange._on_session),
    Woken: Exchange._on_woken,
    LoadChanged: Exchange._on_load_changed,
    StreamEnded: Exchange._on_stream_ended,
}
"""The method for each type of event. The tables of the legs decide what follows."""
