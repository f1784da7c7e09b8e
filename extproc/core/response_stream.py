"""A streamed answer: it is cut into events, submitted to a session, and released as Aim verifies it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from extproc.core.block_answers.writer import write
from extproc.core.chunk import SessionViolation
from extproc.core.commands import ReportChunks
from extproc.core.content.framing import Framing
from extproc.core.context import Context
from extproc.core.deadlines import HEAD, HELD, SILENCE, Clock, Deadlines
from extproc.core.errors import ContentError, Reason
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    FromSession,
    RoomDemanded,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TrailersReceived,
    Woken,
)
from extproc.core.late_refusal import late_refusal
from extproc.core.opened_rest import OpenedRest
from extproc.core.redaction import RedactionError
from extproc.core.refusal import Refusal, failed, redaction_failed
from extproc.core.release_queue import ReleaseQueue
from extproc.core.stream_input import StreamInput, Upstream
from extproc.core.stream_output import StreamOutput
from extproc.core.stream_session import StreamSession
from extproc.core.transitions import Table, find, ignore
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import Headers, Hook, Leg


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


_SUBMITTING, _SUBMITTED, _, _OPENED, _FINISHED = StreamState
_OVER = (_OPENED, _FINISHED)


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The upstream has sent its last byte."""

    has_trailers: bool


class ResponseStream:
    """One event stream. `begin` or `fail` starts it; `STREAM_TABLE` says which method handles which event."""

    def __init__(self, context: Context, headers: Headers, framing: Framing = Framing.EVENT_STREAM) -> None:
        """Read a stream with these response headers; raise UnsupportedEncoding if it cannot be read."""
        dialect, limits = context.inspection.dialect, context.limits
        assert dialect is not None
        self._context = context
        self._dialect = dialect
        self._framing = framing
        self._state = StreamState.SUBMITTING
        self._input = StreamInput(headers, framing, limits)
        self._output = StreamOutput(context, framing, is_decoded=self._input.is_encoded)
        skips_comments = dialect.clients_skip_comments and framing is Framing.EVENT_STREAM
        self._deadlines = Deadlines(context.inspection.policy, has_pings=skips_comments)
        self._queue = ReleaseQueue(dialect, f"chatcmpl-{context.call_id}", limits.values)
        self._queue.answer = context.new_answer()
        self._session = StreamSession(context, is_late=dialect.is_often_silent or context.inspection.is_get)
        self._rest: OpenedRest | None = None  # what is passed on after the stream has failed open

    @property
    def is_finished(self) -> bool:
        """Return whether the last byte was released."""
        return self._state is _FINISHED

    @property
    def deadline(self) -> float | None:
        """The time at which the stream wants to be woken; None if it does not."""
        return self._deadlines.first

    @property
    def incomplete(self) -> int:
        """The bytes of an event that only the upstream can complete."""
        return self._input.incomplete

    def holds(self) -> tuple[int, int, int]:
        """Return the bytes that are held, those of running texts beside them, and those given up if room is demanded.

        Aim cannot free the running texts. A stream gives up all that it holds, unless it is over.
        """
        queue = self._queue
        held, kept = queue.held + self._input.pending, queue.kept
        return held, kept, 0 if self._state in _OVER else held + kept

    def weight(self, event: BodyReceived | TrailersReceived | FromSession | RoomDemanded | Woken) -> int:
        """Return about how many bytes are read or written to handle `event`.

        Pieces that complete no event weigh nothing. Others are read in turns, so only one large event weighs much.
        """
        queue = self._queue
        match event:
            case BodyReceived():
                return self._input.weight(event.data, is_last=event.end_of_stream)
            case TrailersReceived():
                return self._input.pending
            case ChunkVerified():
                return queue.held if queue.is_altered else queue.first_size
            case _:
                return queue.held + self._input.most_pending  # the stream may fail open

    def begin(self, session: int | None) -> None:
        """Start with `session` if it was opened in advance and still exists, else with a new one."""
        self._session.begin(session)
        if self._session.awaits_text:
            # Nothing may come for long, and the client waits for the headers.
            self._deadlines.await_head(self._context.now)

    def handle(self, event: BodyReceived | StreamEnd | FromSession | RoomDemanded | Woken) -> None:
        """Handle an event of this stream; ignore an event of a former session."""
        if self._context.refusal is not None or (
            isinstance(event, _FROM_SESSION) and event.session != self._session.number
        ):
            return
        find(STREAM_TABLE, self._state, event)(self, event)

    # -- the upstream ----------------------------------------------------------------------------------------------

    def _read(self, event: BodyReceived) -> None:
        """Cut the bytes into events and submit their texts."""
        self._input.add(event.data)
        self._take()

    def _pass(self, event: BodyReceived) -> None:
        """Release the bytes; what Aim has rewritten is not repeated in them."""
        assert self._rest is not None
        data = self._rest.pass_on(event.data)
        if data is not None:
            self._output.send(data)

    def _end(self, event: StreamEnd) -> None:
        """End the input: submit what is left and tell Aim."""
        self._input.end(has_trailers=event.has_trailers)
        self._take()

    def _pass_end(self, event: StreamEnd) -> None:
        """Release the end of the stream."""
        self._input.end(has_trailers=event.has_trailers)
        assert self._rest is not None
        data = self._rest.pass_on(b"")
        if data is not None:
            self._close(data)

    def _take(self) -> None:
        """Queue the next events and submit their texts; once all of an ended stream was read, tell Aim."""
        self._queue_events()
        if self._state is _FINISHED or self._context.refusal is not None:
            return
        if not self._input.is_over:
            self._progress()
        elif self._state is StreamState.VERIFIED:
            self._close(self._queue.take_ready())
        elif self._queue.has_text:
            self._submit_done()
            self._progress()
        else:
            self._finish()

    def _queue_events(self) -> None:
        try:
            for event in self._input.units():
                for chunk in self._queue.add(event):
                    if self._state is _SUBMITTING:
                        self._session.submit(chunk)
                if self._state is not _SUBMITTING and self._queue.is_waiting:
                    # Text follows the mark of the end, although Aim was told that no text follows.
                    self.fail(Reason.BODY_UNREADABLE, is_detection=False)
                    return
        except ContentError as error:
            if self._input.is_broken:
                # The stream cannot fail open: its bytes are unknown.
                self._context.refuse(failed(Leg.RESPONSE, error.reason))
            else:
                self.fail(error.reason, is_detection=False)

    def _submit_done(self) -> None:
        if self._session.awaits_text and not self._queue.has_deferred:
            self._finish()  # there is nothing that Aim owes
        elif self._state is StreamState.SUBMITTING:
            self._state = StreamState.SUBMITTED
            self._submit_deferred()
            self._session.submit_done()

    def _submit_deferred(self) -> None:
        for chunk in self._queue.take_deferred():
            self._session.submit(chunk)

    # -- the session -----------------------------------------------------------------------------------------------

    def _on_verified(self, event: ChunkVerified) -> None:
        """Match the chunk with the waiting texts and release what it covers."""
        self._deadlines.stop(SILENCE)  # each frame restarts it
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
        """Open another session if this one owes nothing, else apply the failure policy."""
        is_idle = self._session.is_late and self._state is StreamState.SUBMITTING and not self._queue.is_waiting
        if event.opened and is_idle:
            self._session.await_text()
        elif not event.opened or self._queue.has_text:
            self.fail(event.reason)
        elif self._state is StreamState.SUBMITTED:
            self._finish()  # there was nothing to verify
        elif not self._session.reopen():
            self.fail(event.reason)

    # -- deadlines and room --------------------------------------------------------------------------------------------

    def _on_woken(self, _: Woken) -> None:
        """Act on each deadline that has passed."""
        for clock in self._deadlines.take_passed(self._context.now):
            if self._context.is_refused:
                return
            match clock:
                case Clock.HEAD:
                    self._queue.is_head_open = True
                    self._progress()
                    if self._session.awaits_text and self._queue.is_empty:
                        self._output.send(b"")
                case Clock.SILENCE:
                    self.fail(Reason.TIMEOUT)
                case Clock.HELD:
                    self.fail(Reason.HELD_BYTES)
                case Clock.MORE:
                    self._take()
                case Clock.DEFER:
                    self._submit_deferred()
                    self._progress()
                case Clock.PING:
                    self._ping()
                case _:
                    assert_never(clock)

    def _yield_room(self, _: RoomDemanded) -> None:
        """Apply the failure policy: the process holds more than it may."""
        self.fail(Reason.HELD_BYTES)

    def watch_hold(self, *, is_full: bool) -> None:
        """Start the clock `HELD` if the limit of held bytes is reached, else stop it."""
        if is_full and self._state not in _OVER:
            self._deadlines.await_room(self._context.now)
        else:
            self._deadlines.stop(HELD)

    # -- releases --------------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        """Release what may be released, and start or stop the clocks."""
        if self._state in _OVER or self._context.refusal is not None:
            return
        queue = self._queue
        ready = queue.take_ready()
        if ready:
            self._output.send(ready)
        if queue.awaits_done:
            # The client waits for the mark of the end, but the upstream may not end the stream after it.
            self._submit_done()
        self._deadlines.follow(
            queue,
            self._context.now,
            has_released=bool(ready),
            has_more=self._input.has_more and queue.held <= self._context.limits.held_bytes,
            is_submitted=self._state is _SUBMITTED,
        )

    def _ping(self) -> None:
        """Send a ping, unless a block could still become an error status."""
        if self._queue.is_head_open and not self._context.gate.is_closed:
            self._deadlines.stop(HEAD)
            self._output.ping()
        self._deadlines.await_ping(self._context.now)

    def _close(self, data: bytes) -> None:
        """Send the last bytes and the end."""
        self._output.close(data, has_trailers=self._input.upstream is Upstream.ENDED_BY_TRAILERS)
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
        if self._input.is_over:
            self._close(self._queue.take_ready())
        else:
            self._leave_session()
            self._progress()

    def fail(self, reason: Reason, *, is_detection: bool = True) -> None:
        """Apply the failure policy. `is_detection` is False if the stream itself failed and not Aim."""
        context = self._context
        if is_detection:
            context.report(Leg.RESPONSE, Hook.OUTPUT, [Failed(reason)])
        opens = context.inspection.policy.failure_mode_allow.opens(Leg.RESPONSE, reason)
        try:
            data = self._queue.take_all() if opens else b""
        except RedactionError:
            context.refuse(redaction_failed(Leg.RESPONSE))
            return
        if opens:
            # What waits may prove to be undecodable. Then nothing leaves, and the stream has not failed open.
            self._rest = OpenedRest(context, self._queue, self._input)
            rest = self._rest.pass_on(b"")
            if rest is None:
                return
            data += rest
        if not context.fails_open(Leg.RESPONSE, reason):
            return
        self._state = StreamState.OPENED
        if self._input.upstream is not Upstream.OPEN:
            self._close(data)
        else:
            self._output.send(data)
            self._leave_session()

    def ending(self, refusal: Refusal) -> bytes:
        """Return the last bytes of a stream that is refused: an error, or the events that complete a blocked answer."""
        answer = self._queue.answer if refusal.is_block else None
        output, source = self._output, self._input
        if answer is None:
            last = late_refusal(
                refusal,
                self._dialect,
                self._framing,
                sequence=self._queue.sequence,
                is_part=source.has_parts,
                tail=output.tail,
            )
        else:
            inside = Framing.JSON_LINES if source.has_lines else Framing.EVENT_STREAM
            last = write(answer.rest(refusal.message), self._framing, answer.frames, tail=output.tail, inside=inside)
        return output.separator + last

    def drop(self) -> None:
        """Free the held events, the session and the clocks."""
        self._state = StreamState.FINISHED
        for result, count in self._queue.results.items():
            self._context.emit(ReportChunks(result, count))
        self._queue.results.clear()
        self._queue.drop()
        self._input.drop()
        self._leave_session()

    def _leave_session(self) -> None:
        self._deadlines.clear()
        self._session.leave()


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
