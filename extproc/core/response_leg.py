"""The response leg: pass what is not inspected, have whole answers judged, hand event streams to a `StreamedAnswer`."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, assert_never

from extproc.core.commands import CloseSession, Command, OpenSession, ReleaseBody, ReleaseHeaders, ReleaseTrailers
from extproc.core.content.body import STALE, BodyBuffer, declared_length, inflate
from extproc.core.content.document import Document, Edit, Path
from extproc.core.dialects import Leaf
from extproc.core.errors import BodyTooLarge, ContentError, MalformedBody, ProtocolError, Reason
from extproc.core.events import (
    ChunkVerified,
    HeadersReceived,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TimerFired,
    VerdictReached,
)
from extproc.core.record import CALL_ID_HEADER
from extproc.core.redaction import RedactionError, edits
from extproc.core.refusal import OVERLOADED, REQUEST_TOO_LARGE, TOO_MANY_RESPONSE_HEADERS, redaction_failed
from extproc.core.response_stream import StreamedAnswer
from extproc.core.verdict import Anonymize, Block, Failed, strictest
from extproc.core.vocabulary import Headers, Hook, Input, Leg

if TYPE_CHECKING:
    from extproc.core.exchange import Exchange

_PASSING_TYPES = ("audio/", "image/")

_TEXTS = 1024
"""Texts of one whole answer, at most: each is a question to Aim."""


class State(Enum):
    """Where a response leg stands."""

    IDLE = auto()
    PASSING = auto()
    HOLDING = auto()
    JUDGING = auto()
    STREAMING = auto()
    DONE = auto()


class ResponseLeg:
    """One response; see `extproc.core.exchange` for the states."""

    def __init__(self, exchange: Exchange) -> None:
        """Begin with nothing received."""
        self._exchange = exchange
        self._state = State.IDLE
        self._headers: Headers = ()
        self._buffer = BodyBuffer(exchange.limits.response_bytes)
        self._document: Document | None = None
        self._leaves: list[Leaf] = []
        self._has_ended = False  # on its way in
        self._has_trailers = False
        self._stream: StreamedAnswer | None = None
        self._session: int | None = None
        self._session_failure: Reason | None = None

    @property
    def held(self) -> int:
        """Bytes held."""
        if self._stream is not None:
            return self._stream.held
        return self._buffer.size + (len(self._document.text) if self._document is not None else 0)

    @property
    def sequence(self) -> int:
        """The number of a stream's next event, where events are numbered."""
        return self._stream.sequence if self._stream is not None else 0

    @property
    def has_begun(self) -> bool:
        """Tell whether the response has come, if only its headers."""
        return self._state is not State.IDLE

    @property
    def is_done(self) -> bool:
        """Tell whether the response has gone out to its end."""
        if self._stream is not None:
            return self._stream.is_finished
        return self._state is State.DONE

    def is_full(self, held: int) -> bool:
        """Tell whether no more of the response can be held, when the exchange holds so many bytes."""
        limit = self._exchange.limits.held_bytes
        if held > limit and (self._state is State.STREAMING or self._state is State.PASSING):
            # An event that is not whole yet has a limit of its own: only its rest, not Aim, can free it.
            return held - (self._stream.pending if self._stream is not None else 0) > limit
        return False

    # -- Envoy's side --------------------------------------------------------------------------------------------

    def on_headers(self, event: HeadersReceived) -> None:
        """Decide by status and content type what the response is."""
        if self._state is not State.IDLE:
            raise ProtocolError("a second response in one exchange")
        exchange = self._exchange
        self._has_ended = event.end_of_stream
        self._headers = event.headers
        first = dict(reversed(event.headers))
        status = first.get(":status", "")
        if exchange.request.is_unreleased:
            exchange.request.give_up()
            if status == "413":
                exchange.refuse(REQUEST_TOO_LARGE)
                return
        content_type = first.get("content-type", "").split(";", 1)[0].strip().lower()
        is_judged = exchange.reads_answer and status.startswith("2")
        if not is_judged or event.end_of_stream or content_type.startswith(_PASSING_TYPES):
            self._pass(event.end_of_stream)
        elif len(event.headers) > exchange.limits.headers:
            exchange.refuse(TOO_MANY_RESPONSE_HEADERS)
        elif content_type == "text/event-stream":
            self._begin_stream()
        else:
            self._begin_holding(first.get("content-length", ""))

    def _pass(self, end_of_stream: bool) -> None:
        self._state = State.DONE if end_of_stream else State.PASSING
        self.close_session()
        self.release_headers()

    def release_headers(self, remove: tuple[str, ...] = ()) -> None:
        """Let the headers go on, naming the call."""
        exchange = self._exchange
        named = ((CALL_ID_HEADER, exchange.record.call_id),) if exchange.is_inspected else ()
        exchange.emit(ReleaseHeaders(Leg.RESPONSE, set=named, remove=remove))

    def _begin_holding(self, content_length: str) -> None:
        self.close_session()
        self._state = State.HOLDING
        if declared_length(content_length) > self._exchange.limits.response_bytes:
            self._unread(BodyTooLarge.reason, end_of_stream=False)

    def _begin_stream(self) -> None:
        self._state = State.STREAMING
        try:
            self._stream = StreamedAnswer(self._exchange, self._headers)
        except ContentError as error:
            self._unread(error.reason, end_of_stream=False)
            return
        if self._session_failure is not None:
            self._stream.fail(self._session_failure)
        else:
            self._stream.begin(self._session)
        self._session = None  # the stream's from now on

    def on_body(self, data: bytes, end_of_stream: bool) -> None:
        """Pass, hold or stream the body."""
        had_ended = self._has_ended
        self._has_ended |= end_of_stream
        match self._state:
            case State.IDLE:
                raise ProtocolError("a response body before its headers")
            case State.PASSING:
                self._exchange.emit(ReleaseBody(Leg.RESPONSE, data, end_of_stream))
                if end_of_stream:
                    self._state = State.DONE
            case State.HOLDING if self._exchange.is_overloaded:
                self._exchange.refuse(OVERLOADED)
            case State.HOLDING:
                try:
                    self._buffer.add(data)
                except ContentError as error:
                    self._unread(error.reason, end_of_stream)
                    return
                if end_of_stream:
                    self._on_whole()
            case State.STREAMING if not had_ended:
                assert self._stream is not None
                self._stream.feed(data)
                if end_of_stream and not self._stream.is_finished:
                    self._stream.end(has_trailers=False)
            case State.STREAMING | State.JUDGING | State.DONE:
                pass
            case _:
                assert_never(self._state)

    def on_trailers(self) -> None:
        """Take the trailers as the end of the body."""
        if self._has_ended:
            raise ProtocolError("response trailers out of place")
        self._has_ended = self._has_trailers = True
        match self._state:
            case State.HOLDING:
                self._on_whole()
            case State.STREAMING:
                assert self._stream is not None
                self._stream.end(has_trailers=True)
            case State.PASSING | State.DONE:
                self._exchange.emit(ReleaseTrailers(Leg.RESPONSE))
                self._state = State.DONE
            case State.JUDGING | State.IDLE:
                raise ProtocolError("response trailers out of place")
            case _:
                assert_never(self._state)

    # -- a whole answer ------------------------------------------------------------------------------------------

    def _unread(self, reason: Reason, end_of_stream: bool) -> None:
        """Go on without having read the response, where that is allowed."""
        if not self._exchange.fails_open(Leg.RESPONSE, reason):
            return
        if end_of_stream or self._has_trailers:
            self._release(None)
            return
        self._state = State.PASSING
        self.close_session()
        self.release_headers()
        if self._buffer.size:
            self._exchange.emit(ReleaseBody(Leg.RESPONSE, self._buffer.take()))

    def _on_whole(self) -> None:
        exchange = self._exchange
        limits = exchange.limits
        try:
            plain = inflate(self._buffer.peek(), self._headers, limits.response_bytes, limits.inflate_ratio)
            if plain.strip():
                self._document = Document.from_bytes(plain)
                assert exchange.dialect is not None
                self._leaves = exchange.dialect.answers(self._document)
                self._document.forget()
                if len(self._leaves) > _TEXTS:
                    raise MalformedBody("an answer of too many texts")
        except ContentError as error:
            self._leaves = []
            self._unread(error.reason, end_of_stream=True)
            return
        if self._leaves:
            self._state = State.JUDGING
            messages = exchange.request.messages
            exchange.analyze(Hook.OUTPUT, [Input(messages, leaf.text) for leaf in self._leaves])
        else:
            self._release(None)

    def on_verdict(self, event: VerdictReached) -> None:
        """Do what the strictest `output` verdict says."""
        exchange = self._exchange
        decisive = strictest(event.outcomes)
        policies = tuple(name for outcome in event.outcomes for name in outcome.policies)
        exchange.record.judge(Leg.RESPONSE, decisive.action, policies, event.milliseconds)
        if isinstance(decisive, Block):
            exchange.refuse_blocked(Leg.RESPONSE, decisive.message, [leaf.text for leaf in self._leaves])
            return
        if isinstance(decisive, Failed) and not exchange.fails_open(Leg.RESPONSE, decisive.reason):
            return
        redacted: list[tuple[Leaf | None, str | None]] = [
            (leaf, _last(outcome.texts))
            for leaf, outcome in zip(self._leaves, event.outcomes, strict=True)
            if isinstance(outcome, Anonymize)
        ]
        if not redacted or self._document is None:
            self._release(None)
            return
        try:
            changes: dict[Path, Edit] = {}
            for pair in redacted:  # one by one: each redaction must change its own text
                changes |= edits([pair])
        except RedactionError:
            exchange.refuse(redaction_failed(Leg.RESPONSE))
            return
        exchange.record.reach("redacted")
        self._release(self._document.rewrite(changes).encode())

    def _release(self, rewritten: bytes | None) -> None:
        self._state = State.DONE
        original = self._buffer.take()
        self._document = None
        self.release_headers(() if rewritten is None else (*STALE, "content-length"))
        body = original if rewritten is None else rewritten
        if body or not self._has_trailers:
            self._exchange.emit(ReleaseBody(Leg.RESPONSE, body, end_of_stream=not self._has_trailers))
        if self._has_trailers:
            self._exchange.emit(ReleaseTrailers(Leg.RESPONSE))

    # -- the session ---------------------------------------------------------------------------------------------

    def open_session(self) -> None:
        """Open a session for the stream that was asked for, before the model answers."""
        self._session = self._exchange.number()
        self._exchange.emit(OpenSession(self._session))

    def close_session(self) -> None:
        """Close the session of a stream that did not come."""
        if self._session is not None:
            self._exchange.emit(CloseSession(self._session))
            self._session = None

    def on_session(self, event: ChunkVerified | SessionDone | SessionFailed | StreamBlocked | TimerFired) -> None:
        """Take what a session or a clock says."""
        if self._stream is not None:
            self._stream.on_event(event)
        elif isinstance(event, TimerFired) or event.session != self._session:
            return
        elif isinstance(event, StreamBlocked):
            self._exchange.refuse_blocked(Leg.RESPONSE, event.message)
        elif isinstance(event, SessionFailed) and event.opened:
            self._session = None  # lost while unused: the stream opens another
        else:
            self._session_failure = event.reason if isinstance(event, SessionFailed) else Reason.SESSION
            self.close_session()

    def watch_hold(self) -> None:
        """Start or stop the clock of a full hold."""
        if self._stream is not None:
            self._stream.watch_hold()

    # -- ends ----------------------------------------------------------------------------------------------------

    def ending(self, refusal: bytes) -> list[Command]:
        """Return what ends a response that has begun, showing `refusal` last."""
        refusal = (self._stream.separator if self._stream is not None else b"") + refusal
        if self._has_trailers or (self._stream is not None and self._stream.has_trailers):
            return [ReleaseBody(Leg.RESPONSE, refusal), ReleaseTrailers(Leg.RESPONSE)]
        return [ReleaseBody(Leg.RESPONSE, refusal, end_of_stream=True)]

    def drop(self) -> None:
        """Free what is held; nothing of it goes on."""
        self._state = State.DONE
        self._buffer.take()
        self._document = None
        self.close_session()
        if self._stream is not None:
            self._stream.drop()


def _last(texts: tuple[str | None, ...]) -> str | None:
    return texts[-1] if texts else None
