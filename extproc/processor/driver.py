"""Drives one exchange: hands it events, performs its commands, and wakes it in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, get_args

from extproc.aim.client import AimClient, Caller
from extproc.core.commands import (
    Close,
    Command,
    Complete,
    Hold,
    PauseReading,
    Report,
    ReportGivenUp,
    ReportOutcome,
    Reset,
    ResumeReading,
    ToAim,
    ToEnvoy,
    UseProfile,
)
from extproc.core.dry_run import DryRun
from extproc.core.events import BodyReceived, Event, LoadChanged, RoomDemanded, StreamEnded, Woken
from extproc.core.exchange import Exchange
from extproc.processor.alarm import Alarm
from extproc.processor.effects import Effects
from extproc.processor.load import Load
from extproc.processor.outbox import Outbox
from extproc.processor.steps import HEAVY_BYTES, Steps
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.observation import Observation


class Driver:
    """One exchange and what the shell keeps for it.

    Every event, from Envoy, Aim or the clock, is handed to the exchange at once, and its commands are performed at
    once. Only messages for Envoy wait, in the outbox: the task that delivered the event writes them. A session and the
    clock must not wait, so a task of its own writes what follows from their events.

    A large document takes long to read, and all other exchanges would wait for it. So the exchange handles a heavy
    event in a thread, and the events that come meanwhile wait for it (`Steps`).
    """

    def __init__(
        self,
        exchange: Exchange | DryRun,
        observation: Observation,
        outbox: Outbox,
        load: Load,
        client: AimClient,
        caller: Caller,
        thread: Executor,
    ) -> None:
        """Drive `exchange` for the stream that `outbox` writes to, on behalf of `caller`; `thread` reads documents."""
        self._exchange = exchange
        self._steps = Steps(thread, exchange.handle, self._end_step)
        self._observation = observation
        self._load = load
        self._client = client
        self._loop = asyncio.get_running_loop()
        # Refers back to the driver, so it lives only until the exchange is closed.
        self._effects: Effects | None = Effects(
            client, caller, observation, self.take, self.take_and_write, self._recount
        )
        self.outbox = outbox
        self.on_change: Callable[[], None] = _do_nothing
        """Called after each event, after each message that Envoy took, and when Aim has caught up."""
        self.on_settled: Callable[[], None] = _do_nothing
        """Called once the stream has been left and the exchange is closed."""
        self.is_paused = False
        """Whether the exchange holds as much as it may."""
        self.is_complete = False
        """Whether the client has its whole answer, so that the stream may end."""
        self.is_closed = False
        """Whether the exchange handles no further event."""
        self.is_settled = False
        self._has_stream_ended = False
        self._has_left_stream = False
        self._is_overloaded = False
        self._exchange_bytes = self._yields = 0
        self._share = load.share(self._give_room, is_first=exchange.yields_room)
        self._alarm = Alarm(self._deadline, self._wake)
        client.enter()
        if load.is_overloaded:
            self._set_overloaded(self._loop.time(), is_overloaded=True)

    @property
    def is_behind(self) -> bool:
        """Return whether Aim must read before the exchange reads on. A dry run never waits for Aim."""
        return self._effects is not None and self._effects.is_behind and not self._exchange.yields_room

    # -- events ----------------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Handle an event; a new task writes what follows for Envoy."""
        self._take(event, self._loop.time())

    def _take(self, event: Event, now: float) -> None:
        self._handle(event, now)
        self._start_writing()

    def _start_writing(self) -> None:
        if self.outbox.is_due:
            self._client.start(self.write)

    async def take_and_write(self, event: Event) -> None:
        """Handle an event, and write what follows for Envoy; return once both are done."""
        self._handle(event, self._loop.time())
        if self._steps.is_under_way:
            await self._steps.settled()
        if self.outbox.is_due:
            await self.write()

    async def write(self) -> None:
        """Write what waits for Envoy."""
        try:
            await self.outbox.flush(self._count_again)
        finally:
            self._account()
            self.on_change()

    def _count_again(self) -> None:
        """Count what is held: Envoy has taken a message."""
        self._account()
        self.on_change()

    def end_stream(self) -> None:
        """Tell the exchange that Envoy has ended the stream, or that it broke."""
        if not self._has_stream_ended:
            self._has_stream_ended = True
            self._handle(StreamEnded(), self._loop.time())

    def leave_stream(self) -> None:
        """Write nothing any more, and settle the exchange. A dry run is settled once Aim has answered."""
        self.outbox.close()
        if self._steps.is_under_way and not self._exchange.yields_room:
            self._give_up()
        self.end_stream()
        self._has_left_stream = True
        if self.is_closed:
            self._settle()

    def _give_up(self) -> None:
        """Close an exchange of which the thread has a step that nobody waits for any more."""
        if not self.is_complete:
            self._report(ReportOutcome("aborted"))
        self._close()

    def abandon(self) -> None:
        """Give up a dry run whose stream has ended."""
        self._close()
        self._settle()

    def _handle(self, event: Event, now: float) -> None:
        """Let the exchange handle an event and perform its commands, all but those for Envoy.

        A heavy event is handled later, and so is what comes before the thread has handled it.
        """
        if self.is_closed:
            return
        if self._steps.is_busy:
            self._steps.wait(event)
            self._account()
        else:
            self._handle_next(event, now)

    def _handle_next(self, event: Event, now: float) -> None:
        try:
            if isinstance(event, BodyReceived):
                self._observation.arrived(event)
                is_full = self._load.is_full(self._share.held)
                if is_full is not self._is_overloaded:
                    self._set_overloaded(now, is_overloaded=is_full)
            weight = self._exchange.weight(event)
            if weight > HEAVY_BYTES:
                # What the exchange holds is read again. A compressed body adds what it may become.
                self._steps.begin(event, weight - self._exchange_bytes)
            else:
                self._perform(self._exchange.handle(event, now))
                self._give_way(now)
        except Exception as error:
            self._abort(error)
        finally:
            self._follow()

    def _end_step(self, found: list[Command] | Exception) -> None:
        """Perform what follows from a heavy event, and handle the events that waited for it."""
        try:
            if isinstance(found, Exception):
                raise found
            self._perform(found)
            self._give_way(self._loop.time())
        except Exception as error:
            self._abort(error)
        finally:
            self._steps.end()
            self._follow()
            while not self.is_closed and (event := self._steps.next()) is not None:
                self._handle_next(event, self._loop.time())
            self._start_writing()

    def _abort(self, error: Exception) -> None:
        """End the exchange because it or its shell is broken."""
        log_internal_error(error)
        self._report(ReportOutcome("aborted"))
        self.outbox.put(Reset("internal error"))
        self._close()

    def _follow(self) -> None:
        """Do what every event asks for: count, set the alarm, tell the stream, and settle a closed exchange."""
        self._account()
        if not self.is_closed:
            self._alarm.follow()
        self.on_change()
        if self.is_closed and self._has_left_stream:
            self._settle()
        self._load.make_room()

    def _give_room(self) -> None:
        try:
            if self._has_left_stream and self._steps.is_busy:
                self._report(ReportGivenUp())  # a dry run that nobody waits for
                self.abandon()
            else:
                self.take(RoomDemanded())
        except Exception as error:  # another exchange is being served
            log_internal_error(error)

    def _deadline(self) -> float | None:
        """Return when the exchange wants to be woken. While the thread has it, that is not known."""
        return None if self._steps.is_under_way else self._exchange.deadline

    def _wake(self, now: float) -> None:
        self._take(Woken(), now)

    def _give_way(self, now: float) -> None:
        """Make a dry run give up if it would take the room of others, or if nothing can be done for it any more."""
        if not self._exchange.yields_room:
            return
        self._account()
        is_overloaded = self._load.is_full(0) or self._effects is None
        if is_overloaded and not self._is_overloaded and not self.is_closed:
            self._set_overloaded(now, is_overloaded=True)

    def _set_overloaded(self, now: float, *, is_overloaded: bool) -> None:
        self._is_overloaded = is_overloaded
        self._perform(self._exchange.handle(LoadChanged(is_overloaded), now))

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            _ACTIONS[type(command)](self, command)

    def _hold(self, command: Hold) -> None:
        self._exchange_bytes = command.size
        self._yields = command.yields

    def _pause(self, _: PauseReading) -> None:
        self.is_paused = True

    def _resume(self, _: ResumeReading) -> None:
        self.is_paused = False

    def _complete(self, _: Complete) -> None:
        self.is_complete = True

    def _send(self, command: ToEnvoy) -> None:
        self.outbox.put(command)

    def _affect(self, command: ToAim) -> None:
        if self._effects is None:
            return
        try:
            self._effects.perform(command)
        except Exception as error:
            if not self._exchange.yields_room:
                raise
            log_internal_error(error)  # a dry run ends, and its exchange goes on
            self._end_effects()

    def _report(self, command: Report) -> None:
        try:
            self._observation.report(command)
        except Exception as error:  # telemetry must not touch the exchange
            log_internal_error(error)

    def _use_profile(self, command: UseProfile) -> None:
        if self._effects is not None:
            self._effects.use_profile(command.profile)
        self._observation.use_profile(command.profile)

    def _close(self, _: Close | None = None) -> None:
        """Stop what is under way: the exchange handles no further event."""
        self.is_closed = True
        self._steps.leave()
        self._end_effects()
        self._alarm.cancel()

    def _end_effects(self) -> None:
        effects, self._effects = self._effects, None
        if effects is not None:
            effects.end()

    # -- accounting and ends ---------------------------------------------------------------------------------------

    def _account(self) -> None:
        """Count what the exchange holds, what waits for Envoy, and what waits for Aim."""
        if not self.is_settled:
            waiting = self.outbox.unsent + self._steps.held + (self._effects.held if self._effects is not None else 0)
            self._share.hold(self._exchange_bytes + waiting, self._yields)

    def _recount(self) -> None:
        """Count again between events, because more or less waits for Aim."""
        self._account()
        self._load.make_room()
        self.on_change()

    def _settle(self) -> None:
        """Give everything back and write the exchange's record."""
        if self.is_settled:
            return
        self.is_settled = True
        on_settled = self.on_settled
        self.on_change = self.on_settled = _do_nothing  # they may refer to what refers to the driver
        self._share.leave()
        self._client.leave()
        try:
            self._observation.finished()
        finally:
            on_settled()


def _do_nothing() -> None:
    """Stand in for a callback that nobody needs."""


_ACTIONS: Mapping[type[Command], Callable[[Driver, Any], None]] = {
    **dict.fromkeys(get_args(ToEnvoy), Driver._send),
    **dict.fromkeys(get_args(ToAim), Driver._affect),
    **dict.fromkeys(get_args(Report), Driver._report),
    Hold: Driver._hold,
    PauseReading: Driver._pause,
    ResumeReading: Driver._resume,
    Complete: Driver._complete,
    Close: Driver._close,
    UseProfile: Driver._use_profile,
}
"""What to do for each kind of command: a match statement would try many types for each chunk."""
