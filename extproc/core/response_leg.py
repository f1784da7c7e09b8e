"""The response leg: releases uninspected responses, starts the detection of whole answers, hands on event streams."""

from __future__ import annotations

from enum import StrEnum

from extproc.core.commands import CloseSession, Command, OpenSession, ReleaseBody, ReleaseTrailers
from extproc.core.content.body import STALE, BodyBuffer, declared_length, inflate
from extproc.core.content.document import Document, Edit, Path
from extproc.core.context import Context
from extproc.core.dialects.leaf import Leaf
from extproc.core.errors import BodyTooLarge, ContentError, Reason
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    FromEnvoy,
    FromSession,
    HeadersReceived,
    RoomDemanded,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TrailersReceived,
    VerdictReached,
    Woken,
)
from extproc.core.questions import Question, pack
from extproc.core.redaction import RedactionError, edits
from extproc.core.refusal import OVERLOADED, TOO_MANY_RESPONSE_HEADERS, redaction_failed
from extproc.core.response_stream import ResponseStream, StreamEnd
from extproc.core.transitions import Inbound, Table, advance, find, ignore
from extproc.core.verdict import Anonymize, Block, Failed, strictest
from extproc.core.vocabulary import Headers, Hook, Leg

_PASSING_TYPES = ("audio/", "image/")


class ResponseState(StrEnum):
    """The states of a response."""

    IDLE = "idle"
    """nothing has arrived"""
    PASSING = "passing"
    """it is released unread"""
    HOLDING = "holding"
    """its body is kept until it is whole"""
    JUDGING = "judging"
    """Aim judges it under `output`"""
    STREAMING = "streaming"
    """it is an event stream, and its `ResponseStream` handles it"""
    DONE = "done"
    """it was released to its end, or will not be"""


class ResponseLeg:
    """One response; `RESPONSE_TABLE` says which method handles which event."""

    def __init__(self, context: Context) -> None:
        """Begin a leg that has received nothing."""
        self._context = context
        self._state = ResponseState.IDLE
        self._inbound = Inbound.NOTHING
        self._headers: Headers = ()
        self._buffer = BodyBuffer(context.limits.response_bytes)
        self._document: Document | None = None
        self._leaves: list[Leaf] = []
        self._questions: list[Question] = []
        self._asked = 0
        self._has_trailers = False
        self._stream: ResponseStream | None = None
        self._session: int | None = None
        self._session_failure: Reason | None = None

    @property
    def held(self) -> int:
        """Bytes held."""
        if self._stream is not None:
            return self._stream.held
        return self._buffer.size + (self._document.size if self._document is not None else 0)

    @property
    def kept(self) -> int:
        """Bytes that a stream keeps beside the events that wait."""
        return self._stream.kept if self._stream is not None else 0

    @property
    def yields_room(self) -> bool:
        """Return whether the response gives up all that it holds when room is demanded: only an event stream does."""
        return self._stream is not None and self._stream.yields_room

    @property
    def sequence(self) -> int:
        """The number of a stream's next event, for APIs that number events."""
        return self._stream.sequence if self._stream is not None else 0

    @property
    def has_begun(self) -> bool:
        """Return whether at least the headers of the response have arrived."""
        return self._state is not ResponseState.IDLE

    @property
    def is_done(self) -> bool:
        """Return whether the response was released to its end."""
        if self._stream is not None:
            return self._stream.is_finished
        return self._state is ResponseState.DONE

    @property
    def deadline(self) -> float | None:
        """The time at which the response wants to be woken; None if it does not."""
        return self._stream.deadline if self._stream is not None else None

    def is_full(self, held: int) -> bool:
        """Return whether the response has reached its limit, given that the exchange holds `held` bytes."""
        limit = self._context.limits.held_bytes
        if held > limit and (self._state is ResponseState.STREAMING or self._state is ResponseState.PASSING):
            # An incomplete event has a limit of its own: only its rest, not Aim, can free it.
            return held - (self._stream.pending if self._stream is not None else 0) > limit
        return False

    def handle(self, event: FromEnvoy | FromSession | VerdictReached | RoomDemanded | Woken) -> None:
        """Handle an event of this leg; raise IllegalEvent if the state does not allow it."""
        if isinstance(event, _FROM_ENVOY):
            had_ended = self._inbound is Inbound.ENDED
            self._inbound = advance(self._inbound, event)
            if had_ended:
                return
        find(RESPONSE_TABLE, self._state, event)(self, event)

    # -- headers ---------------------------------------------------------------------------------------------------

    def _on_headers(self, event: HeadersReceived) -> None:
        """Decide by status and content type how to handle the response."""
        context = self._context
        self._headers = event.headers
        first = dict(reversed(event.headers))
        content_type = first.get("content-type", "").split(";", 1)[0].strip().lower()
        is_judged = context.reads_answer and first.get(":status", "").startswith("2")
        if not is_judged or event.end_of_stream or content_type.startswith(_PASSING_TYPES):
            self._pass(event.end_of_stream)
        elif len(event.headers) > context.limits.headers:
            context.refuse(TOO_MANY_RESPONSE_HEADERS)
        elif content_type == "text/event-stream":
            self._begin_stream()
        else:
            self._begin_holding(first.get("content-length", ""))

    def _pass(self, end_of_stream: bool) -> None:
        self._state = ResponseState.DONE if end_of_stream else ResponseState.PASSING
        self._context.messages = ()
        self._close_session()
        self._context.release_headers()

    def _begin_holding(self, content_length: str) -> None:
        self._close_session()
        self._state = ResponseState.HOLDING
        if declared_length(content_length) > self._context.limits.response_bytes:
            self._go_on_unread(BodyTooLarge.reason, end_of_stream=False)

    def _begin_stream(self) -> None:
        self._state = ResponseState.STREAMING
        self._context.messages = ()  # a session judges the answer alone
        try:
            self._stream = ResponseStream(self._context, self._headers)
        except ContentError as error:
            self._go_on_unread(error.reason, end_of_stream=False)
            return
        if self._session_failure is not None:
            self._stream.fail(self._session_failure)
        else:
            self._stream.begin(self._session)
        self._session = None  # the stream owns it from now on

    # -- body and trailers -----------------------------------------------------------------------------------------

    def _pass_body(self, event: BodyReceived) -> None:
        """Release the body unread."""
        self._context.release_response(ReleaseBody(Leg.RESPONSE, event.data, event.end_of_stream))
        if event.end_of_stream:
            self._state = ResponseState.DONE

    def _pass_trailers(self, _: TrailersReceived) -> None:
        """Release the trailers."""
        self._context.release_response(ReleaseTrailers(Leg.RESPONSE))
        self._state = ResponseState.DONE

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
        if event.end_of_stream:
            self._read()

    def _end_by_trailers(self, _: TrailersReceived) -> None:
        """Read the body: the trailers are its end."""
        self._has_trailers = True
        self._read()

    def _stream_body(self, event: BodyReceived) -> None:
        """Hand the bytes to the stream."""
        assert self._stream is not None
        self._stream.handle(event)
        if event.end_of_stream:
            self._stream.handle(StreamEnd(has_trailers=False))

    def _end_stream_by_trailers(self, _: TrailersReceived) -> None:
        """End the stream: the trailers are its end."""
        assert self._stream is not None
        self._has_trailers = True
        self._stream.handle(StreamEnd(has_trailers=True))

    # -- a whole answer --------------------------------------------------------------------------------------------

    def _go_on_unread(self, reason: Reason, end_of_stream: bool) -> None:
        """Release an unreadable response if the failure policy allows it."""
        if not self._context.fails_open(Leg.RESPONSE, reason):
            return
        if end_of_stream or self._has_trailers:
            self._release(None)
            return
        self._state = ResponseState.PASSING
        self._close_session()
        self._context.release_headers()
        if self._buffer.size:
            self._context.release_response(ReleaseBody(Leg.RESPONSE, self._buffer.take()))

    def _read(self) -> None:
        """Read the whole body and start its detection."""
        context = self._context
        try:
            self._read_document()
        except ContentError as error:
            self._leaves = []
            self._go_on_unread(error.reason, end_of_stream=True)
            return
        if self._leaves:
            self._state = ResponseState.JUDGING
            self._asked = context.asked
            self._questions = self._pack(self._leaves)
            context.detect(Hook.OUTPUT, [question.input for question in self._questions])
        else:
            self._release(None)

    def _read_document(self) -> None:
        limits, dialect = self._context.limits, self._context.dialect
        assert dialect is not None
        plain = inflate(self._buffer.peek(), self._headers, limits.response_bytes, limits.inflate_ratio)
        if not plain.strip():
            return
        self._document = Document.from_bytes(plain, limits.values)
        self._leaves = dialect.answers(self._document)
        self._document.forget()

    def _pack(self, leaves: list[Leaf]) -> list[Question]:
        context = self._context
        received = len(self._document.text) if self._document is not None else 0
        return pack(leaves, context.messages, asked=self._asked, sent=context.request_size, received=received)

    def _on_verdict(self, event: VerdictReached) -> None:
        """Apply the strictest `output` verdict."""
        context = self._context
        decisive = strictest(event.outcomes)
        if isinstance(decisive, Block):
            context.refuse_blocked(Leg.RESPONSE, decisive.message, [leaf.text for leaf in self._leaves])
            return
        if isinstance(decisive, Failed) and not context.fails_open(Leg.RESPONSE, decisive.reason):
            return
        redacted = {
            number: _last(outcome.texts)
            for number, outcome in enumerate(event.outcomes)
            if isinstance(outcome, Anonymize)
        }
        if not redacted or self._document is None:
            self._release(None)
        else:
            self._redact(self._document, redacted)

    def _redact(self, document: Document, redacted: dict[int, str | None]) -> None:
        """Put the redacted texts back. The document is read once more: only then the places of all texts are known."""
        dialect = self._context.dialect
        assert dialect is not None
        try:
            questions = self._pack(dialect.answers(document.read_again(), locates=True))
            changes: dict[Path, Edit] = {}
            for number, text in redacted.items():  # one by one: each redaction must change its own text
                changes |= edits([(questions[number].leaf, text)])
        except RedactionError:
            self._context.refuse(redaction_failed(Leg.RESPONSE))
            return
        self._release(document.rewrite(changes).encode())

    def _release(self, rewritten: bytes | None) -> None:
        self._state = ResponseState.DONE
        original = self._buffer.take()
        self._document = None
        self._leaves = []
        if rewritten is not None:
            self._context.report_redacted()
        self._context.release_headers(() if rewritten is None else (*STALE, "content-length"))
        body = original if rewritten is None else rewritten
        if body or not self._has_trailers:
            self._context.release_response(ReleaseBody(Leg.RESPONSE, body, end_of_stream=not self._has_trailers))
        if self._has_trailers:
            self._context.release_response(ReleaseTrailers(Leg.RESPONSE))

    # -- the session -----------------------------------------------------------------------------------------------

    def open_session(self) -> None:
        """Open a session for the stream that the request asked for, before the model answers."""
        self._session = self._context.number()
        self._context.emit(OpenSession(self._session))

    def _close_session(self) -> None:
        """Close the session if it was opened for a stream that did not come."""
        if self._session is not None:
            self._context.emit(CloseSession(self._session))
            self._session = None

    def _stream_event(self, event: FromSession | RoomDemanded | Woken) -> None:
        """Hand the event to the stream."""
        assert self._stream is not None
        self._stream.handle(event)

    def _on_early_event(self, event: FromSession) -> None:
        """Record what happened to the session before the response arrived."""
        if event.session != self._session:
            return
        if isinstance(event, StreamBlocked):
            self._context.report(Leg.RESPONSE, Hook.OUTPUT, [Block()], event.milliseconds)
            self._context.refuse_blocked(Leg.RESPONSE, event.message)
        elif isinstance(event, SessionFailed) and event.opened:
            self._session = None  # lost while unused: the stream opens another
        else:
            self._session_failure = event.reason if isinstance(event, SessionFailed) else Reason.SESSION
            self._close_session()

    def watch_hold(self, *, is_full: bool) -> None:
        """Tell the stream whether its limit is reached, which bounds the time without a release."""
        if self._stream is not None:
            self._stream.watch_hold(is_full=is_full)

    # -- ends ------------------------------------------------------------------------------------------------------

    def ending(self, refusal: bytes) -> list[Command]:
        """Return the commands that end a response that has begun, with `refusal` as its last bytes."""
        refusal = (self._stream.separator if self._stream is not None else b"") + refusal
        if self._has_trailers:
            return [ReleaseBody(Leg.RESPONSE, refusal), ReleaseTrailers(Leg.RESPONSE)]
        return [ReleaseBody(Leg.RESPONSE, refusal, end_of_stream=True)]

    def drop(self) -> None:
        """Free what is held without releasing it."""
        self._state = ResponseState.DONE
        self._buffer.take()
        self._document = None
        self._leaves = []
        self._close_session()
        if self._stream is not None:
            self._stream.drop()


def _last(texts: tuple[str | None, ...]) -> str | None:
    return texts[-1] if texts else None


_S = ResponseState
_FROM_ENVOY = (HeadersReceived, BodyReceived, TrailersReceived)
_FROM_SESSION = (ChunkVerified, StreamBlocked, SessionDone, SessionFailed)

RESPONSE_TABLE: Table = {
    (_S.IDLE, HeadersReceived): ResponseLeg._on_headers,
    **{(_S.IDLE, each): ResponseLeg._on_early_event for each in _FROM_SESSION},
    (_S.PASSING, BodyReceived): ResponseLeg._pass_body,
    (_S.PASSING, TrailersReceived): ResponseLeg._pass_trailers,
    (_S.HOLDING, BodyReceived): ResponseLeg._hold_body,
    (_S.HOLDING, TrailersReceived): ResponseLeg._end_by_trailers,
    (_S.JUDGING, VerdictReached): ResponseLeg._on_verdict,
    (_S.STREAMING, BodyReceived): ResponseLeg._stream_body,
    (_S.STREAMING, TrailersReceived): ResponseLeg._end_stream_by_trailers,
    **{(_S.STREAMING, each): ResponseLeg._stream_event for each in (*_FROM_SESSION, RoomDemanded, Woken)},
    # Late events of a session that was closed, a late demand, and a late wake-up.
    **{
        (state, each): ignore
        for state in (_S.PASSING, _S.HOLDING, _S.JUDGING, _S.DONE)
        for each in (*_FROM_SESSION, RoomDemanded, Woken)
    },
    **{(_S.IDLE, each): ignore for each in (RoomDemanded, Woken)},
}
