"""The request leg: reads the request, starts its detection, and releases it unchanged or redacted."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never

from extproc.core.commands import ReleaseBody, ReleaseBuffered, ReleaseHeaders, ReleaseTrailers
from extproc.core.content.beginning import Beginning
from extproc.core.content.body import STALE, declared_length, most_inflated
from extproc.core.context import Context
from extproc.core.detections import MOST_INPUTS
from extproc.core.errors import ContentError, PieceOfText, Reason
from extproc.core.events import BodyReceived, FromEnvoy, HeadersReceived, TrailersReceived, VerdictReached
from extproc.core.identity import own_headers
from extproc.core.policy import Unmatched
from extproc.core.reading import Reading, Scope, begun_reading, is_preflight
from extproc.core.redaction import RedactionError
from extproc.core.refusal import (
    OVERLOADED,
    PATH_NOT_ALLOWED,
    SIGNED_HEADER,
    SIGNED_REQUEST,
    TOO_MANY_HEADERS,
    TWO_WAY_NOT_INSPECTED,
    UPGRADE_NOT_INSPECTED,
    UPLOAD_NOT_INSPECTED,
    Refusal,
    redaction_failed,
)
from extproc.core.request_block import RequestBlock
from extproc.core.request_reader import RequestReader
from extproc.core.signature import Signature, signature_of
from extproc.core.transitions import ENDED, NOTHING, Table, advance, find, ignore
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor, Outcome, strictest
from extproc.core.vocabulary import MODERATION, PRE_CALL, REQUEST, BodyMode, Hook
from extproc.core.whole_request import WholeRequest

_REQUEST_HOOKS = frozenset({PRE_CALL, MODERATION})


class RequestState(StrEnum):
    """The states of a request."""

    IDLE = "idle"
    """nothing has arrived"""
    PASSING = "passing"
    """it is released unread"""
    UNDECIDED = "undecided"
    """its first bytes will tell whether it is read"""
    HOLDING = "holding"
    """its body is kept until it is whole"""
    DETECTING = "detecting"
    """a detection of it is in progress under `pre_call`"""
    DONE = "done"
    """it was released"""
    DROPPED = "dropped"
    """it will not be released"""


_HOLDING = (RequestState.UNDECIDED, RequestState.HOLDING)
_UNRELEASED = (*_HOLDING, RequestState.DETECTING)


class RequestLeg:
    """One request; `REQUEST_TABLE` says which method handles which event."""

    def __init__(self, context: Context, mode: BodyMode) -> None:
        """Begin a leg that has received nothing."""
        self._context = context
        self._inspection = context.inspection
        self._is_buffered = mode is BodyMode.BUFFERED
        self._state = RequestState.IDLE
        self._inbound = NOTHING
        self._reader = RequestReader(context)
        self._remove: tuple[str, ...] = ()
        self._signature: Signature | None = None
        self._body = WholeRequest(context.limits.request_bytes)
        self._beginning: Beginning | None = None
        self._has_trailers = False
        self.block = RequestBlock(context)
        self.expects_stream = False
        """Whether the request was released and asks for an event stream that will be inspected."""

    @property
    def held(self) -> int:
        """Bytes held."""
        body = self._body
        return body.buffer.size + body.text_bytes + self.block.held

    @property
    def is_unreleased(self) -> bool:
        """Return whether the request was not released yet, so that a response can only be Envoy's own."""
        return self._state in _UNRELEASED

    def weight(self, event: BodyReceived | TrailersReceived) -> int:
        """Return about how many bytes are read to handle `event`: none before the body is whole."""
        data = event.data if isinstance(event, BodyReceived) else b""
        is_whole = self._is_buffered or isinstance(event, TrailersReceived) or event.end_of_stream
        if not is_whole or self._state not in _HOLDING:
            return 0
        limits = self._context.limits
        return most_inflated(self.held + len(data), self._reader.headers, limits.request_bytes, limits.inflate_ratio)

    def handle(self, event: FromEnvoy | VerdictReached) -> None:
        """Handle an event of this leg; raise IllegalEvent if the state does not allow it."""
        if not isinstance(event, VerdictReached):
            had_ended = self._inbound is ENDED
            self._inbound = advance(self._inbound, event)
            if had_ended:
                return
        find(REQUEST_TABLE, self._state, event)(self, event)

    # -- headers ---------------------------------------------------------------------------------------------------

    def _on_headers(self, event: HeadersReceived) -> None:
        """Decide by method and path, and on an unmatched path by content type, whether the request is inspected."""
        context = self._context
        first = dict(reversed(event.headers))
        self._reader.headers = event.headers
        self._reader.length = declared_length(first.get("content-length", ""))
        self._remove = own_headers(event.headers)
        self._signature = signature_of(event.headers)
        # An upgrade is a GET or an extended CONNECT. The upgraded connection could carry the same API.
        method = first.get(":method", "")
        is_upgrade = "upgrade" in first or method == "CONNECT"
        context.path = first.get(":path", "")
        if is_preflight(event.headers, end_of_stream=event.end_of_stream):
            self._pass(event.end_of_stream)
            return
        route = self._inspection.pick_dialect(method, context.path, is_upgrade=is_upgrade)
        if route.dialect is None and route.unmatched is Unmatched.BLOCK:
            context.refuse(PATH_NOT_ALLOWED)
        elif self._signature is not None and not self._signature.headers.isdisjoint(self._remove):
            context.refuse(SIGNED_HEADER)
        elif (reading := self._reader.reading(event.end_of_stream)) is Reading.UNREAD:
            self._pass(event.end_of_stream)
        elif is_upgrade:
            context.refuse(UPGRADE_NOT_INSPECTED)
        elif route.dialect is not None and route.dialect.is_two_way:
            context.refuse(TWO_WAY_NOT_INSPECTED)
        elif context.is_overloaded:
            context.refuse(OVERLOADED)
        elif len(event.headers) > context.limits.headers:
            context.refuse(TOO_MANY_HEADERS)
        else:
            signed = self._signature.headers if self._signature is not None else ()
            if self._inspection.scope is Scope.KNOWN and "accept-encoding" not in signed:
                self._remove = (*self._remove, "accept-encoding")
            if reading is Reading.UNDECIDED:
                self._beginning = Beginning(event.headers, context.limits.inflate_ratio)
            self._hold(event.end_of_stream)

    def _pass(self, end_of_stream: bool) -> None:
        """Release the request unread."""
        self._state = RequestState.DONE if end_of_stream else RequestState.PASSING
        # Envoy then streams the rest of a buffered body past the sidecar, and its buffer limit does not apply.
        skips_body = self._is_buffered and not end_of_stream
        self._context.emit(ReleaseHeaders(REQUEST, remove=self._remove, replace_body=skips_body))

    def _hold(self, end_of_stream: bool) -> None:
        if end_of_stream:
            self._state = RequestState.DONE
            self._reader.read_nothing()
            if not self._context.is_refused:
                self._context.emit(ReleaseHeaders(REQUEST, remove=self._remove))
            return
        if self._reader.length > self._context.limits.request_bytes:
            if not self._is_detected or self._context.fails_open(REQUEST, Reason.BODY_TOO_LARGE):
                self._pass(end_of_stream)
            return
        self._state = RequestState.HOLDING if self._beginning is None else RequestState.UNDECIDED
        if self._is_buffered:
            # Envoy sends the body only after this, and still holds the request.
            self._context.emit(ReleaseHeaders(REQUEST, remove=self._remove))

    # -- body and trailers -----------------------------------------------------------------------------------------

    def _pass_body(self, event: BodyReceived) -> None:
        """Release the body unread."""
        if self._is_buffered:
            self._context.emit(ReleaseBuffered(REQUEST))
        else:
            self._context.emit(ReleaseBody(REQUEST, event.data, event.end_of_stream))
        if event.end_of_stream or self._is_buffered:
            self._state = RequestState.DONE

    def _pass_trailers(self, _: TrailersReceived) -> None:
        """Release the trailers."""
        self._context.emit(ReleaseTrailers(REQUEST))
        self._state = RequestState.DONE

    def _begin_body(self, event: BodyReceived) -> None:
        """Hold the body if it begins like JSON, else release it."""
        assert self._beginning is not None
        self._beginning.feed(event.data)
        is_all = event.end_of_stream or self._is_buffered or self._beginning.is_enough
        match begun_reading(self._beginning.first, is_all=is_all):
            case Reading.UNDECIDED:
                self._hold_body(event)
            case Reading.UNREAD:
                self._release_begun(event)
            case _:
                self._inspection.adopt()
                self._state = RequestState.HOLDING
                self._hold_body(event)

    def _release_begun(self, event: BodyReceived) -> None:
        """Release a body that is not read, with the white space that came before."""
        self._state = RequestState.PASSING
        if not self._is_buffered:
            self._context.emit(ReleaseHeaders(REQUEST, remove=self._remove))
            event = BodyReceived(REQUEST, self._body.take() + event.data, event.end_of_stream)
        self._pass_body(event)

    def _hold_body(self, event: BodyReceived) -> None:
        """Hold the body; read it once it is whole."""
        if self._context.is_overloaded:
            self._context.refuse(OVERLOADED)
            return
        try:
            self._body.buffer.add(event.data)
        except ContentError as error:
            self._go_on_unread(error.reason, event.end_of_stream)
            return
        # A BUFFERED body is always whole. If trailers follow, end_of_stream is not set.
        if event.end_of_stream or self._is_buffered:
            self._read()

    def _end_by_trailers(self, event: TrailersReceived) -> None:
        """Read the body: the trailers are its end."""
        if self._is_buffered:
            self._pass_trailers(event)  # there is no body, so nothing is held
            return
        self._has_trailers = True
        self._read()

    def _note_trailers(self, _: TrailersReceived) -> None:
        """Record that the trailers must be released with the body."""
        self._has_trailers = True

    def _go_on_unread(self, reason: Reason, end_of_stream: bool, refusal: Refusal | None = None) -> None:
        """Release an unreadable request if no hook applies to requests or the failure policy allows it."""
        if self._is_detected and not self._context.fails_open(REQUEST, reason, refusal):
            return
        if end_of_stream or self._is_buffered:
            self._release(None)
        else:
            self._context.emit(ReleaseHeaders(REQUEST, remove=self._remove))
            self._context.emit(ReleaseBody(REQUEST, self._body.take()))
            self._state = RequestState.PASSING

    @property
    def _is_detected(self) -> bool:
        return not self._inspection.policy.hooks.isdisjoint(_REQUEST_HOOKS)

    def _read(self) -> None:
        """Read the whole body and start its detection."""
        context, body = self._context, self._body
        try:
            self._reader.read(body)
            if context.is_refused:
                return
            self._admit()
        except ContentError as error:
            body.forget_texts()
            context.messages = ()
            refusal = UPLOAD_NOT_INSPECTED if isinstance(error, PieceOfText) else None
            self._go_on_unread(error.reason, end_of_stream=True, refusal=refusal)
            return
        if body.messages and PRE_CALL in self._inspection.policy.hooks:
            self._state = RequestState.DETECTING
            self._detect(PRE_CALL)
        else:
            self._release(None)

    def _detect(self, hook: Hook) -> None:
        """Start the detection of the request."""
        context = self._context
        hooks = self._inspection.policy.hooks & _REQUEST_HOOKS
        most = MOST_INPUTS // len(hooks)
        self.block.expect(self._body.batch, most)
        context.detect(hook, self._body.inputs(most))

    def _admit(self) -> None:
        """Keep the context of the answer's detection; raise BodyTooLarge if the request is too much for Aim."""
        self._context.messages = self._body.conversation
        self._context.admit(self._body.messages, self._body.size)

    # -- the verdict -----------------------------------------------------------------------------------------------

    def _on_verdict(self, event: VerdictReached) -> None:
        """Apply the strictest `pre_call` verdict."""
        outcomes = event.outcomes
        if self.block.takes(PRE_CALL, outcomes):
            return
        outcome = strictest(outcomes)
        match outcome:
            case Allow() | Monitor():
                self._release(None)
            case Anonymize():
                self._redact(outcomes)
            case Block():
                self.block.begin(PRE_CALL, outcome)
            case Failed():
                if not self._context.fails_open(REQUEST, outcome.reason):
                    return
                if any(isinstance(each, Anonymize) for each in outcomes):
                    self._redact(outcomes)
                else:
                    self._release(None)
            case _:
                assert_never(outcome)

    def _redact(self, outcomes: Sequence[Outcome]) -> None:
        """Put the redacted texts back."""
        if self._signature is not None:
            self._context.refuse(SIGNED_REQUEST)
            return
        try:
            rewritten = self._body.redacted(outcomes)
            self._admit()
        except (RedactionError, ContentError):
            self._context.refuse(redaction_failed(REQUEST))
            return
        self._release(rewritten)

    def _release(self, rewritten: bytes | None) -> None:
        """Release the request, unchanged or rewritten, and start the `moderation` detection."""
        context = self._context
        self._state = RequestState.DONE
        original = self._body.take()
        if rewritten is not None:
            context.report_redacted()
        if self._is_buffered:
            if rewritten is None:
                context.emit(ReleaseBuffered(REQUEST))
            else:
                length = (("content-length", str(len(rewritten))),)
                context.emit(ReleaseBuffered(REQUEST, rewritten, set=length, remove=STALE))
        else:
            remove = self._remove if rewritten is None else (*self._remove, *STALE, "content-length")
            body = original if rewritten is None else rewritten
            context.emit(ReleaseHeaders(REQUEST, remove=remove))
            context.emit(ReleaseBody(REQUEST, body, end_of_stream=not self._has_trailers))
        if self._has_trailers:
            context.emit(ReleaseTrailers(REQUEST))
        if self._body.messages and MODERATION in self._inspection.policy.hooks:
            self._detect(MODERATION)
        self._body.forget_texts()
        self.expects_stream = self._body.asks_for_stream and self._inspection.reads_answer

    def drop(self) -> None:
        """Free what is held without releasing it."""
        self._state = RequestState.DROPPED
        self._body.take()
        self._body.forget_texts()
        self.block.forget()


_S = RequestState

REQUEST_TABLE: Table = {
    (_S.IDLE, HeadersReceived): RequestLeg._on_headers,
    (_S.PASSING, BodyReceived): RequestLeg._pass_body,
    (_S.PASSING, TrailersReceived): RequestLeg._pass_trailers,
    (_S.UNDECIDED, BodyReceived): RequestLeg._begin_body,
    (_S.UNDECIDED, TrailersReceived): RequestLeg._end_by_trailers,
    (_S.HOLDING, BodyReceived): RequestLeg._hold_body,
    (_S.HOLDING, TrailersReceived): RequestLeg._end_by_trailers,
    (_S.DETECTING, BodyReceived): ignore,
    (_S.DETECTING, TrailersReceived): RequestLeg._note_trailers,
    (_S.DETECTING, VerdictReached): RequestLeg._on_verdict,
    (_S.DONE, BodyReceived): ignore,
    (_S.DONE, TrailersReceived): RequestLeg._pass_trailers,
    (_S.DROPPED, BodyReceived): ignore,
    (_S.DROPPED, TrailersReceived): ignore,
}
