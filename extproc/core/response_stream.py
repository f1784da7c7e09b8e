"""A streamed answer: it is cut into events, submitted to a session, and released as Aim verifies it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from extproc.core.commands import (
    CloseSession,
    OpenSession,
    ReleaseBody,
    ReleaseTrailers,
    ReportChunks,
    SubmitChunk,
    SubmitDone,
)
from extproc.core.content.body import DIGESTS, STALE, inflater
from extproc.core.content.framing import Decoder, Framing, Unit, decoder_of
from extproc.core.content.sse import BOM
from extproc.core.context import Context
from extproc.core.errors import ContentError, Reason
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    FromSession,
    RoomDemanded,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    Woken,
)
from extproc.core.matching import SessionViolation
from extproc.core.redaction import RedactionError
from extproc.core.refusal import failed, redaction_failed
from extproc.core.release_queue import ReleaseQueue
from extproc.core.transitions import Table, find, ignore
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import Headers, Hook, Leg

_BLANK_LINE = re.compile(rb"(\r\n|\n|\r(?!\n))(\r\n|\n|\r)\Z")

PING = b": ping\n\n"
"""A comment. Clients skip it, and it resets the idle timeouts of proxies."""

_REOPENINGS = 1
"""How often a session is opened again if it was lost before any text was submitted."""


class StreamState(StrEnum):
    """The states of a streamed answer."""

    SUBMITTING = "submitting"
    """its texts are submitted as they arrive"""
    SUBMITTED = "submitted"
    """Aim was told that no chunk follows, and its own `done` is expected"""
    VERIFIED = "verified"
    """Aim has released everything; the upstream has not ended yet"""
    OPENED = "opened"
    """the rest is released without Aim, as the failure policy allows"""
    FINISHED = "finished"
    """the last byte was released"""


class Head(StrEnum):
    """How much of the stream was released so far."""

    NOTHING = "nothing"
    PINGED = "pinged"
    """the headers and a ping, but nothing of the upstream's body"""
    BEGUN = "begun"


class Upstream(StrEnum):
    """Whether and how the upstream ended the stream."""

    OPEN = "open"
    ENDED = "ended"
    ENDED_BY_TRAILERS = "ended by trailers"


class Clock(StrEnum):
    """The deadlines of a stream."""

    HEAD = "head"
    """bounds how long the head of the stream may wait for the first verdict"""
    SILENCE = "silence"
    """bounds how long Aim may be silent while text waits"""
    HELD = "held"
    """bounds how long the stream may stay at its limit of held bytes without a release"""
    PING = "ping"
    """bounds how long the client may get nothing while events wait"""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The upstream has sent its last byte."""

    has_trailers: bool


class ResponseStream:
    """One event stream. `begin` or `fail` starts it; `STREAM_TABLE` says which method handles which event."""

    def __init__(self, context: Context, headers: Headers, framing: Framing = Framing.EVENT_STREAM) -> None:
        """Read a stream with these response headers; raise UnsupportedEncoding if it cannot be read."""
        dialect, limits, policy = context.dialect, context.limits, context.policy
        assert dialect is not None
        self._context = context
        self._state = StreamState.SUBMITTING
        self._head = Head.NOTHING
        self._upstream = Upstream.OPEN
        self._deadlines: dict[Clock, float] = {}
        self._inflater = inflater(headers, None, limits.inflate_ratio)
        self._decoder = decoder_of(framing, limits.event_bytes)
        skips_comments = dialect.clients_skip_comments and framing is Framing.EVENT_STREAM
        self._framing = framing
        self._ping_seconds = policy.stream_ping_seconds if skips_comments else 0
        self._queue = ReleaseQueue(dialect, f"chatcmpl-{context.call_id}", limits.values)
        self._session: int | None = None
        self._reopenings = _REOPENINGS
        self._tail = b""  # the last bytes that were released
        self._opened: Decoder | None = None  # reads what arrives after the stream has failed open

    @property
    def is_finished(self) -> bool:
        """Return whether the last byte was released."""
        return self._state is StreamState.FINISHED

    @property
    def deadline(self) -> float | None:
        """The time at which the stream wants to be woken; None if it does not."""
        return min(self._deadlines.values()) if self._deadlines else None

    @property
    def sequence(self) -> int:
        """The number of the next event, for APIs that number events."""
        return self._queue.sequence

    @property
    def tail(self) -> bytes:
        """The last bytes that were released."""
        return self._tail

    @property
    def separator(self) -> bytes:
        """The bytes that must precede an event of the sidecar: the line ends that the last event may lack."""
        if self._framing is Framing.JSON_LINES:
            return b"" if not self._tail or self._tail.endswith(b"\n") else b"\n"
        if self._framing is not Framing.EVENT_STREAM:
            return b""
        return b"" if not self._tail or _BLANK_LINE.search(self._tail) else b"\n\n"

    @property
    def pending(self) -> int:
        """The bytes of the incomplete event."""
        return self._decoder.pending

    @property
    def held(self) -> int:
        """Bytes held."""
        return self._queue.held + self._decoder.pending

    @property
    def kept(self) -> int:
        """Bytes of running texts that are kept beside the events. Aim cannot free them."""
        return self._queue.kept

    @property
    def yields_room(self) -> bool:
        """Return whether the stream gives up all that it holds when room is demanded."""
        return self._state is not StreamState.OPENED and self._state is not StreamState.FINISHED

    def begin(self, session: int | None) -> None:
        """Start with `session` if it was opened in advance and still exists, else with a new one."""
        self._session = session
        if session is None:
            self._open_session()

    def _open_session(self) -> None:
        self._context.was_read = True
        self._session = self._context.number()
        self._context.emit(OpenSession(self._session))

    def handle(self, event: BodyReceived | StreamEnd | FromSession | RoomDemanded | Woken) -> None:
        """Handle an event of this stream; ignore an event of a former session."""
        if self._context.is_refused or (isinstance(event, _FROM_SESSION) and event.session != self._session):
            return
        find(STREAM_TABLE, self._state, event)(self, event)

    # -- the upstream ----------------------------------------------------------------------------------------------

    def _read(self, event: BodyReceived) -> None:
        """Cut the bytes into events and submit their texts."""
        plain = self._decode(event.data)
        if plain is not None:
            self._take(self._decoder.feed(plain))
            self._progress()

    def _pass(self, event: BodyReceived) -> None:
        """Release the bytes; what Aim has rewritten is not repeated in them."""
        plain = self._decode(event.data)
        if plain is not None:
            self._send(self._pass_on(plain))

    def _decode(self, data: bytes) -> bytes | None:
        """Return the bytes without their content-encoding; refuse and return None if it is broken."""
        if self._inflater is None:
            return data
        try:
            return self._inflater.feed(data)
        except ContentError as error:
            self._refuse_undecodable(error.reason)
            return None

    def _end(self, event: StreamEnd) -> None:
        """End the input: submit what is left and tell Aim."""
        if not self._end_upstream(event):
            return
        self._take(self._decoder.finish())
        if self.is_finished or self._context.is_refused:
            return
        if self._state is StreamState.VERIFIED:
            self._close(self._queue.take_ready())
        elif self._queue.has_text:
            self._submit_done()
            self._progress()
        else:
            self._finish()

    def _pass_end(self, event: StreamEnd) -> None:
        """Release the end of the stream."""
        if self._end_upstream(event):
            self._close(self._pass_on(b"", is_end=True))

    def _end_upstream(self, event: StreamEnd) -> bool:
        """Record the end; return whether the content-encoding is complete, else refuse."""
        self._upstream = Upstream.ENDED_BY_TRAILERS if event.has_trailers else Upstream.ENDED
        try:
            if self._inflater is not None:
                self._inflater.finish()
        except ContentError as error:
            self._refuse_undecodable(error.reason)
            return False
        return True

    def _refuse_undecodable(self, reason: Reason) -> None:
        """Refuse a stream whose content-encoding is broken. It cannot fail open: its bytes are unknown."""
        self._context.refuse(failed(Leg.RESPONSE, reason))

    def _take(self, events: Iterator[Unit]) -> None:
        """Queue events and submit their texts."""
        try:
            for event in events:
                for chunk in self._queue.add(event):
                    if self._state is StreamState.SUBMITTING and self._session is not None:
                        self._context.emit(SubmitChunk(self._session, chunk))
                if self._state is not StreamState.SUBMITTING and self._queue.is_waiting:
                    # Text follows the mark of the end, although Aim was told that no text follows.
                    self.fail(Reason.BODY_UNREADABLE, is_detection=False)
                    return
        except ContentError as error:
            self.fail(error.reason, is_detection=False)

    def _submit_done(self) -> None:
        if self._state is StreamState.SUBMITTING and self._session is not None:
            self._state = StreamState.SUBMITTED
            self._context.emit(SubmitDone(self._session))

    # -- the session -----------------------------------------------------------------------------------------------

    def _on_verified(self, event: ChunkVerified) -> None:
        """Match the chunk with the waiting texts and release what it covers."""
        self._stop(Clock.SILENCE)  # each frame restarts it
        try:
            self._queue.verified(event.texts, event.chunk)
        except SessionViolation:
            self.fail(Reason.SESSION)
        except RedactionError:
            self._context.refuse(redaction_failed(Leg.RESPONSE))
        else:
            self._progress()

    def _on_blocked(self, event: StreamBlocked) -> None:
        """Refuse the stream, or the rest of it."""
        self._context.report(Leg.RESPONSE, Hook.OUTPUT, [Block()], event.milliseconds)
        self._context.refuse_blocked(Leg.RESPONSE, event.message, self._queue.withheld_texts())

    def _on_early_done(self, _: SessionDone) -> None:
        """Apply the failure policy: Aim ended before the stream did."""
        self.fail(Reason.SESSION)

    def _on_done(self, event: SessionDone) -> None:
        """Release the rest."""
        self._finish(event.milliseconds)

    def _on_lost(self, event: SessionFailed) -> None:
        """Open another session if nothing was submitted to this one, else apply the failure policy."""
        if not event.opened or self._queue.has_text:
            self.fail(event.reason)
        elif self._state is StreamState.SUBMITTED:
            self._finish()  # there was nothing to verify
        elif self._reopenings:
            self._reopenings -= 1
            self._open_session()
        else:
            self.fail(event.reason)

    # -- deadlines and room --------------------------------------------------------------------------------------------

    def _on_woken(self, _: Woken) -> None:
        """Act on each deadline that has passed."""
        now = self._context.now
        for clock in [clock for clock, due in self._deadlines.items() if due <= now]:
            if self._deadlines.get(clock, now + 1) > now or self._context.is_refused:
                continue  # an earlier deadline has stopped or moved this one
            del self._deadlines[clock]
            match clock:
                case Clock.HEAD:
                    self._queue.is_head_open = True
                    self._progress()
                case Clock.SILENCE:
                    self.fail(Reason.TIMEOUT)
                case Clock.HELD:
                    self.fail(Reason.HELD_BYTES)
                case Clock.PING:
                    self._ping()
                case _:
                    assert_never(clock)

    def _yield_room(self, _: RoomDemanded) -> None:
        """Apply the failure policy: the process holds more than it may."""
        self.fail(Reason.HELD_BYTES)

    def watch_hold(self, *, is_full: bool) -> None:
        """Start the clock `HELD` if the limit of held bytes is reached, else stop it."""
        if is_full and self._state not in (StreamState.OPENED, StreamState.FINISHED):
            self._start(Clock.HELD, self._context.policy.verdict_timeout_seconds)
        else:
            self._stop(Clock.HELD)

    def _start(self, clock: Clock, seconds: float) -> None:
        """Start a clock unless it runs already."""
        if clock not in self._deadlines:
            self._deadlines[clock] = self._context.now + seconds

    def _stop(self, clock: Clock) -> None:
        self._deadlines.pop(clock, None)

    # -- releases --------------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        """Release what may be released, and start or stop the clocks."""
        if self._state is StreamState.OPENED or self._state is StreamState.FINISHED or self._context.is_refused:
            return
        queue = self._queue
        ready = queue.take_ready()
        if ready:
            self._send(ready)
            self._stop(Clock.HELD)
        elif not (queue.is_head_open or queue.is_empty):
            self._start(Clock.HEAD, self._context.policy.stream_head_seconds)
        if queue.awaits_done:
            # The client waits for the mark of the end, but the upstream may not end the stream after it.
            self._submit_done()
        if queue.is_waiting or self._state is StreamState.SUBMITTED:
            self._start(Clock.SILENCE, self._context.policy.verdict_timeout_seconds)
        else:
            self._stop(Clock.SILENCE)
        if self._ping_seconds:
            if ready or queue.is_empty:
                self._stop(Clock.PING)
            if not queue.is_empty:
                self._start(Clock.PING, self._ping_seconds)

    def _ping(self) -> None:
        """Send a ping, unless a block could still become an error status."""
        if self._queue.is_head_open and not self._context.gate.is_closed:
            if self._head is Head.NOTHING:
                self._release_headers()
                self._head = Head.PINGED
            self._release(PING)
        self._start(Clock.PING, self._ping_seconds)

    def _send(self, data: bytes, *, end_of_stream: bool = False) -> None:
        """Release bytes of the stream, after the headers."""
        if self._head is Head.NOTHING:
            self._release_headers()
        if self._head is Head.PINGED and data:
            data = data.removeprefix(BOM)  # after a ping, a BOM would be part of a field's name
        if self._head is Head.NOTHING or data:
            self._head = Head.BEGUN
        if data or end_of_stream:
            self._release(data, end_of_stream=end_of_stream)

    def _release_headers(self) -> None:
        self._stop(Clock.HEAD)
        # The stream is released decoded: only whole events can be released, and they are decoded to be read. Later
        # events may be rewritten, so no digest is valid.
        self._context.release_headers(STALE if self._inflater is not None else DIGESTS)

    def _release(self, data: bytes, *, end_of_stream: bool = False) -> None:
        self._tail = (self._tail + data[-4:])[-4:]
        self._context.release_response(ReleaseBody(Leg.RESPONSE, data, end_of_stream))

    def _close(self, data: bytes) -> None:
        """Send the last bytes and the end."""
        has_trailers = self._upstream is Upstream.ENDED_BY_TRAILERS
        self._send(data, end_of_stream=not has_trailers)
        if has_trailers:
            self._context.release_response(ReleaseTrailers(Leg.RESPONSE))
        self.drop()

    def _finish(self, milliseconds: int = 0) -> None:
        """Release the rest: Aim has verified everything, or there is nothing to verify."""
        try:
            self._queue.finish()
        except RedactionError:
            self._context.refuse(redaction_failed(Leg.RESPONSE))
            return
        if self._queue.has_text:
            results = self._queue.results
            is_rewritten = bool(results["rewritten"] or results["dropped"])
            verdict = Anonymize(()) if is_rewritten else Allow()
            self._context.report(Leg.RESPONSE, Hook.OUTPUT, [verdict], milliseconds)
            if is_rewritten:
                self._context.report_redacted()
        self._state = StreamState.VERIFIED
        if self._upstream is not Upstream.OPEN:
            self._close(self._queue.take_ready())
        else:
            self._leave_session()
            self._progress()

    def fail(self, reason: Reason, *, is_detection: bool = True) -> None:
        """Apply the failure policy. `is_detection` is False if the stream itself failed and not Aim."""
        context = self._context
        if is_detection:
            context.report(Leg.RESPONSE, Hook.OUTPUT, [Failed(reason)])
        opens = context.policy.failure_mode_allow.opens(Leg.RESPONSE, reason)
        try:
            data = self._queue.take_all() if opens else b""
        except RedactionError:
            context.refuse(redaction_failed(Leg.RESPONSE))
            return
        if not context.fails_open(Leg.RESPONSE, reason):
            return
        self._state = StreamState.OPENED
        self._opened = self._decoder if self._queue.is_altered else None
        if self._opened is None:
            self._queue.drop()
        if self._upstream is not Upstream.OPEN:
            self._close(data + self._pass_on(b"", is_end=True))
        else:
            self._send(data + self._pass_on(b""))
            self._leave_session()

    def _pass_on(self, data: bytes, *, is_end: bool = False) -> bytes:
        """Return what may leave of the next bytes of a stream that fails open.

        Events are read on if Aim has rewritten a text, because later ones may repeat it.
        """
        released: list[bytes] = []
        if self._opened is not None:
            try:
                released += map(self._queue.pass_on, self._opened.feed(data))
                if is_end:
                    released += map(self._queue.pass_on, self._opened.finish())
            except (ContentError, RedactionError):
                # What cannot be read may repeat what Aim has rewritten.
                self._context.refuse(redaction_failed(Leg.RESPONSE))
            data = b""
        if self._opened is None:
            released += (self._decoder.take_rest(), data)
        return b"".join(released)

    def drop(self) -> None:
        """Free the held events, the session and the clocks."""
        self._state = StreamState.FINISHED
        for result, count in self._queue.results.items():
            self._context.emit(ReportChunks(result, count))
        self._queue.results.clear()
        self._queue.drop()
        self._decoder.take_rest()
        self._leave_session()

    def _leave_session(self) -> None:
        self._deadlines.clear()
        if self._session is not None:
            self._context.emit(CloseSession(self._session))
            self._session = None


_S = StreamState
_FROM_SESSION = (ChunkVerified, StreamBlocked, SessionDone, SessionFailed)
_READING = (_S.SUBMITTING, _S.SUBMITTED, _S.VERIFIED)

STREAM_TABLE: Table = {
    **{(state, BodyReceived): ResponseStream._read for state in _READING},
    **{(state, StreamEnd): ResponseStream._end for state in _READING},
    **{(state, Woken): ResponseStream._on_woken for state in _READING},
    **{(state, RoomDemanded): ResponseStream._yield_room for state in _READING},
    **{(state, ChunkVerified): ResponseStream._on_verified for state in (_S.SUBMITTING, _S.SUBMITTED)},
    **{(state, StreamBlocked): ResponseStream._on_blocked for state in (_S.SUBMITTING, _S.SUBMITTED)},
    **{(state, SessionFailed): ResponseStream._on_lost for state in (_S.SUBMITTING, _S.SUBMITTED)},
    (_S.SUBMITTING, SessionDone): ResponseStream._on_early_done,
    (_S.SUBMITTED, SessionDone): ResponseStream._on_done,
    (_S.OPENED, BodyReceived): ResponseStream._pass,
    (_S.OPENED, StreamEnd): ResponseStream._pass_end,
    # Late events of a former session.
    **{(state, each): ignore for state in (_S.VERIFIED, _S.OPENED, _S.FINISHED) for each in _FROM_SESSION},
    **{(state, each): ignore for state in (_S.OPENED, _S.FINISHED) for each in (RoomDemanded, Woken)},
    **{(_S.FINISHED, each): ignore for each in (BodyReceived, StreamEnd)},
}
