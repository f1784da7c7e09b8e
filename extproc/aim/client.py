"""The client of one Aim: its lifetime, the exchanges that use it, detections over REST and sessions over websocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import TypeVarTuple

from extproc.aim import protocol
from extproc.aim.breaker import Breaker
from extproc.aim.connection import Patience
from extproc.aim.detector import Caller, Detector
from extproc.aim.names import Names
from extproc.aim.network import Network
from extproc.aim.session import Session
from extproc.aim.transport import ignore
from extproc.config.keys import Keys
from extproc.config.settings import Settings
from extproc.core.errors import DetectionError, DetectionUnavailable, Reason
from extproc.core.events import Event
from extproc.core.verdict import Outcome, Verdict
from extproc.core.vocabulary import Hook, Input
from extproc.telemetry.logs import log_internal_error

__all__ = ["AimClient", "Caller"]

_FRAME_BYTES = 1_048_576
"""A session frame may be this much longer than four times `limits.event_bytes`."""

_PING_SECONDS = 20.0
"""The interval of a session's pings. They detect a dead Aim and keep middleboxes from closing the connection."""

_Ts = TypeVarTuple("_Ts")


def _do_nothing() -> None:
    """Stand in for a callback that nobody needs."""


class AimClient:
    """A client of one Aim; an async context manager."""

    def __init__(
        self,
        settings: Settings,
        *,
        ping_seconds: float = _PING_SECONDS,
        keys: Keys | None = None,
        network: Network | None = None,
    ) -> None:
        """Create a client for the Aim in `settings`, without a connection yet.

        A session in which no frame arrives is pinged every `ping_seconds`. `keys` and `network` are those of
        `settings`; without them their files are read now. Raises SettingsError for a CA file or a proxy that cannot be
        used.
        """
        aim = settings.aim
        self._form: protocol.Form = aim.api
        self._session_url = protocol.endpoints(aim.api, aim.base).session
        self._timeout = aim.timeout_seconds
        self._keys = keys or Keys(settings)
        self._network = network or Network.of(aim)
        self._frame_bytes = 4 * settings.limits.event_bytes + _FRAME_BYTES
        # Text that waits for a verdict is limited as held bytes; chunks without text are limited only here.
        self._waiting_bytes = 4 * (settings.limits.held_bytes + settings.limits.event_bytes)
        self._patience = Patience(ping_seconds, aim.verdict_timeout_seconds)
        clock = asyncio.get_event_loop().time
        self.breaker = Breaker(aim.breaker.failures, aim.breaker.open_seconds, clock)
        self.session_breaker = Breaker(aim.breaker.failures, aim.breaker.open_seconds, clock)
        self._names = Names()
        self._transport = self._network.transport(self._names)
        self._tasks = asyncio.TaskGroup()
        # Not `self.start`: a retired client is to be freed, with its certificates, as soon as nobody refers to it.
        self._detector = Detector(aim, self._keys, self.breaker, self._transport, partial(_start, self._tasks))
        self._sessions: set[Session] = set()
        self._most_sessions = settings.limits.sessions
        self._users = 0
        self._is_retired = asyncio.Event()
        self._is_free = asyncio.Event()
        self._is_free.set()

    async def __aenter__(self) -> AimClient:
        """Start the task group, so that detections and sessions can begin."""
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every session and connection."""
        for session in tuple(self._sessions):
            session.close()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._transport.aclose()

    # -- users -------------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Count an exchange as a user of this client until `leave`."""
        self._users += 1
        self._is_free.clear()

    def leave(self) -> None:
        """Stop counting an exchange as a user."""
        self._users -= 1
        if not self._users:
            self._is_free.set()

    def retire(self) -> None:
        """Declare that no new exchange will use this client."""
        self._is_retired.set()

    async def unused(self) -> None:
        """Wait until the client is retired and has no users."""
        await self._is_retired.wait()
        await self._is_free.wait()

    # -- REST --------------------------------------------------------------------------------------------------------

    async def is_reachable(self) -> bool:
        """Return whether Aim's address answers within the deadline with a status below 500, without a detection."""
        self.enter()  # keeps the connections open if the client is retired meanwhile
        try:
            return await self._detector.is_reachable()
        finally:
            self.leave()

    def detect_all(
        self,
        hook: Hook,
        inputs: Sequence[Input],
        caller: Caller,
        on_sent: Callable[[int], None],
        on_held: Callable[[int], None] = ignore,
    ) -> Coroutine[None, None, tuple[Outcome, ...]]:
        """Return an outcome for each input, in order; if one is a block, only the outcomes reached until then.

        `on_sent` is called with the number of bytes of each body that is sent, and of each one that is sent again;
        `on_held` with those of large answers, while they are read, and with as many below zero once they are not held.
        """
        return self._detector.detect_all(hook, inputs, caller, on_sent, on_held)

    async def detect(self, hook: Hook, input_: Input, caller: Caller) -> Verdict:
        """Return the verdict of one detection, within the deadline.

        Raises DetectionError.
        """
        return await self._detector.detect(hook, input_, caller)

    # -- tasks and sessions ------------------------------------------------------------------------------------------

    def start(self, work: Callable[[*_Ts], Coroutine[None, None, None]], *arguments: *_Ts) -> asyncio.Task[None]:
        """Run `work` in a task that ends before this client closes."""
        return _start(self._tasks, work, *arguments)

    def open_session(
        self,
        number: int,
        caller: Caller,
        deliver: Callable[[Event], None],
        on_caught_up: Callable[[], None] = _do_nothing,
    ) -> Session:
        """Begin to open session `number` and return it.

        Its events go to `deliver`; `on_caught_up` is called whenever it is no longer behind.
        """
        session = Session(number, deliver, on_caught_up, self._waiting_bytes)
        if len(self._sessions) >= self._most_sessions:
            error = DetectionUnavailable(Reason.HELD_BYTES, "the limit of open sessions is reached")
            # Called later by the loop: this method must not call back the exchange that is calling it.
            asyncio.get_running_loop().call_soon(session.fail, error)
            return session
        self._sessions.add(session)
        task = session.start(self._tasks, self._run(session, caller))
        task.add_done_callback(lambda _: self._sessions.discard(session))
        return session

    async def _run(self, session: Session, caller: Caller) -> None:
        try:
            await self._carry(session, caller)
        except Exception as error:
            log_internal_error(error)
            session.fail(DetectionUnavailable(Reason.SESSION, "the session failed unexpectedly"), opened=True)

    async def _carry(self, session: Session, caller: Caller) -> None:
        try:
            key = self._keys.of(caller.profile)
            call = self.session_breaker.admit()
        except DetectionError as error:
            session.fail(error)
            return
        with call:
            await session.run(
                self._session_url,
                protocol.headers(self._form, key, Hook.OUTPUT, caller.call_id, caller.identity),
                network=self._network,
                names=self._names,
                timeout=self._timeout,
                frame_bytes=self._frame_bytes,
                patience=self._patience,
                call=call,
            )


def _start(
    tasks: asyncio.TaskGroup, work: Callable[[*_Ts], Coroutine[None, None, None]], *arguments: *_Ts
) -> asyncio.Task[None]:
    return tasks.create_task(_contained(work, *arguments))


async def _contained(work: Callable[[*_Ts], Coroutine[None, None, None]], *arguments: *_Ts) -> None:
    """Run `work` and log an unexpected error, so that it does not cancel the other tasks of the group."""
    try:
        await work(*arguments)
    except Exception as error:
        log_internal_error(error)
