"""An answer that is held until it is whole: its state machine, from its first bytes to its release."""

from __future__ import annotations

from enum import StrEnum

from extproc.core.commands import ReleaseBody, ReleaseTrailers
from extproc.core.content.body import STALE
from extproc.core.content.framing import WHOLE, Framing
from extproc.core.context import Context
from extproc.core.dialects.endpoints import DEFAULT
from extproc.core.errors import BodyTooLarge, ContentError, PieceOfText, Reason
from extproc.core.events import BodyReceived, TrailersReceived, VerdictReached
from extproc.core.reading import ERROR_BYTES, Answer
from extproc.core.redaction import RedactionError
from extproc.core.refusal import OVERLOADED, redaction_failed
from extproc.core.transitions import Table, find
from extproc.core.verdict import Block, Failed, strictest
from extproc.core.vocabulary import OUTPUT, RESPONSE, Headers
from extproc.core.whole_answer import WholeAnswer


class HeldState(StrEnum):
    """The states of an answer that is held."""

    HOLDING = "holding"
    """its body is kept until it is whole"""
    DETECTING = "detecting"
    """a detection of it is in progress under `output`"""
    UNREAD = "unread"
    """what was held was released unread, and the rest passes"""
    RELEASED = "released"
    """it was released to its end, or will not be"""


class HeldAnswer:
    """One answer that is held; `HELD_TABLE` says which method handles which event."""

    __slots__ = ("_answer", "_body", "_context", "_framing", "_has_trailers", "_headers", "state")

    def __init__(self, context: Context, headers: Headers, answer: Answer) -> None:
        """Hold the body of the answer with these headers."""
        self._context = context
        self._headers = headers
        self._answer = answer
        self._body = WholeAnswer(context.limits.response_bytes)
        self._framing = WHOLE
        self._has_trailers = False
        self.state = HeldState.HOLDING
        """Whether the answer is still held."""

    @property
    def held(self) -> int:
        """Bytes held."""
        body = self._body
        return body.buffer.size + body.text_bytes

    def begin(self, framing: Framing, *, has_trailers: bool) -> None:
        """Hold the answer until it is whole, unless it is a range or says that it is too large.

        `has_trailers`: they have arrived.
        """
        self._framing = framing
        self._has_trailers = has_trailers
        if self._answer.is_part:
            self._go_on_unread(PieceOfText.reason, end_of_stream=False)
        elif self._answer.length > self._context.limits.response_bytes:
            self._go_on_unread(BodyTooLarge.reason, end_of_stream=False)

    def handle(self, event: BodyReceived | TrailersReceived | VerdictReached) -> None:
        """Handle an event of this answer; raise IllegalEvent if the state does not allow it."""
        find(HELD_TABLE, self.state, event)(self, event)

    def take(self) -> bytes:
        """Remove and return all bytes, as they came."""
        return self._body.take()

    # -- until the answer is whole ---------------------------------------------------------------------------------

    def _hold(self, event: BodyReceived) -> None:
        """Hold the body; read it once it is whole."""
        if self._context.is_overloaded:
            self._context.refuse(OVERLOADED)
            return
        try:
            self._body.buffer.add(event.data)
        except ContentError as error:
            self._go_on_unread(error.reason, event.end_of_stream)
            return
        if self._answer.is_error and self._body.buffer.size > ERROR_BYTES:
            self._release_unread(event.end_of_stream)
        elif event.end_of_stream:
            self._read()

    def _end_by_trailers(self, _: TrailersReceived) -> None:
        """Read the body: the trailers are its end."""
        self._has_trailers = True
        self._read()

    def _go_on_unread(self, reason: Reason, end_of_stream: bool) -> None:
        """Release an unreadable answer if the failure policy allows it."""
        if self._context.fails_open(RESPONSE, reason):
            self._release_unread(end_of_stream)

    def _release_unread(self, end_of_stream: bool) -> None:
        if end_of_stream or self._has_trailers:
            self.release(None)
            return
        self.state = HeldState.UNREAD
        self._context.release_headers()
        if self._body.buffer.size:
            self._context.release_response(ReleaseBody(RESPONSE, self._body.take()))

    # -- the whole answer ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read the whole body and start its detection."""
        context, body = self._context, self._body
        inspection = context.inspection
        inspection.adopt_answer()
        inspection.was_read = True
        try:
            body.read(inspection.dialect or DEFAULT, self._framing, self._headers, context.limits)
            if inspection.is_stored and inspection.policy.models and not self._is_read_for_its_model():
                self.release(None)
                return
            inputs = body.inputs(context.messages, context.allowance)
        except ContentError as error:
            self._go_on_unread(error.reason, end_of_stream=True)
            return
        if inputs:
            self.state = HeldState.DETECTING
            context.detect(OUTPUT, inputs)
        else:
            self.release(body.cleaned())

    def _is_read_for_its_model(self) -> bool:
        """Follow the model of a stored answer: the request that made it is not known. Return whether it is read."""
        inspection = self._context.inspection
        return inspection.follow_models(self._body.models) and OUTPUT in inspection.policy.hooks

    def _on_verdict(self, event: VerdictReached) -> None:
        """Apply the strictest `output` verdict."""
        context, body = self._context, self._body
        decisive = strictest(event.outcomes)
        if isinstance(decisive, Block):
            context.refuse_blocked(RESPONSE, decisive.message, [leaf.text for leaf in body.leaves])
            return
        if isinstance(decisive, Failed) and not context.fails_open(RESPONSE, decisive.reason):
            return
        try:
            rewritten = body.redacted(event.outcomes)
        except (RedactionError, ContentError):
            context.refuse(redaction_failed(RESPONSE))
            return
        if rewritten is not None:
            context.report_redacted()
        self.release(body.cleaned() if rewritten is None else rewritten)

    def release(self, rewritten: bytes | None) -> None:
        """Release the whole body, as it came or rewritten."""
        self.state = HeldState.RELEASED
        original = self._body.take()
        self._context.release_headers(() if rewritten is None else (*STALE, "content-length"))
        body = original if rewritten is None else rewritten
        if body or not self._has_trailers:
            self._context.release_response(ReleaseBody(RESPONSE, body, end_of_stream=not self._has_trailers))
        if self._has_trailers:
            self._context.release_response(ReleaseTrailers(RESPONSE))


_S = HeldState

HELD_TABLE: Table = {
    (_S.HOLDING, BodyReceived): HeldAnswer._hold,
    (_S.HOLDING, TrailersReceived): HeldAnswer._end_by_trailers,
    (_S.DETECTING, VerdictReached): HeldAnswer._on_verdict,
}
