"""An event stream on its way through a session: cut into events, submitted, released as Aim verifies it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, assert_never

from extproc.core.commands import (
    ClearTimer,
    CloseSession,
    OpenSession,
    ReleaseBody,
    ReleaseTrailers,
    ReportChunks,
    SetTimer,
    SubmitChunk,
    SubmitDone,
)
from extproc.core.content.body import DIGESTS, STALE, inflater
from extproc.core.content.sse import BOM, EventDecoder, ServerSentEvent
from extproc.core.errors import ContentError, Reason
from extproc.core.events import ChunkVerified, SessionDone, SessionFailed, StreamBlocked, TimerFired
from extproc.core.redaction import RedactionError
from extproc.core.refusal import redaction_failed
from extproc.core.release_queue import ReleaseQueue, SessionViolation
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import Headers, Hook, Leg, Timer

if TYPE_CHECKING:
    from extproc.core.exchange import Exchange

_BLANK_LINE = re.compile(rb"(\r\n|\n|\r(?!\n))(\r\n|\n|\r)\Z")

# Most chunks set a clock and stop it; these are the same every time.
_start_clock = cache(SetTimer)
_STOP_CLOCK = {timer: ClearTimer(timer) for timer in Timer}

PING = b": ping\n\n"
"""A comment: readers of events skip it, and whoever counts idle seconds starts anew."""


class StreamedAnswer:
    """One event stream; begun with `begin` or `fail`, fed, ended."""

    def __init__(self, exchange: Exchange, headers: Headers) -> None:
        """Read a stream with these response headers.

        Raises UnsupportedEncoding.
        """
        assert exchange.dialect is not None
        limits = exchange.limits
        self._exchange = exchange
        self._inflater = inflater(headers, None, limits.inflate_ratio)
        self._decoder = EventDecoder(limits.event_bytes)
        self._ping_seconds = exchange.profile.stream_ping_seconds if exchange.dialect.clients_skip_comments else 0
        self._queue = ReleaseQueue(exchange.dialect, f"chatcmpl-{exchange.record.call_id}")
        self._session: int | None = None
        self._was_reopened = False
        self._timers: set[Timer] = set()
        self._has_begun = False  # something was released, the headers with it
        self._follows_ping = False  # a ping took the place of the upstream's first byte
        self._tail = b""  # the last bytes that were released
        self._is_open = False  # the failure policy lets all go on unread
        self._has_ended = False  # the upstream has sent its last byte
        self._is_submitted = False  # Aim was told that no chunk follows
        self._is_verified = False  # Aim has said that it released all
        self.is_finished = False  # we have
        self.has_trailers = False

    @property
    def sequence(self) -> int:
        """The number of the next event, where events are numbered."""
        return self._queue.sequence

    @property
    def separator(self) -> bytes:
        """What must stand before an event of ours: the blank line that the last one may lack."""
        return b"" if not self._tail or _BLANK_LINE.search(self._tail) else b"\n\n"

    @property
    def pending(self) -> int:
        """Bytes of an event that is not whole yet."""
        return self._decoder.pending

    @property
    def held(self) -> int:
        """Bytes held."""
        return self._queue.held + self._decoder.pending

    def begin(self, session: int | None) -> None:
        """Start, with the session that was opened ahead if it still lives."""
        self._session = session
        if session is None:
            self._open()

    def _open(self) -> None:
        self._session = self._exchange.number()
        self._exchange.emit(OpenSession(self._session))

    # -- what comes from Envoy -----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes of the body."""
        try:
            plain = self._inflater.feed(data) if self._inflater is not None else data
        except ContentError as error:
            self._undecodable(error.reason)
            return
        if self._is_open:
            self._send(plain)
            return
        self._take(self._decoder.feed(plain))
        self._progress()

    def end(self, *, has_trailers: bool) -> None:
        """Take the end of the body."""
        self._has_ended = True
        self.has_trailers = has_trailers
        try:
            if self._inflater is not None:
                self._inflater.finish()
        except ContentError as error:
            self._undecodable(error.reason)
            return
        if self._is_open:
            self._close(b"")
            return
        self._take(self._decoder.finish())
        if self.is_finished:
            return
        if self._is_verified:
            self._close(self._queue.take_ready())
        elif self._queue.has_text:
            self._submit_done()
            self._progress()
        else:
            self._finish()

    def _submit_done(self) -> None:
        if not self._is_submitted and self._session is not None:
            self._is_submitted = True
            self._exchange.emit(SubmitDone(self._session))

    def _take(self, events: Iterator[ServerSentEvent]) -> None:
        try:
            for event in events:
                for chunk in self._queue.add(event):
                    if self._session is not None and not self._is_submitted:
                        self._exchange.emit(SubmitChunk(self._session, chunk))
                if self._is_submitted and self._queue.is_waiting:
                    # Text behind the mark of the end: Aim was told that there is none.
                    self.fail(Reason.BODY_UNREADABLE, is_detection=False)
                    return
        except ContentError as error:
            self.fail(error.reason, is_detection=False)

    # -- what comes from Aim, and the clocks -----------------------------------------------------------------------

    def on_event(self, event: ChunkVerified | SessionDone | SessionFailed | StreamBlocked | TimerFired) -> None:
        """Take what the session or a clock says; what belongs to another session does not matter."""
        if self._is_open or self.is_finished:
            return
        if isinstance(event, TimerFired):
            self._on_timer(event.timer)
            return
        if event.session != self._session:
            return
        match event:
            case ChunkVerified():
                self._on_verified(event)
            case StreamBlocked():
                self._exchange.report(Leg.RESPONSE, Hook.OUTPUT, Block())
                self._exchange.record.judge(Leg.RESPONSE, Block.action, (), event.milliseconds)
                self._exchange.refuse_blocked(Leg.RESPONSE, event.message, self._queue.withheld_texts())
            case SessionDone():
                if self._is_submitted:
                    self._finish(event.milliseconds)
                else:
                    self.fail(Reason.SESSION)
            case SessionFailed():
                self._on_lost(event)
            case _:
                assert_never(event)

    def _on_verified(self, event: ChunkVerified) -> None:
        self._clear(Timer.SILENCE)  # each frame starts it anew
        try:
            self._queue.verified(event.texts, event.chunk)
        except SessionViolation:
            self.fail(Reason.SESSION)
        except RedactionError:
            self._exchange.refuse(redaction_failed(Leg.RESPONSE))
        else:
            self._progress()

    def _on_lost(self, event: SessionFailed) -> None:
        if event.opened and not self._queue.has_text and self._is_submitted:
            self._finish()  # all was said, and nothing of it had to be verified
        elif event.opened and not self._queue.has_text and not self._was_reopened:
            self._was_reopened = True
            self._open()
        else:
            self.fail(event.reason)

    def _on_timer(self, timer: Timer) -> None:
        self._timers.discard(timer)
        match timer:
            case Timer.HEAD:
                self._queue.is_head_open = True
                self._progress()
            case Timer.SILENCE:
                self.fail(Reason.TIMEOUT)
            case Timer.HELD:
                self.fail(Reason.HELD_BYTES)
            case Timer.PING:
                self._ping()
            case _:
                assert_never(timer)

    # -- what goes out -------------------------------------------------------------------------------------------

    @property
    def _verdict_timeout(self) -> float:
        return self._exchange.verdict_timeout

    def _progress(self) -> None:
        """Release what may leave, and see that every wait has its clock."""
        if self._is_open or self.is_finished:
            return
        ready = self._queue.take_ready()
        if ready:
            self._send(ready)
            self._clear(Timer.HELD)
        elif not (self._queue.is_head_open or self._queue.is_empty):
            self._set(Timer.HEAD, self._exchange.profile.stream_head_seconds)
        if self._queue.awaits_done:
            # The upstream may keep its side open behind the mark of the end; the client waits for that mark.
            self._submit_done()
        if self._queue.is_waiting or (self._is_submitted and not self._is_verified):
            self._set(Timer.SILENCE, self._verdict_timeout)
        else:
            self._clear(Timer.SILENCE)
        if self._ping_seconds:
            if ready or self._queue.is_empty:
                self._clear(Timer.PING)
            if not self._queue.is_empty:
                self._set(Timer.PING, self._ping_seconds)

    def _ping(self) -> None:
        """Let the client hear something, unless an early block may still be a true 400."""
        if self._queue.is_head_open and not self._exchange.is_gated:
            self._follows_ping = self._follows_ping or not self._has_begun
            self._send_raw(PING)
        self._set(Timer.PING, self._ping_seconds)

    def watch_hold(self) -> None:
        """Start or stop the clock of a full hold."""
        if not self.is_finished and not self._is_open and self._exchange.is_paused:
            self._set(Timer.HELD, self._verdict_timeout)
        else:
            self._clear(Timer.HELD)

    def _send(self, data: bytes, *, end_of_stream: bool = False) -> None:
        if self._follows_ping and data:
            self._follows_ping = False
            data = data.removeprefix(BOM)  # behind the ping it would be part of a field's name
        self._send_raw(data, end_of_stream=end_of_stream)

    def _send_raw(self, data: bytes, *, end_of_stream: bool = False) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._clear(Timer.HEAD)
            # It leaves decoded: only whole events can be released, and they were read decoded. And what is yet to
            # come may be rewritten: no digest holds.
            self._exchange.response.release_headers(STALE if self._inflater is not None else DIGESTS)
        self._tail = (self._tail + data[-4:])[-4:]
        if data or end_of_stream:
            self._exchange.emit(ReleaseBody(Leg.RESPONSE, data, end_of_stream))

    def _close(self, data: bytes) -> None:
        """Send the last bytes and the end."""
        self.is_finished = True
        self._send(data, end_of_stream=not self.has_trailers)
        if self.has_trailers:
            self._exchange.emit(ReleaseTrailers(Leg.RESPONSE))
        self.drop()

    def _finish(self, milliseconds: int = 0) -> None:
        """Take Aim's done, or a stream without text, as leave to release the rest."""
        try:
            self._queue.finish()
        except RedactionError:
            self._exchange.refuse(redaction_failed(Leg.RESPONSE))
            return
        if self._queue.has_text:
            results = self._queue.results
            is_rewritten = bool(results["rewritten"] or results["dropped"])
            verdict = Anonymize(()) if is_rewritten else Allow()
            self._exchange.report(Leg.RESPONSE, Hook.OUTPUT, verdict)
            self._exchange.record.judge(Leg.RESPONSE, verdict.action, (), milliseconds)
            if is_rewritten:
                self._exchange.record.reach("redacted")
        self._is_verified = True
        if self._has_ended:
            self._close(self._queue.take_ready())
        else:
            self._leave_session()
            self._progress()

    def fail(self, reason: Reason, *, is_detection: bool = True) -> None:
        """Apply the failure policy; `is_detection` tells Aim's failure from one of the stream's own."""
        exchange = self._exchange
        if is_detection:
            failed = Failed(reason)
            exchange.report(Leg.RESPONSE, Hook.OUTPUT, failed)
            exchange.record.judge(Leg.RESPONSE, failed.action, (), 0)
        if not exchange.fails_open(Leg.RESPONSE, reason):
            return
        self._is_open = True
        data = self._queue.take_all() + self._decoder.take_rest()
        if self._has_ended:
            self._close(data)
        else:
            self._send(data)
            self._leave_session()

    def _undecodable(self, reason: Reason) -> None:
        """Refuse a stream whose content-encoding is broken: nothing true could be sent, whatever the policy."""
        self._exchange.refuse_unread(Leg.RESPONSE, reason)

    def drop(self) -> None:
        """Free what is held, the session and the clocks."""
        self.is_finished = True
        for result, count in self._queue.results.items():
            self._exchange.emit(ReportChunks(result, count))
        self._queue.results.clear()
        self._queue.take_all()
        self._decoder.take_rest()
        self._leave_session()

    def _leave_session(self) -> None:
        for timer in tuple(self._timers):
            self._clear(timer)
        if self._session is not None:
            self._exchange.emit(CloseSession(self._session))
            self._session = None

    def _set(self, timer: Timer, seconds: float) -> None:
        if timer not in self._timers:
            self._timers.add(timer)
            self._exchange.emit(_start_clock(timer, seconds))

    def _clear(self, timer: Timer) -> None:
        if timer in self._timers:
            self._timers.discard(timer)
            self._exchange.emit(_STOP_CLOCK[timer])
