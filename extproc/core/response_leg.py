"""The response leg: decides how a response is read, passes it on unread, or hands it on to what reads it."""

from __future__ import annotations

from enum import StrEnum

from extproc.core.commands import Command, ReleaseBody, ReleaseTrailers, ReportOutcome
from extproc.core.content.beginning import Beginning
from extproc.core.content.body import most_inflated
from extproc.core.content.framing import WHOLE, Framing
from extproc.core.context import Context
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.endpoints import DEFAULT
from extproc.core.early_session import EarlySession
from extproc.core.errors import ContentError
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
from extproc.core.held_answer import HeldAnswer, HeldState
from extproc.core.late_refusal import late_refusal
from extproc.core.reading import Answer, Reading, Scope
from extproc.core.refusal import TOO_MANY_RESPONSE_HEADERS, Refusal
from extproc.core.response_stream import ResponseStream, StreamEnd
from extproc.core.transitions import ENDED, NOTHING, Table, advance, find, ignore
from extproc.core.vocabulary import RESPONSE, Headers


class ResponseState(StrEnum):
    """The states of a response."""

    IDLE = "idle"
    """nothing has arrived"""
    PASSING = "passing"
    """it is released unread"""
    UNDECIDED = "undecided"
    """its first bytes will tell how it is read"""
    HOLDING = "holding"
    """it is kept until it is whole, and its `HeldAnswer` handles it"""
    STREAMING = "streaming"
    """it is an event stream, and its `ResponseStream` handles it"""
    DONE = "done"
    """it was released to its end, or will not be"""


_DONE = ResponseState.DONE
_UNREAD, _RELEASED = HeldState.UNREAD, HeldState.RELEASED
_NO_ANSWER = Answer(Scope.NOTHING, "")


class ResponseLeg:
    """One response; `RESPONSE_TABLE` says which method handles which event."""

    def __init__(self, context: Context) -> None:
        """Begin a leg that has received nothing."""
        self._context = context
        self._state = ResponseState.IDLE
        self._inbound = NOTHING
        self._headers: Headers = ()
        self._answer = _NO_ANSWER
        self._beginning: Beginning | None = None
        self._framing = WHOLE
        self._whole: HeldAnswer | None = None
        self._has_trailers = False
        self._stream: ResponseStream | None = None
        self._early = EarlySession(context)

    def holds(self) -> tuple[int, int, int]:
        """Return the bytes that are held, those that a stream keeps beside them, and those given up on demand.

        Only an event stream gives up what it holds when room is demanded.
        """
        if self._stream is not None:
            return self._stream.holds()
        return (self._whole.held if self._whole is not None else 0), 0, 0

    def weight(self, event: BodyReceived | TrailersReceived | FromSession | RoomDemanded | Woken) -> int:
        """Return about how many bytes are read to handle `event`."""
        if self._stream is not None:
            return self._stream.weight(event)
        if self._whole is None or not isinstance(event, BodyReceived | TrailersReceived):
            return 0
        size, limits = self._whole.held, self._context.limits
        if isinstance(event, BodyReceived):
            # The first bytes may prove to be an event stream.
            if not event.end_of_stream and self._state is not ResponseState.UNDECIDED:
                return 0
            size += len(event.data)
        return most_inflated(size, self._headers, limits.response_bytes, limits.inflate_ratio)

    @property
    def begun_framing(self) -> Framing | None:
        """The framing of an answer that has begun to be read; None if there is none."""
        is_read = self._state is ResponseState.HOLDING or self._state is ResponseState.STREAMING
        return self._framing if is_read and not self._answer.is_error else None

    @property
    def has_begun(self) -> bool:
        """Return whether at least the headers of the response have arrived."""
        return self._state is not ResponseState.IDLE

    @property
    def is_done(self) -> bool:
        """Return whether the response was released to its end."""
        if self._stream is not None:
            return self._stream.is_finished
        return self._state is _DONE

    @property
    def deadline(self) -> float | None:
        """The time at which the response wants to be woken; None if it does not."""
        return self._stream.deadline if self._stream is not None else None

    def is_full(self, held: int) -> bool:
        """Return whether the response has reached its limit, given that the exchange holds `held` bytes."""
        limit = self._context.limits.held_bytes
        if held > limit and (self._state is ResponseState.STREAMING or self._state is ResponseState.PASSING):
            # An incomplete event has a limit of its own: only its rest, not Aim, can free it.
            return held - (self._stream.incomplete if self._stream is not None else 0) > limit
        return False

    def handle(self, event: FromEnvoy | FromSession | VerdictReached | RoomDemanded | Woken) -> None:
        """Handle an event of this leg; raise IllegalEvent if the state does not allow it."""
        if isinstance(event, _FROM_ENVOY):
            had_ended = self._inbound is ENDED
            self._inbound = advance(self._inbound, event)
            if had_ended:
                return
        find(RESPONSE_TABLE, self._state, event)(self, event)
        refusal = self._context.refusal
        if refusal is not None and self._answer.is_error:
            self._context.refusal = None
            self._replace(refusal)

    def _hand_on(self, event: FromEnvoy) -> None:
        find(RESPONSE_TABLE, self._state, event)(self, event)

    # -- headers ---------------------------------------------------------------------------------------------------

    def _on_headers(self, event: HeadersReceived) -> None:
        """Decide by status, content type and, where these do not tell, by the first bytes how the response is read."""
        context = self._context
        self._headers = event.headers
        self._answer = context.answer(event.headers)
        reading = self._answer.reading()
        if event.end_of_stream or reading is Reading.UNREAD:
            self._pass(event.end_of_stream)
        elif len(event.headers) > context.limits.headers:
            context.refuse(TOO_MANY_RESPONSE_HEADERS)
        elif reading is Reading.UNDECIDED:
            self._state = ResponseState.UNDECIDED
            self._whole = HeldAnswer(context, event.headers, self._answer)
            self._beginning = Beginning(event.headers, context.limits.inflate_ratio)
        else:
            self._begin(reading.framing)

    def _begin_body(self, event: BodyReceived) -> None:
        """Decide by the first bytes how the response is read."""
        assert self._beginning is not None
        self._beginning.feed(event.data)
        self._decide(event.data, is_all=event.end_of_stream or self._beginning.is_enough, end=event.end_of_stream)

    def _begin_by_trailers(self, event: TrailersReceived) -> None:
        """Decide by what has come: the trailers are the end of the body."""
        self._has_trailers = True
        self._decide(b"", is_all=True, end=False)
        if not self._context.is_refused:
            self._hand_on(event)

    def _decide(self, data: bytes, *, is_all: bool, end: bool) -> None:
        assert self._beginning is not None
        whole = self._whole
        assert whole is not None
        reading = self._answer.reading(self._beginning.first, is_all=is_all)
        if reading is Reading.UNDECIDED:
            self._hand_to_whole(BodyReceived(RESPONSE, data))
            return
        if reading is Reading.UNREAD:
            self._pass(end_of_stream=False)
        else:
            self._begin(reading.framing)
        held = whole.take() + data
        if (held or end) and not self._context.is_refused:
            self._hand_on(BodyReceived(RESPONSE, held, end))

    def _pass(self, end_of_stream: bool) -> None:
        self._state = ResponseState.DONE if end_of_stream else ResponseState.PASSING
        self._context.messages = ()
        self._early.close()
        self._context.release_headers()

    def _begin(self, framing: Framing) -> None:
        """Begin to read the answer."""
        if self._answer.is_certain:
            inspection = self._context.inspection
            inspection.adopt_answer()
            inspection.was_read = True
        self._framing = framing
        if framing is WHOLE or self._answer.is_error:
            self._begin_holding()
        else:
            self._begin_stream()

    def _begin_holding(self) -> None:
        self._early.close()
        self._state = ResponseState.HOLDING
        if self._whole is None:
            self._whole = HeldAnswer(self._context, self._headers, self._answer)
        self._whole.begin(self._framing, has_trailers=self._has_trailers)
        self._follow_whole()

    def _begin_stream(self) -> None:
        self._context.inspection.verify_stream()
        self._state = ResponseState.STREAMING
        self._whole = None
        self._context.messages = ()  # a session gets the answer alone
        try:
            self._stream = ResponseStream(self._context, self._headers, self._framing)
        except ContentError as error:
            if self._context.fails_open(RESPONSE, error.reason):
                self._pass(end_of_stream=False)
            return
        if self._early.failure is not None:
            self._stream.fail(self._early.failure)
        else:
            self._stream.begin(self._early.take())

    # -- body and trailers -----------------------------------------------------------------------------------------

    def _pass_body(self, event: BodyReceived) -> None:
        """Release the body unread."""
        self._context.release_response(ReleaseBody(RESPONSE, event.data, event.end_of_stream))
        if event.end_of_stream:
            self._state = ResponseState.DONE

    def _pass_trailers(self, _: TrailersReceived) -> None:
        """Release the trailers."""
        self._context.release_response(ReleaseTrailers(RESPONSE))
        self._state = ResponseState.DONE

    def _end_by_trailers(self, event: TrailersReceived) -> None:
        """End the held answer: the trailers are its end."""
        self._has_trailers = True
        self._hand_to_whole(event)

    def _hand_to_whole(self, event: BodyReceived | TrailersReceived | VerdictReached) -> None:
        """Hand the event to the held answer."""
        assert self._whole is not None
        self._whole.handle(event)
        self._follow_whole()

    def _follow_whole(self) -> None:
        """Change the state with that of the held answer."""
        assert self._whole is not None
        state = self._whole.state
        if state is _RELEASED:
            self._state = _DONE
        elif state is _UNREAD:
            self._state = ResponseState.PASSING
            self._early.close()

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

    # -- refusals --------------------------------------------------------------------------------------------------

    @property
    def _dialect(self) -> Dialect:
        return self._context.inspection.dialect or DEFAULT

    def _replace(self, refusal: Refusal) -> None:
        """Release an error answer with the dialect's error object as its body, under its own status and headers."""
        context = self._context
        context.emit(ReportOutcome(refusal.outcome, refusal.code, refusal.reason))
        self._early.close()
        shown = refusal.for_error(self._answer.status, context.inspection.policy.block_message)
        if self._whole is None:
            self._whole = HeldAnswer(context, self._headers, self._answer)
        is_cut = self._framing is not WHOLE
        self._whole.release(self._late_refusal(shown) if is_cut else self._dialect.refuse(shown))
        self._state = ResponseState.DONE

    def _late_refusal(self, refusal: Refusal) -> bytes:
        return late_refusal(refusal, self._dialect, self._framing)

    # -- the session -----------------------------------------------------------------------------------------------

    def open_session(self) -> None:
        """Open a session for the stream that the request asked for, before the model answers."""
        self._early.open()

    def _on_early_event(self, event: FromSession) -> None:
        """Record what happened to the session before the stream arrived."""
        self._early.handle(event)

    def _stream_event(self, event: FromSession | RoomDemanded | Woken) -> None:
        """Hand the event to the stream."""
        assert self._stream is not None
        self._stream.handle(event)

    def watch_hold(self, *, is_full: bool) -> None:
        """Tell the stream whether its limit is reached, which bounds the time without a release."""
        if self._stream is not None:
            self._stream.watch_hold(is_full=is_full)

    # -- ends ------------------------------------------------------------------------------------------------------

    def ending(self, refusal: Refusal) -> list[Command]:
        """Return the commands that end a response that has begun, with `refusal` as its last bytes."""
        last = self._stream.ending(refusal) if self._stream is not None else self._late_refusal(refusal)
        if self._has_trailers:
            return [ReleaseBody(RESPONSE, last), ReleaseTrailers(RESPONSE)]
        return [ReleaseBody(RESPONSE, last, end_of_stream=True)]

    def drop(self) -> None:
        """Free what is held without releasing it."""
        self._state = ResponseState.DONE
        self._whole = None
        self._early.close()
        if self._stream is not None:
            self._stream.drop()


_S = ResponseState
_FROM_ENVOY = (HeadersReceived, BodyReceived, TrailersReceived)
_FROM_SESSION = (ChunkVerified, StreamBlocked, SessionDone, SessionFailed)

RESPONSE_TABLE: Table = {
    (_S.IDLE, HeadersReceived): ResponseLeg._on_headers,
    **{(_S.IDLE, each): ResponseLeg._on_early_event for each in _FROM_SESSION},
    (_S.PASSING, BodyReceived): ResponseLeg._pass_body,
    (_S.PASSING, TrailersReceived): ResponseLeg._pass_trailers,
    (_S.UNDECIDED, BodyReceived): ResponseLeg._begin_body,
    (_S.UNDECIDED, TrailersReceived): ResponseLeg._begin_by_trailers,
    **{(_S.UNDECIDED, each): ResponseLeg._on_early_event for each in _FROM_SESSION},
    (_S.HOLDING, BodyReceived): ResponseLeg._hand_to_whole,
    (_S.HOLDING, TrailersReceived): ResponseLeg._end_by_trailers,
    (_S.HOLDING, VerdictReached): ResponseLeg._hand_to_whole,
    (_S.STREAMING, BodyReceived): ResponseLeg._stream_body,
    (_S.STREAMING, TrailersReceived): ResponseLeg._end_stream_by_trailers,
    **{(_S.STREAMING, each): ResponseLeg._stream_event for each in (*_FROM_SESSION, RoomDemanded, Woken)},
    # Late events of a session that was closed, a late demand, and a late wake-up.
    **{
        (state, each): ignore
        for state in (_S.PASSING, _S.HOLDING, _S.DONE)
        for each in (*_FROM_SESSION, RoomDemanded, Woken)
    },
    **{(state, each): ignore for state in (_S.IDLE, _S.UNDECIDED) for each in (RoomDemanded, Woken)},
    # The rest of an error answer whose body was replaced.
    (_S.DONE, BodyReceived): ignore,
    (_S.DONE, TrailersReceived): ignore,
}
