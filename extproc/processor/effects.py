"""What an exchange has done for it on Aim's side and by the clock; what comes of it is delivered as events."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, assert_never

from extproc.aim.client import AimClient, Caller
from extproc.aim.session import Session
from extproc.core.commands import (
    Analyze,
    CancelAnalysis,
    ClearTimer,
    CloseSession,
    Errand,
    OpenSession,
    ReportChunks,
    ReportFailOpen,
    ReportVerdict,
    SetTimer,
    SubmitChunk,
    SubmitDone,
)
from extproc.core.errors import Reason
from extproc.core.events import Event, SessionDone, StreamBlocked, TimerFired, VerdictReached
from extproc.core.verdict import Failed, Outcome
from extproc.core.vocabulary import Timer
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Errands:
    """The analyses, the session and the clocks of one exchange."""

    def __init__(
        self,
        client: AimClient,
        caller: Caller,
        observation: Observation,
        deliver: Callable[[Event], None],
        see_through: Callable[[Event], Awaitable[None]],
    ) -> None:
        """Ask `client` on behalf of `caller`, and let `observation` know.

        What a clock or a session says goes to `deliver`; a verdict to `see_through`, which returns when all that
        follows from it is done.
        """
        self._client = client
        self._caller = caller
        self._observation = observation
        self._deliver = deliver
        self._see_through = see_through
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._session_number = 0
        self._analyses: dict[int, asyncio.Task[None]] = {}
        self._due: dict[Timer, float] = {}
        self._fired: dict[Timer, TimerFired] = {}
        self._alarm: asyncio.Handle | None = None
        self._alarm_due = 0.0

    @property
    def is_under_way(self) -> bool:
        """Tell whether anything will still come, by an answer or by the clock."""
        return bool(self._analyses or self._due or self._fired)

    def perform(self, command: Errand) -> None:
        """Do what `command` says."""
        match command:
            case SubmitChunk():
                if self._session is not None and command.session == self._session_number:
                    self._session.submit(command.chunk)
            case SetTimer():
                self._set_timer(command.timer, command.seconds)
            case ClearTimer():
                self._clear_timer(command.timer)
            case Analyze():
                self._analyses[command.analysis] = self._client.start(self._analyze, command)
            case CancelAnalysis():
                task = self._analyses.pop(command.analysis, None)
                if task is not None:
                    task.cancel()
            case OpenSession():
                self._close_session()
                self._session_number = command.session
                self._session = self._client.open_session(command.session, self._caller, self._on_session)
                self._observation.session_opened()
            case SubmitDone():
                if self._session is not None and command.session == self._session_number:
                    self._session.done()
            case CloseSession():
                if command.session == self._session_number:
                    self._close_session()
            case ReportVerdict() | ReportFailOpen() | ReportChunks():
                self._observation.report(command)
            case _:
                assert_never(command)

    def is_due(self, event: TimerFired) -> bool:
        """Tell whether the clock that fired was not set anew or stopped since; it is done with then."""
        if self._fired.get(event.timer) is not event:
            return False
        del self._fired[event.timer]
        return True

    def end(self) -> None:
        """Stop everything."""
        for task in self._analyses.values():
            task.cancel()
        self._analyses.clear()
        self._due.clear()
        self._fired.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        self._close_session()

    async def _analyze(self, command: Analyze) -> None:
        began = time.monotonic()
        try:
            outcomes: tuple[Outcome, ...] = await self._client.analyze(command.hook, command.inputs, self._caller)
        except Exception as error:
            log_internal_error(error)
            outcomes = (Failed(Reason.UNREADABLE_ANSWER),) * len(command.inputs)
        seconds = time.monotonic() - began
        self._analyses.pop(command.analysis, None)
        try:
            self._observation.analyzed(command.hook, began, outcomes)
        except Exception as error:  # the exchange waits for nothing else
            log_internal_error(error)
        await self._see_through(VerdictReached(command.analysis, outcomes, round(seconds * 1000)))

    def _on_session(self, event: Event) -> None:
        if isinstance(event, SessionDone | StreamBlocked):
            self._observation.session_judged(event.milliseconds)
        self._deliver(event)

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
            self._observation.session_closed()

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        self._fired.pop(timer, None)
        self._due[timer] = due = self._loop.time() + seconds
        self._arm(due)

    def _clear_timer(self, timer: Timer) -> None:
        self._fired.pop(timer, None)
        self._due.pop(timer, None)

    def _arm(self, due: float) -> None:
        """See that the loop wakes us by `due`.

        Clocks are set anew with every chunk and hardly ever run out: the one alarm stays, and looks at them when it
        rings.
        """
        if self._alarm is not None:
            if self._alarm_due <= due:
                return
            self._alarm.cancel()
        self._alarm_due = due  # not every loop's handles know theirs
        self._alarm = self._loop.call_at(due, self._ring, due)

    def _ring(self, now: float) -> None:
        self._alarm = None
        for timer, due in tuple(self._due.items()):
            if due <= now and self._due.get(timer) == due:  # what was delivered may have stopped it
                del self._due[timer]
                self._fired[timer] = event = TimerFired(timer)
                self._deliver(event)
        if self._due:
            self._arm(min(self._due.values()))
