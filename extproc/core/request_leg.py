"""The request leg: read it, have it judged, let it go on as it came or redacted."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, assert_never

from extproc.core.commands import ReleaseBody, ReleaseBuffered, ReleaseHeaders, ReleaseTrailers
from extproc.core.content.body import STALE, BodyBuffer, declared_length, inflate
from extproc.core.content.document import Document, refuse_disguise
from extproc.core.dialects import Prompt
from extproc.core.errors import ContentError, MalformedBody, ProtocolError, Reason
from extproc.core.events import HeadersReceived, VerdictReached
from extproc.core.identity import own_headers
from extproc.core.redaction import RedactionError, edits
from extproc.core.refusal import (
    OVERLOADED,
    PATH_NOT_ALLOWED,
    TOO_MANY_HEADERS,
    UPGRADE_NOT_INSPECTED,
    redaction_failed,
)
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor
from extproc.core.vocabulary import BodyMode, Headers, Hook, Input, Leg

if TYPE_CHECKING:
    from extproc.core.exchange import Exchange


class State(Enum):
    """Where a request leg stands."""

    IDLE = auto()
    PASSING = auto()
    HOLDING = auto()
    JUDGING = auto()
    DONE = auto()
    DROPPED = auto()


class RequestLeg:
    """One request; see `extproc.core.exchange` for the states."""

    def __init__(self, exchange: Exchange, mode: BodyMode) -> None:
        """Begin with nothing received."""
        self._exchange = exchange
        self._mode = mode
        self._state = State.IDLE
        self._headers: Headers = ()
        self._path = ""
        self._remove: tuple[str, ...] = ()
        self._buffer = BodyBuffer(exchange.limits.request_bytes)
        self._document: Document | None = None
        self._prompts: list[Prompt] = []
        self._has_ended = False  # on its way in
        self._has_trailers = False
        self.messages: tuple[dict[str, object], ...] = ()
        self.streams = False

    @property
    def held(self) -> int:
        """Bytes held."""
        return self._buffer.size + (len(self._document.text) if self._document is not None else 0)

    @property
    def is_unreleased(self) -> bool:
        """Tell whether the request has not gone on yet: a response is then Envoy's own."""
        return self._state in (State.HOLDING, State.JUDGING)

    @property
    def _is_judged(self) -> bool:
        return bool(self._exchange.profile.hooks & {Hook.PRE_CALL, Hook.MODERATION})

    def on_headers(self, event: HeadersReceived) -> None:
        """Decide by method and path whether the request is inspected."""
        if self._state is not State.IDLE:
            raise ProtocolError("a second request in one exchange")
        exchange = self._exchange
        if exchange.response.has_begun:
            raise ProtocolError("a request behind its response")
        self._has_ended = event.end_of_stream
        self._headers = event.headers
        first = dict(reversed(event.headers))
        self._remove = own_headers(event.headers)
        # A request for an upgrade is a GET, or an extended CONNECT; what it opens could carry the same API.
        is_upgrade = "upgrade" in first or first.get(":method") == "CONNECT"
        self._path = first.get(":path", "")
        dialect = exchange.pick_dialect("POST" if is_upgrade else first.get(":method", ""), self._path)
        if dialect is None and exchange.profile.unmatched == "block":
            exchange.refuse(PATH_NOT_ALLOWED)
        elif not exchange.is_inspected:
            self._pass(event.end_of_stream)
        elif is_upgrade:
            exchange.refuse(UPGRADE_NOT_INSPECTED)
        elif exchange.is_overloaded:
            exchange.refuse(OVERLOADED)
        elif len(event.headers) > exchange.limits.headers:
            exchange.refuse(TOO_MANY_HEADERS)
        else:
            self._remove = (*self._remove, "accept-encoding")
            self._hold(event.end_of_stream, first.get("content-length", ""))

    def _pass(self, end_of_stream: bool) -> None:
        """Let the request go on unread."""
        self._state = State.DONE if end_of_stream else State.PASSING
        # The rest of a buffered body need not come here: Envoy then streams it, and its buffer limit does not apply.
        skips_body = self._mode is BodyMode.BUFFERED and not end_of_stream
        self._exchange.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove, replace_body=skips_body))

    def _hold(self, end_of_stream: bool, content_length: str) -> None:
        if end_of_stream:
            self._state = State.DONE
            self._exchange.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))
            return
        if declared_length(content_length) > self._exchange.limits.request_bytes:
            if not self._is_judged or self._exchange.fails_open(Leg.REQUEST, Reason.BODY_TOO_LARGE):
                self._pass(end_of_stream)
            return
        self._state = State.HOLDING
        if self._mode is BodyMode.BUFFERED:
            # Envoy sends the body only after this, and still holds the request.
            self._exchange.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))

    def on_body(self, data: bytes, end_of_stream: bool) -> None:
        """Hold the body until it is whole."""
        if self._state is State.IDLE:
            raise ProtocolError("a request body before its headers")
        if self._has_ended:
            return
        self._has_ended = end_of_stream
        if self._state is State.PASSING:
            self._release_passing(data, end_of_stream)
        if self._state is not State.HOLDING:
            return
        if self._exchange.is_overloaded:
            self._exchange.refuse(OVERLOADED)
            return
        try:
            self._buffer.add(data)
        except ContentError as error:
            self._unread(error.reason, end_of_stream)
            return
        # With trailers a BUFFERED body says that the stream has not ended; it is whole all the same.
        if end_of_stream or self._mode is BodyMode.BUFFERED:
            self._on_whole()

    def on_trailers(self) -> None:
        """Take the trailers as the end of the body."""
        if self._state is State.IDLE or self._has_ended:
            raise ProtocolError("request trailers out of place")
        self._has_ended = self._has_trailers = True
        if self._state is State.HOLDING and self._mode is BodyMode.FULL_DUPLEX_STREAMED:
            self._on_whole()
        elif self._state is State.HOLDING:
            # Trailers and no body before them: there is nothing to hold.
            self._exchange.emit(ReleaseTrailers(Leg.REQUEST))
            self._state = State.DONE
        elif self._state in (State.PASSING, State.DONE):
            self._exchange.emit(ReleaseTrailers(Leg.REQUEST))
            self._state = State.DONE

    def _release_passing(self, data: bytes, end_of_stream: bool) -> None:
        if self._mode is BodyMode.BUFFERED:
            self._exchange.emit(ReleaseBuffered(Leg.REQUEST))
        else:
            self._exchange.emit(ReleaseBody(Leg.REQUEST, data, end_of_stream))
        if end_of_stream or self._mode is BodyMode.BUFFERED:
            self._state = State.DONE

    def _unread(self, reason: Reason, end_of_stream: bool) -> None:
        """Go on without having read the request, where that is allowed."""
        if self._is_judged and not self._exchange.fails_open(Leg.REQUEST, reason):
            return
        if end_of_stream or self._mode is BodyMode.BUFFERED:
            self._release(None)
        else:
            self._exchange.emit(ReleaseHeaders(Leg.REQUEST, remove=self._remove))
            self._exchange.emit(ReleaseBody(Leg.REQUEST, self._buffer.take()))
            self._state = State.PASSING

    def _on_whole(self) -> None:
        exchange = self._exchange
        limits = exchange.limits
        try:
            plain = inflate(self._buffer.peek(), self._headers, limits.request_bytes, limits.inflate_ratio)
            if plain.strip():
                self._document = Document.from_bytes(plain)
                if not isinstance(self._document.root, dict):
                    raise MalformedBody("a request is an object")
                refuse_disguise(self._document.root)
                assert exchange.dialect is not None
                self._prompts = exchange.dialect.prompts(self._document, tools=exchange.profile.inspect.tools)
                self.streams = exchange.dialect.streams(self._document, self._path)
                self._document.forget()
        except ContentError as error:
            self._prompts = []
            self._unread(error.reason, end_of_stream=True)
            return
        self.messages = tuple(dict(prompt.message) for prompt in self._prompts)
        if self._prompts and Hook.PRE_CALL in exchange.profile.hooks:
            self._state = State.JUDGING
            exchange.analyze(Hook.PRE_CALL, [Input(self.messages)])
        else:
            self._release(None)

    def on_verdict(self, event: VerdictReached) -> None:
        """Do what the `pre_call` verdict says."""
        (outcome,) = event.outcomes
        exchange = self._exchange
        exchange.record.judge(Leg.REQUEST, outcome.action, outcome.policies, event.milliseconds)
        match outcome:
            case Allow() | Monitor():
                self._release(None)
            case Anonymize():
                self._redact(outcome)
            case Block():
                exchange.refuse_blocked(Leg.REQUEST, outcome.message)
            case Failed():
                if exchange.fails_open(Leg.REQUEST, outcome.reason):
                    self._release(None)
            case _:
                assert_never(outcome)

    def _redact(self, verdict: Anonymize) -> None:
        texts = verdict.texts
        try:
            if len(texts) != len(self._prompts) or self._document is None:
                raise RedactionError("another number of messages")
            changes = edits([(prompt.leaf, text) for prompt, text in zip(self._prompts, texts, strict=True)])
        except RedactionError:
            self._exchange.refuse(redaction_failed(Leg.REQUEST))
            return
        self._exchange.record.reach("redacted")
        self.messages = tuple(
            {**prompt.message, "content": text} if prompt.leaf is not None else dict(prompt.message)
            for prompt, text in zip(self._prompts, texts, strict=True)
        )
        self._release(self._document.rewrite(changes).encode())

    def _release(self, rewritten: bytes | None) -> None:
        """Let the request go on, as it came or rewritten, and start what runs beside it."""
        exchange = self._exchange
        self._state = State.DONE
        original = self._buffer.take()
        self._document = None
        if self._mode is BodyMode.BUFFERED:
            if rewritten is None:
                exchange.emit(ReleaseBuffered(Leg.REQUEST))
            else:
                length = (("content-length", str(len(rewritten))),)
                exchange.emit(ReleaseBuffered(Leg.REQUEST, rewritten, set=length, remove=STALE))
        else:
            remove = self._remove if rewritten is None else (*self._remove, *STALE, "content-length")
            body = original if rewritten is None else rewritten
            exchange.emit(ReleaseHeaders(Leg.REQUEST, remove=remove))
            exchange.emit(ReleaseBody(Leg.REQUEST, body, end_of_stream=not self._has_trailers))
        if self._has_trailers:
            exchange.emit(ReleaseTrailers(Leg.REQUEST))
        if self._prompts and Hook.MODERATION in exchange.profile.hooks:
            exchange.analyze(Hook.MODERATION, [Input(self.messages)])
        if self.streams and exchange.reads_answer:
            exchange.response.open_session()

    def give_up(self) -> None:
        """Forget the request: Envoy has answered it itself."""
        self._exchange.cancel_analyses()
        self.drop()

    def drop(self) -> None:
        """Free what is held; nothing of it goes on."""
        self._state = State.DROPPED
        self._buffer.take()
        self._document = None
