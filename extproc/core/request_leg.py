"""The request leg: reads the request, starts its detection, and releases it unchanged or redacted."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from extproc.core.commands import ReleaseBody, ReleaseBuffered, ReleaseHeaders, ReleaseTrailers
from extproc.core.content.beginning import Beginning
from extproc.core.content.body import STALE, BodyBuffer, declared_length, inflate
from extproc.core.content.document import Document
from extproc.core.content.framing import Framing
from extproc.core.content.media_type import is_json_lines, media_types
from extproc.core.context import Context
from extproc.core.dialects.leaf import Prompt
from extproc.core.dialects.paths import GENERIC
from extproc.core.errors import ContentError, Reason
from extproc.core.events import BodyReceived, FromEnvoy, HeadersReceived, TrailersReceived, VerdictReached
from extproc.core.identity import own_headers
from extproc.core.policy import Inspect, Unmatched
from extproc.core.reading import Reading, Scope, begun_reading, document_of, is_preflight, request_reading
from extproc.core.redaction import RedactionError, edits, redacted_prompts
from extproc.core.refusal import (
    OVERLOADED,
    PATH_NOT_ALLOWED,
    TOO_MANY_HEADERS,
    UPGRADE_NOT_INSPECTED,
    redaction_failed,
)
from extproc.core.transitions import Inbound, Table, advance, find, ignore
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor
from extproc.core.vocabulary import BodyMode, Headers, Hook, Input, Leg

_JUDGING_HOOKS = frozenset({Hook.PRE_CALL, Hook.MODERATION})


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
    JUDGING = "judging"
    """Aim judges it under `pre_call`"""
    DONE = "done"
    """it was released"""
    DROPPED = "dropped"
    """it will not be released"""


class RequestLeg:
    """One request; `REQUEST_TABLE` says which method handles which event."""

    def __init__(self, context: Context, mode: BodyMode) -> None:
        """Begin a leg that has received nothing."""
        self._context = context
        self._mode = mode
        self._state = RequestState.IDLE
        self._inbound = Inbound.NOTHING
        self._headers: Headers = ()
        self._path = ""
        self._remove: tuple[str, ...] = ()
        self._buffer = BodyBuffer(context.limits.request_bytes)
        self._beginning: Beginning | None = None
        self._document: Document | None = None
        self._prompts: list[Prompt] = []
        self._has_trailers = False
        self._asks_for_stream = False
        self.expects_stream = False
        """Whether the request was released and asks for an event stream that will be inspected."""

    @property
    def held(self) -> int:
        """Bytes held."""
        return self._buffer.size + (self._document.size if self._document is not None else 0)

    @property
    def is_unreleased(self) -> bool:
        """Return whether the request was not released yet, so that a response can only be Envoy's own."""
        return self._state in (RequestState.UNDECIDED, RequestState.HOLDING, RequestState.JUDGING)

    def handle(self, event: FromEnvoy | VerdictReached) -> None:
        """Handle an event of this leg; raise IllegalEvent if the state does not allow it."""
        if not isinstance(event, VerdictReached):
            had_ended = self._inbound is Inbound.ENDED
            self._inbound = advance(self._inbound, event)
            if had_ended:
                return
        find(REQUEST_TABLE, self._state, event)(self, event)

    # -- headers ---------------------------------------------------------------------------------------------------

    def _on_headers(self, event: HeadersReceived) -> None:
        """Decide by method and path, and on an unmatched path by content type, whether the request is inspected."""
        context = self._context
        self._headers = event.headers
        first = dict(reversed(event.headers))
        self._remove = own_headers(event.headers)
        # An upgrade is a GET or an extended CONNECT. The upgraded connection could carry the same API.
        method = first.get(":method", "")
        is_upgrade = "upgrade" in first or method == "CONNECT"
        self._path = first.get(":path", "")
        if is_preflight(event.headers, end_of_stream=event.end_of_stream):
            self._pass(event.end_of_stream)
            return
        route = context.pick_dialect(method, self._path, is_upgrade=is_upgrade)
        if route.dialect is None and route.unmatched is Unmatched.BLOCK:
            context.refuse(PATH_NOT_ALLOWED)
        elif self._reading(event, first.get("content-length", "")) is Reading.UNREAD:
            self._pass(event.end_of_stream)
        elif is_upgrade:
            context.refuse(UPGRADE_NOT_INSPECTED)
        elif context.is_overloaded:
            context.refuse(OVERLOADED)
        elif len(event.headers) > context.limits.headers:
            context.refuse(TOO_MANY_HEADERS)
        else:
            self._hold(event.end_of_stream, first.get("content-length", ""))

    def _reading(self, event: HeadersReceived, content_length: str) -> Reading:
        """Return how the request is read, as far as its headers tell."""
        context = self._context
        limits = context.limits
        if context.scope is Scope.KNOWN:
            self._remove = (*self._remove, "accept-encoding")
            return Reading.WHOLE
        if context.scope is Scope.NOTHING or event.end_of_stream:
            return Reading.UNREAD
        reading = request_reading(media_types(event.headers), declared_length(content_length), limits.request_bytes)
        if reading is Reading.UNDECIDED:
            self._beginning = Beginning(event.headers, limits.inflate_ratio)
        elif reading is not Reading.UNREAD:
            context.adopt()
        return reading

    def _pass(self, end_of_stream: bool) -> None:
        """Release the request unread."""
        self._state = RequestState.DONE if end_of_stream else RequestState.PASSING
        # Envoy then streams the rest of a buffered body past the sidecar, and its buffer limit does not apply.
        skips_body = self._mode is BodyMode.BUFFERED and not end_of_stream
        self._context.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove, replace_body=skips_body))

    def _hold(self, end_of_stream: bool, content_length: str) -> None:
        if end_of_stream:
            self._state = RequestState.DONE
            self._context.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))
            return
        if declared_length(content_length) > self._context.limits.request_bytes:
            if not self._is_judged or self._context.fails_open(Leg.REQUEST, Reason.BODY_TOO_LARGE):
                self._pass(end_of_stream)
            return
        self._state = RequestState.HOLDING if self._beginning is None else RequestState.UNDECIDED
        if self._mode is BodyMode.BUFFERED:
            # Envoy sends the body only after this, and still holds the request.
            self._context.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))

    # -- body and trailers -----------------------------------------------------------------------------------------

    def _pass_body(self, event: BodyReceived) -> None:
        """Release the body unread."""
        is_buffered = self._mode is BodyMode.BUFFERED
        if is_buffered:
            self._context.emit(ReleaseBuffered(Leg.REQUEST))
        else:
            self._context.emit(ReleaseBody(Leg.REQUEST, event.data, event.end_of_stream))
        if event.end_of_stream or is_buffered:
            self._state = RequestState.DONE

    def _pass_trailers(self, _: TrailersReceived) -> None:
        """Release the trailers."""
        self._context.emit(ReleaseTrailers(Leg.REQUEST))
        self._state = RequestState.DONE

    def _begin_body(self, event: BodyReceived) -> None:
        """Hold the body if it begins like JSON, else release it."""
        assert self._beginning is not None
        self._beginning.feed(event.data)
        is_all = event.end_of_stream or self._mode is BodyMode.BUFFERED or self._beginning.is_enough
        match begun_reading(self._beginning.first, is_all=is_all):
            case Reading.UNDECIDED:
                self._hold_body(event)
            case Reading.UNREAD:
                self._release_begun(event)
            case _:
                self._context.adopt()
                self._state = RequestState.HOLDING
                self._hold_body(event)

    def _release_begun(self, event: BodyReceived) -> None:
        """Release a body that is not read, with the white space that came before."""
        self._state = RequestState.PASSING
        if self._mode is not BodyMode.BUFFERED:
            self._context.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))
            event = BodyReceived(Leg.REQUEST, self._buffer.take() + event.data, event.end_of_stream)
        self._pass_body(event)

    def _hold_body(self, event: BodyReceived) -> None:
        """Hold the body; read it once it is whole."""
        if self._context.is_overloaded:
            self._context.refuse(OVERLOADED)
            return
        try:
            self._buffer.add(event.data)
        except ContentError as error:
            self._go_on_unread(error.reason, event.end_of_stream)
            return
        # A BUFFERED body is always whole. If trailers follow, end_of_stream is not set.
        if event.end_of_stream or self._mode is BodyMode.BUFFERED:
            self._read()

    def _end_by_trailers(self, event: TrailersReceived) -> None:
        """Read the body: the trailers are its end."""
        if self._mode is BodyMode.BUFFERED:
            self._pass_trailers(event)  # there is no body, so nothing is held
            return
        self._has_trailers = True
        self._read()

    def _note_trailers(self, _: TrailersReceived) -> None:
        """Record that the trailers must be released with the body."""
        self._has_trailers = True

    def _go_on_unread(self, reason: Reason, end_of_stream: bool) -> None:
        """Release an unreadable request if no hook judges requests or the failure policy allows it."""
        if self._is_judged and not self._context.fails_open(Leg.REQUEST, reason):
            return
        if end_of_stream or self._mode is BodyMode.BUFFERED:
            self._release(None)
        else:
            self._context.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))
            self._context.emit(ReleaseBody(Leg.REQUEST, self._buffer.take()))
            self._state = RequestState.PASSING

    @property
    def _is_judged(self) -> bool:
        return not self._context.policy.hooks.isdisjoint(_JUDGING_HOOKS)

    def _read(self) -> None:
        """Read the whole body and start its detection."""
        context = self._context
        try:
            self._read_document()
        except ContentError as error:
            self._prompts = []
            self._go_on_unread(error.reason, end_of_stream=True)
            return
        self._keep_context(self._prompts)
        if self._prompts and Hook.PRE_CALL in context.policy.hooks:
            self._state = RequestState.JUDGING
            context.detect(Hook.PRE_CALL, [self._input()])
        else:
            self._release(None)

    def _input(self) -> Input:
        """Return the request for a detection: the conversation, after the definitions of tools."""
        defined = tuple(prompt.message for prompt in self._prompts if prompt.is_definition)
        return Input(defined + self._context.messages if defined else self._context.messages)

    def _keep_context(self, prompts: list[Prompt]) -> None:
        """Keep the conversation, in which the answer will be judged."""
        self._context.messages = tuple(prompt.message for prompt in prompts if not prompt.is_definition)

    def _prompts_of(self, document: Document, *, locates: bool) -> list[Prompt]:
        dialect = self._context.dialect
        assert dialect is not None
        return dialect.prompts(document, tools=Inspect.TOOLS in self._context.policy.inspect, locates=locates)

    def _read_document(self) -> None:
        context = self._context
        limits, dialect = context.limits, context.dialect
        if dialect is None or not self._buffer.size:
            return  # a body of white space, or none, of a type that does not say what it is
        context.was_read = True
        plain = inflate(self._buffer.peek(), self._headers, limits.request_bytes, limits.inflate_ratio)
        if not plain.strip():
            return
        is_lines = dialect is GENERIC and any(map(is_json_lines, media_types(self._headers)))
        framing = Framing.JSON_LINES if is_lines else Framing.WHOLE
        self._document = document_of(dialect, plain, framing, limits.values)
        context.request_size = len(plain)
        self._prompts = self._prompts_of(self._document, locates=False)
        self._asks_for_stream = dialect.streams(self._document, self._path)
        self._document.forget()

    # -- the verdict -----------------------------------------------------------------------------------------------

    def _on_verdict(self, event: VerdictReached) -> None:
        """Apply the `pre_call` verdict."""
        (outcome,) = event.outcomes
        match outcome:
            case Allow() | Monitor():
                self._release(None)
            case Anonymize():
                self._redact(outcome)
            case Block():
                self._context.refuse_blocked(Leg.REQUEST, outcome.message)
            case Failed():
                if self._context.fails_open(Leg.REQUEST, outcome.reason):
                    self._release(None)
            case _:
                assert_never(outcome)

    def _redact(self, verdict: Anonymize) -> None:
        """Put the redacted texts back. The document is read once more: only then the places of all texts are known."""
        texts = verdict.texts
        try:
            if len(texts) != len(self._prompts) or self._document is None:
                raise RedactionError("the number of messages has changed")
            prompts = self._prompts_of(self._document.read_again(), locates=True)
            changes = edits([(prompt.leaf, text) for prompt, text in zip(prompts, texts, strict=True)])
            rewritten = self._document.rewrite(changes)
            redacted = redacted_prompts(self._prompts, texts)
            if redacted is None:
                redacted = self._prompts_of(self._document.read_again(rewritten), locates=False)
            self._prompts = redacted
        except (RedactionError, ContentError):
            self._context.refuse(redaction_failed(Leg.REQUEST))
            return
        self._keep_context(self._prompts)
        self._release(rewritten.encode())

    def _release(self, rewritten: bytes | None) -> None:
        """Release the request, unchanged or rewritten, and start the `moderation` detection."""
        context = self._context
        self._state = RequestState.DONE
        original = self._buffer.take()
        self._document = None
        if rewritten is not None:
            context.report_redacted()
        if self._mode is BodyMode.BUFFERED:
            if rewritten is None:
                context.emit(ReleaseBuffered(Leg.REQUEST))
            else:
                length = (("content-length", str(len(rewritten))),)
                context.emit(ReleaseBuffered(Leg.REQUEST, rewritten, set=length, remove=STALE))
        else:
            remove = self._remove if rewritten is None else (*self._remove, *STALE, "content-length")
            body = original if rewritten is None else rewritten
            context.emit(ReleaseHeaders(Leg.REQUEST, remove=remove))
            context.emit(ReleaseBody(Leg.REQUEST, body, end_of_stream=not self._has_trailers))
        if self._has_trailers:
            context.emit(ReleaseTrailers(Leg.REQUEST))
        if self._prompts and Hook.MODERATION in context.policy.hooks:
            context.detect(Hook.MODERATION, [self._input()])
        self._prompts = []
        self.expects_stream = self._asks_for_stream and context.reads_answer

    def drop(self) -> None:
        """Free what is held without releasing it."""
        self._state = RequestState.DROPPED
        self._buffer.take()
        self._document = None
        self._prompts = []


_S = RequestState

REQUEST_TABLE: Table = {
    (_S.IDLE, HeadersReceived): RequestLeg._on_headers,
    (_S.PASSING, BodyReceived): RequestLeg._pass_body,
    (_S.PASSING, TrailersReceived): RequestLeg._pass_trailers,
    (_S.UNDECIDED, BodyReceived): RequestLeg._begin_body,
    (_S.UNDECIDED, TrailersReceived): RequestLeg._end_by_trailers,
    (_S.HOLDING, BodyReceived): RequestLeg._hold_body,
    (_S.HOLDING, TrailersReceived): RequestLeg._end_by_trailers,
    (_S.JUDGING, BodyReceived): ignore,
    (_S.JUDGING, TrailersReceived): RequestLeg._note_trailers,
    (_S.JUDGING, VerdictReached): RequestLeg._on_verdict,
    (_S.DONE, BodyReceived): ignore,
    (_S.DONE, TrailersReceived): RequestLeg._pass_trailers,
    (_S.DROPPED, BodyReceived): ignore,
    (_S.DROPPED, TrailersReceived): ignore,
}
