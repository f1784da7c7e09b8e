"""A websocket to Aim that whatever arrives keeps alive, and that knows whether Aim is behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.protocol import State

UNSENT_BYTES = 65_536
"""Aim is behind while more bytes than this wait to be sent, and until most of them are sent."""


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


class Socket(ClientConnection):
    """A connection that detects a dead Aim without the library's own pings.

    The library ends a connection whose pong is late. But a ping waits behind the chunks that Aim has not read yet, and
    an Aim that is behind may send verified chunks for minutes before it reads the ping. So whatever arrives shows that
    Aim lives. The intervals are counted, not measured, so that a pause of this process is not taken for Aim's.

    The library shows its user neither the peer's pings nor whether the transport wants no more data. So this class
    overrides what the event loop calls on every `asyncio.Protocol`, and nothing of the library's own: that it makes an
    instance of this class (`create_connection`), `state` and `ping` are in its reference.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Create a connection as the library does; it is watched from `watch` on."""
        super().__init__(*args, **options)
        self._writing: asyncio.WriteTransport | None = None
        self._has_heard = False  # anything, since the last interval
        self._has_message = False  # since Aim's time to read has begun
        self._pings = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._patience: Patience | None = None
        self._on_caught_up = self._on_stuck = _do_nothing
        self._on_quiet: Callable[[], object] = _do_nothing
        self.is_behind = False
        """Whether Aim has to read before more is sent."""

    def watch(
        self,
        patience: Patience,
        on_caught_up: Callable[[], None],
        on_stuck: Callable[[], None],
        on_quiet: Callable[[], object],
    ) -> None:
        """Keep the open connection alive, and end it once nothing arrives any more.

        `on_caught_up` is called whenever Aim is no longer behind, `on_stuck` once Aim has been behind without a message
        for longer than `patience` allows, and `on_quiet` when it is time for `keep_alive`.
        """
        if self.state is not State.OPEN:
            return  # it is lost already: `connection_lost` would not be called again
        self._patience = patience
        self._on_caught_up, self._on_stuck, self._on_quiet = on_caught_up, on_stuck, on_quiet
        self._tick(patience)

    async def keep_alive(self) -> None:
        """Send a ping, unless one has no pong yet.

        If Aim is behind, this returns only once it has caught up, or the connection is lost.
        """
        with suppress(ConnectionClosed, ConcurrencyError):
            await self.ping(b"")

    def heard_message(self) -> None:
        """Record that a message has arrived."""
        self._has_message = True

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        # A closed TLS transport has no size.
        return 0 if self._writing is None or self._writing.is_closing() else self._writing.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection without a closing handshake."""
        if self._writing is not None:
            self._writing.abort()

    def _tick(self, patience: Patience) -> None:
        """Look at whether anything has arrived in the last interval; else ping, or give up if that was often enough."""
        if self._has_heard:
            self._has_heard, self._pings = False, 0
        elif self._ticking is not None:
            if self._pings == patience.pings:
                self.abort()
                return
            self._pings += 1
            if self.state is State.OPEN:
                self._on_quiet()
        self._ticking = asyncio.get_running_loop().call_later(patience.ping_seconds, self._tick, patience)

    def _expect_reading(self, patience: Patience) -> None:
        self._has_message = False
        loop = asyncio.get_running_loop()
        self._reading = loop.call_later(patience.verdict_seconds, self._on_late, patience)

    def _on_late(self, patience: Patience) -> None:
        if self._has_message:
            self._expect_reading(patience)
        else:
            self._on_stuck()

    # -- what the event loop calls -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._writing = cast(asyncio.WriteTransport, transport)  # uvloop's transports are not a subclass of it

    def data_received(self, data: bytes) -> None:
        """Record that something has arrived."""
        self._has_heard = True
        super().data_received(data)

    def pause_writing(self) -> None:
        """Record that Aim is behind."""
        self.is_behind = True
        super().pause_writing()
        if self._patience is not None:
            self._expect_reading(self._patience)

    def resume_writing(self) -> None:
        """Record that Aim has caught up."""
        self.is_behind = False
        super().resume_writing()
        self._stop_reading_clock()
        self._on_caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self.is_behind = False
        super().connection_lost(exc)
        self._stop_reading_clock()
        if self._ticking is not None:
            self._ticking.cancel()
        self._patience = None
        self._on_caught_up = self._on_stuck = self._on_quiet = _do_nothing  # frees the session

    def _stop_reading_clock(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def _do_nothing() -> None:
    """Stand in for a callback."""
