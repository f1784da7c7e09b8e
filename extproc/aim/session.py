"""One session with Aim: a websocket over which Aim verifies one streamed answer.

Aim's frames become events, in order. The last event is `SessionDone`, `StreamBlocked` or `SessionFailed`, unless the
sidecar closed the session. The session does not time out when Aim is silent: only the exchange knows whether a frame
is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from extproc.aim import protocol
from extproc.aim.breaker import Call
from extproc.aim.connection import UNSENT_BYTES, Patience, Socket
from extproc.aim.names import Names
from extproc.aim.network import Network
from extproc.core.errors import DetectionError, DetectionRejected, DetectionTimeout, DetectionUnavailable, Reason
from extproc.core.events import ChunkVerified, Event, SessionDone, SessionFailed, StreamBlocked

_CLOSE_SECONDS = 2.0
"""Time limit of the closing handshake. The exchange does not wait for it."""

_QUEUED_FRAMES = 64
"""Unread frames that the library buffers before it stops reading from the socket."""

_EXTRA_FRAMES = 64
"""Aim may send one frame per chunk and this many more. The limit bounds memory while Envoy does not read."""


class _Connect(connect):
    """A connection that follows no redirect, so that Aim's key goes only to the address in the settings."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Session:
    """The sidecar's end of a session. `submit`, `done` and `close` never wait."""

    def __init__(
        self, number: int, deliver: Callable[[Event], None], on_caught_up: Callable[[], None], waiting_bytes: int
    ) -> None:
        """Create session `number`, whose events go to `deliver`.

        `on_caught_up` is called whenever Aim is no longer behind. The session fails if more than `waiting_bytes` wait
        to be sent.
        """
        self._number = number
        self._waiting_bytes = waiting_bytes
        self._unsent = 0
        self._deliver = deliver
        self._on_caught_up = on_caught_up
        self._socket: Socket | None = None
        self._outbox: list[str] = []
        self._allowance = _EXTRA_FRAMES
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._started: float | None = None
        self._loop = asyncio.get_running_loop()

    def submit(self, chunk: str) -> None:
        """Send a chunk as soon as the socket is open."""
        if self._started is None:
            self._started = self._loop.time()
        self._allowance += 1
        if self.waiting > self._waiting_bytes:
            # Called later by the loop: `submit` must not call back the exchange that is calling it.
            self._loop.call_soon(self.fail, DetectionRejected(Reason.SESSION, "Aim does not read"))
        elif self._socket is None:
            self._outbox.append(chunk)
            self._unsent += len(chunk)
        else:
            self._send(self._socket, chunk)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent to Aim."""
        return self._unsent if self._socket is None else self._socket.unsent

    @property
    def is_behind(self) -> bool:
        """Return whether so much waits to be sent that nothing more should be submitted for now."""
        return self._unsent > UNSENT_BYTES if self._socket is None else self._socket.is_behind

    def _send(self, socket: Socket, chunk: str) -> None:
        # The library's only public write that never waits: the transport sends the frame or buffers it. On a lost
        # connection it does nothing; `_receive` reports the loss.
        broadcast((socket,), chunk)

    def done(self) -> None:
        """Tell Aim that no more chunks follow."""
        self.submit(protocol.DONE)

    def close(self) -> None:
        """End the session and deliver no more events."""
        self._is_closing = True
        # This frees the exchange: a cancelled task keeps this session alive for a while.
        self._deliver, self._on_caught_up = _ignore, _do_nothing
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def start(self, group: asyncio.TaskGroup, running: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run the session as a task of `group`; `close` cancels it."""
        self._task = group.create_task(running)
        return self._task

    def fail(self, error: DetectionError, *, opened: bool = False) -> None:
        """Report that the session failed, and whether it was `opened` before that."""
        if not self._is_closing:
            self._deliver(SessionFailed(self._number, error.reason, opened))

    async def run(
        self,
        url: str,
        headers: list[tuple[str, str]],
        *,
        network: Network,
        names: Names,
        timeout: float,  # noqa: ASYNC109 - only for the opening
        frame_bytes: int,
        patience: Patience,
        call: Call,
        start: Callable[[Callable[[], Coroutine[None, None, None]]], object],
    ) -> None:
        """Open the websocket within `timeout` seconds and exchange frames until either side ends the session.

        `patience` bounds how long Aim may say nothing. `call` is told whether the websocket opened. `start` runs what
        keeps the connection alive, in tasks of their own, which end with the connection.
        """
        socket: Socket | None = None
        try:
            socket = await self._open(url, headers, network, names, timeout, frame_bytes)
            call.succeeded()
            self._socket = socket
            keep_alive = socket.keep_alive
            socket.watch(patience, self._catch_up, self._give_up, lambda: start(keep_alive))
            for chunk in self._outbox:
                self._send(socket, chunk)
            self._outbox.clear()
            if not self.is_behind:
                self._on_caught_up()
            await self._receive(socket)
        except DetectionError as error:
            call.failed(error)
            self.fail(error)
        except BaseException as error:
            if not (isinstance(error, asyncio.CancelledError) and self._is_closing):
                raise
        finally:
            if socket is not None:
                self._task = None  # a cancellation now would leave the socket open
                try:
                    with suppress(WebSocketException, OSError, TimeoutError):
                        async with asyncio.timeout(_CLOSE_SECONDS):
                            await socket.close()
                finally:
                    socket.abort()

    async def _open(
        self,
        url: str,
        headers: list[tuple[str, str]],
        network: Network,
        names: Names,
        seconds: float,
        frame_bytes: int,
    ) -> Socket:
        # The library encodes header values as latin-1. This makes them UTF-8, as over REST.
        fields = [(name, value.encode().decode("latin-1")) for name, value in headers]
        try:
            async with asyncio.timeout(seconds):
                *others, last = await network.routes(url, names)
                for route in others:
                    with suppress(OSError):
                        return await self._connect(url, fields, network, frame_bytes, route)
                return await self._connect(url, fields, network, frame_bytes, last)
        except TimeoutError as error:
            raise DetectionTimeout("Aim's session did not open in time") from error
        except InvalidStatus as error:
            raise protocol.session_refused(error.response.status_code) from _bare(error)
        except (WebSocketException, OSError, EOFError) as error:
            raise DetectionUnavailable(Reason.UNREACHABLE, "Aim's session could not be opened") from _bare(error)

    async def _connect(
        self, url: str, fields: list[tuple[str, str]], network: Network, frame_bytes: int, route: dict[str, Any]
    ) -> Socket:
        socket = await _Connect(
            url,
            create_connection=Socket,
            additional_headers=fields,
            user_agent_header=None,
            compression=None,  # costs CPU and memory for each stream, and saves little
            ssl=network.tls_for(url),
            open_timeout=None,
            close_timeout=_CLOSE_SECONDS,
            ping_interval=None,  # the socket's own pings do not depend on a pong in time
            max_size=frame_bytes,
            max_queue=_QUEUED_FRAMES,
            write_limit=UNSENT_BYTES,
            **route,
        )
        assert isinstance(socket, Socket)
        return socket

    def _catch_up(self) -> None:
        self._on_caught_up()

    def _give_up(self) -> None:
        self.fail(DetectionTimeout("Aim does not read"), opened=True)

    async def _receive(self, socket: Socket) -> None:
        try:
            while True:
                data = await socket.recv()
                socket.heard_message()
                if self._is_closing:
                    return
                self._allowance -= 1
                if self._allowance < 0:
                    raise DetectionRejected(Reason.SESSION, "Aim sent too many frames")
                event = self._read(data)
                self._deliver(event)
                if self._is_closing or not isinstance(event, ChunkVerified):
                    return
        except ConnectionClosed:
            reason = Reason.SESSION  # also for a clean close, because `done` is missing
        except DetectionError as error:
            reason = error.reason
        if not self._is_closing:
            self._deliver(SessionFailed(self._number, reason))

    def _read(self, data: str | bytes) -> Event:
        match protocol.frame(data):
            case protocol.Verified(texts, chunk):
                return ChunkVerified(self._number, texts, chunk)
            case protocol.Blocked(message):
                return StreamBlocked(self._number, message, self._elapsed())
            case protocol.Done():
                return SessionDone(self._number, self._elapsed())

    def _elapsed(self) -> int:
        return 0 if self._started is None else round((self._loop.time() - self._started) * 1000)


def _bare(error: Exception) -> Exception:
    """Return `error` without its traceback: websockets keeps it, and with it the objects in its frames."""
    return error.with_traceback(None)


def _ignore(_: Event) -> None:
    """Drop an event."""


def _do_nothing() -> None:
    """Stand in for a callback."""
