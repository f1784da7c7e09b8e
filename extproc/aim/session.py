"""One session with Aim: a websocket over which Aim verifies one streamed answer.

Aim's frames become events, in order. The last event is `SessionDone`, `StreamBlocked` or `SessionFailed`, unless the
sidecar closed the session. The session does not time out when Aim is silent: only the exchange knows whether a frame
is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from extproc.aim import protocol
from extproc.aim.breaker import Call
from extproc.aim.connection import UNSENT_BYTES, Patience, Socket
from extproc.aim.names import Names
from extproc.aim.network import Network
from extproc.aim.opening import Opening, open_websocket
from extproc.core.errors import DetectionError, DetectionRejected, Reason
from extproc.core.events import ChunkVerified, Event, SessionDone, SessionFailed, StreamBlocked

_EXTRA_FRAMES = 64
"""Aim may send one frame per chunk and this many more. The limit bounds memory while Envoy does not read."""


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
        self._task: asyncio.Task[None] | None = None
        self._started: float | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()

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
            self._socket.send(chunk)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent to Aim."""
        return self._unsent if self._socket is None else self._socket.unsent

    @property
    def is_behind(self) -> bool:
        """Return whether so much waits to be sent that nothing more should be submitted for now."""
        return self._unsent > UNSENT_BYTES if self._socket is None else self._socket.is_behind

    def done(self) -> None:
        """Tell Aim that no more chunks follow."""
        self.submit(protocol.DONE)

    def close(self) -> None:
        """End the session and deliver no more events."""
        # This frees the exchange: the closing handshake keeps this session alive for a while.
        self._deliver, self._on_caught_up = _ignore, _do_nothing
        if not self._ended.done():
            self._ended.set_result(None)
        if self._socket is None and self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None  # it keeps the error of its cancellation, and through that this session

    def start(self, group: asyncio.TaskGroup, running: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run the session as a task of `group`, which `close` ends."""
        self._task = group.create_task(running)
        return self._task

    def fail(self, error: DetectionError, *, opened: bool = False) -> None:
        """Report that the session failed, and whether it was `opened` before that."""
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
    ) -> None:
        """Open the websocket within `timeout` seconds and exchange frames until either side ends the session.

        `patience` bounds how long Aim may say nothing. `call` is told whether the websocket opened.
        """
        try:
            opening = await open_websocket(
                url, headers, network=network, names=names, seconds=timeout, frame_bytes=frame_bytes
            )
        except DetectionError as error:
            call.failed(error)
            self.fail(error)
            return
        except asyncio.CancelledError:
            if not self._ended.done():
                raise
            return
        call.succeeded()
        await self._carry(opening, patience)

    async def _carry(self, opening: Opening, patience: Patience) -> None:
        socket = Socket(
            opening.frames,
            patience,
            on_message=self._receive,
            on_caught_up=self._catch_up,
            on_failure=self._end_with,
        )
        try:
            opening.hand_over(socket)
            for chunk in self._outbox:
                socket.send(chunk)
            self._outbox.clear()
            self._socket = socket
            if not self.is_behind:
                self._on_caught_up()
            await self._ended
        finally:
            await socket.close()

    def _catch_up(self) -> None:
        self._on_caught_up()

    def _receive(self, message: bytes) -> None:
        if self._ended.done():
            return
        try:
            self._allowance -= 1
            if self._allowance < 0:
                raise DetectionRejected(Reason.SESSION, "Aim sent too many frames")
            event = self._read(message)
            if not isinstance(event, ChunkVerified):
                self._ended.set_result(None)
            self._deliver(event)
        except DetectionError as error:
            self._end_with(error)
        except Exception as error:
            if not self._ended.done():
                self._ended.set_exception(error)  # `run` raises it

    def _end_with(self, error: DetectionError) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
            self.fail(error, opened=True)

    def _read(self, data: bytes) -> Event:
        match protocol.frame(data):
            case protocol.Verified(texts, chunk):
                return ChunkVerified(self._number, texts, chunk)
            case protocol.Blocked(message):
                return StreamBlocked(self._number, message, self._elapsed())
            case protocol.Done():
                return SessionDone(self._number, self._elapsed())

    def _elapsed(self) -> int:
        return 0 if self._started is None else round((self._loop.time() - self._started) * 1000)


def _ignore(_: Event) -> None:
    """Drop an event."""


def _do_nothing() -> None:
    """Stand in for a callback."""
