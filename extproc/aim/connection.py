"""A websocket to Aim that whatever arrives keeps alive, and that knows whether Aim is behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from extproc.core.errors import DetectionError, DetectionRejected, DetectionTimeout, Reason

UNSENT_BYTES = 65_536
"""Aim is behind while more bytes than this wait to be sent, and until most of them are sent."""

_CLOSE_SECONDS = 2.0
"""Time limit of the closing handshake. The exchange does not wait for it."""

_OPEN = State.OPEN  # looking up a member of an enumeration is slow in Python 3.11
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long Aim may say nothing."""

    ping_seconds: float
    """the interval of pings, which are sent while nothing arrives"""
    verdict_seconds: float
    """how long Aim may be behind without any message"""

    @property
    def pings(self) -> int:
        """How many pings in a row may stay without an answer: an Aim with work to do answers them after that work."""
        return max(1, math.ceil(self.verdict_seconds / self.ping_seconds))


class Socket(asyncio.Protocol):
    """The client's end of an open websocket. The library's `ClientProtocol` reads and writes the frames.

    It detects a dead Aim, but not as the library's own connection does, which ends if a pong is late. A ping waits
    behind the chunks that Aim has not read yet, and an Aim that is behind may send verified chunks for minutes before
    it reads the ping. So whatever arrives shows that Aim lives. The intervals are counted, not measured, so that a
    pause of this process is not taken for Aim's.

    A message is passed on as soon as it has arrived, so none waits here to be read.
    """

    def __init__(
        self,
        frames: ClientProtocol,
        patience: Patience,
        *,
        on_message: Callable[[bytes], None],
        on_caught_up: Callable[[], None],
        on_failure: Callable[[DetectionError], None],
    ) -> None:
        """Carry the messages of `frames`, which has done the opening handshake, from `connection_made` on.

        `on_message` is called with each message, `on_caught_up` whenever Aim is no longer behind. `on_failure` is
        called when Aim closes or breaks the connection, and once Aim has been behind without a message for longer than
        `patience` allows.
        """
        self._frames = frames
        self._patience = patience
        self._on_message, self._on_caught_up, self._on_failure = on_message, on_caught_up, on_failure
        self._loop = asyncio.get_running_loop()
        self._beginning = bytearray()  # of a message in several frames
        self._has_heard = False  # anything, since the last interval
        self._has_message = False  # since Aim's time to read has begun
        self._awaits_pong = False
        self._pings = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._lost = asyncio.Event()
        self.is_behind = False
        """Whether Aim has to read before more is sent."""

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        # A closed TLS transport has no size.
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def send(self, text: str) -> None:
        """Send a message, or put it behind what waits to be sent; do nothing if the connection has ended."""
        if self._frames.state is _OPEN and not self._transport.is_closing():
            self._frames.send_text(text.encode())
            self._write()

    async def close(self) -> None:
        """Close the connection: with a closing handshake if Aim takes part in time."""
        try:
            if self._is_open:
                self._frames.send_close(CloseCode.NORMAL_CLOSURE)
                self._write()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._lost.wait()
        finally:
            self._transport.abort()

    @property
    def _is_open(self) -> bool:
        return self._frames.state is _OPEN and not self._transport.is_closing()

    def _write(self) -> None:
        for data in self._frames.data_to_send():
            if data:  # no bytes mean the end, which the transport has seen already
                self._transport.write(data)

    def _receive(self, frame: Frame) -> None:
        if frame.opcode in _DATA:
            if not frame.fin:
                self._beginning += frame.data
                return
            message = bytes(frame.data)
            if self._beginning:
                message = bytes(self._beginning) + message
                self._beginning.clear()
            self._has_message = True
            self._on_message(message)
        elif frame.opcode is Opcode.PONG:
            self._awaits_pong = False

    # -- whether Aim lives -----------------------------------------------------------------------------------------

    def _await_tick(self) -> None:
        self._ticking = self._loop.call_later(self._patience.ping_seconds, self._tick)

    def _tick(self) -> None:
        """Look at whether anything has arrived in the last interval; else ping, or give up if that was often enough."""
        if self._has_heard:
            self._has_heard, self._pings = False, 0
        elif self._pings == self._patience.pings:
            self._transport.abort()
            return
        else:
            self._pings += 1
            if self._is_open and not self._awaits_pong:
                self._awaits_pong = True
                self._frames.send_ping(b"")
                self._write()
        self._await_tick()

    def _expect_reading(self) -> None:
        self._has_message = False
        self._reading = self._loop.call_later(self._patience.verdict_seconds, self._on_late)

    def _on_late(self) -> None:
        if self._has_message:
            self._expect_reading()
        else:
            self._on_failure(DetectionTimeout("Aim does not read"))

    def _stop_reading_clock(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _end(self) -> None:
        # A clean close is a failure, too: `done` is missing.
        self._on_failure(DetectionRejected(Reason.SESSION, "Aim ended the session"))

    # -- what the event loop calls -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not a subclass of it
        self._transport.set_write_buffer_limits(UNSENT_BYTES)
        self._await_tick()

    def data_received(self, data: bytes) -> None:
        """Pass on the messages in `data`, and answer the other frames."""
        self._has_heard = True
        self._frames.receive_data(data)
        self._write()
        for frame in self._frames.events_received():
            assert isinstance(frame, Frame)  # the response to the handshake has been received before
            self._receive(frame)
        if self._frames.state is not _OPEN:
            self._end()

    def pause_writing(self) -> None:
        """Record that Aim is behind."""
        self.is_behind = True
        self._expect_reading()

    def resume_writing(self) -> None:
        """Record that Aim has caught up."""
        self.is_behind = False
        self._stop_reading_clock()
        self._on_caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching, and report the end unless it is known."""
        self.is_behind = False
        self._frames.receive_eof()
        self._stop_reading_clock()
        if self._ticking is not None:
            self._ticking.cancel()
        self._lost.set()
        self._end()
        self._on_message = self._on_failure = _ignore  # frees the session
        self._on_caught_up = _do_nothing


def _ignore(_: object) -> None:
    """Stand in for a callback."""


def _do_nothing() -> None:
    """Stand in for a callback."""
