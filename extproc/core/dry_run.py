"""The dry run: the exchange passes at once and unchanged, while a shadow exchange performs the detections.

The shadow is a usual `Exchange`. Its releases, refusals and resets are discarded; its detections and its reports are
real. It may outlive Envoy's stream: the dry run closes once the shadow is complete.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from enum import StrEnum
from typing import assert_never

from extproc.core.commands import (
    CancelDetection,
    Close,
    CloseSession,
    Command,
    Complete,
    Hold,
    ImmediateResponse,
    PauseReading,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    ReportChunks,
    ReportGivenUp,
    Reset,
    ResumeReading,
    ToEnvoy,
)
from extproc.core.events import (
    BodyReceived,
    Event,
    FromEnvoy,
    HeadersReceived,
    LoadChanged,
    RoomDemanded,
    StreamEnded,
    TrailersReceived,
    VerdictReached,
)
from extproc.core.exchange import Exchange
from extproc.core.identity import own_headers
from extproc.core.policy import Limits, Policy
from extproc.core.signature import signature_of
from extproc.core.vocabulary import BodyMode, Headers, Leg

_EVENT_BYTES = 256
"""The memory that a waiting event takes in addition to its bytes."""


class DryRunState(StrEnum):
    """The states of a dry run."""

    WATCHING = "watching"
    """Envoy's messages pass, and the shadow handles them too"""
    PASSING = "passing"
    """Envoy's messages pass; the shadow has ended"""
    OUTLIVING = "outliving"
    """Envoy's stream has ended; the shadow still waits for Aim"""
    CLOSED = "closed"


class DryRun:
    """An exchange that only observes. It has the interface of `Exchange`."""

    yields_room = True

    __slots__ = ("_has_begun", "_held", "_later", "_limits", "_mode", "_queued", "_shadow", "_shadow_held", "_state")

    def __init__(
        self,
        call_id: str,
        policy: Policy,
        limits: Limits,
        *,
        request_mode: BodyMode = BodyMode.BUFFERED,
        began: int = 0,
    ) -> None:
        """Begin a dry run of `policy`."""
        # A ping would only be for a client, and the shadow has none.
        policy = dataclasses.replace(policy, stream_ping_seconds=0)
        self._shadow = Exchange(call_id, policy, limits, request_mode=request_mode, began=began)
        self._limits = limits
        self._mode = request_mode
        self._state = DryRunState.WATCHING
        self._has_begun = False
        self._later: deque[FromEnvoy] = deque()
        self._queued = 0
        self._shadow_held = 0
        self._held = 0

    @property
    def deadline(self) -> float | None:
        """The time at which the shadow wants to be woken; None if it does not, or has ended."""
        return self._shadow.deadline if self._state in _DETECTING else None

    def weight(self, event: Event) -> int:
        """Return about how many bytes are read to handle `event`, as an exchange does."""
        return self._shadow.weight(event) + (self._queued if isinstance(event, VerdictReached) else 0)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Handle `event`; return the commands that follow from it, in order."""
        if self._state is DryRunState.CLOSED:
            return []
        commands: list[Command] = []
        try:
            self._show(event, now, commands)
        except Exception as error:  # an error of the shadow must not affect the exchange
            self._give_up(now, commands, error)
        if not self._has_begun and not isinstance(event, LoadChanged | RoomDemanded):
            self._has_begun = True
            commands.insert(0, Complete())  # everything passes, so an early end of the stream is not an error
        if isinstance(event, _FROM_ENVOY):
            commands.append(self._passing(event))
        self._account(commands)
        return commands

    def _show(self, event: Event, now: float, commands: list[Command]) -> None:
        """Pass `event` on to the shadow."""
        match event:
            case LoadChanged():
                if not self._has_begun:
                    self._feed(event, now, commands)  # the shadow is refused, as a guarded exchange would be
                elif event.is_overloaded and self._state in _DETECTING:
                    self._give_up(now, commands)
            case RoomDemanded():
                if self._state in _DETECTING:
                    self._give_up(now, commands)
            case StreamEnded():
                self._end(now, commands)
            case HeadersReceived() | BodyReceived() | TrailersReceived():
                if self._state is DryRunState.WATCHING:
                    self._watch(event, now, commands)
            case _:
                if self._state is not DryRunState.PASSING:
                    self._feed(event, now, commands)
                    self._catch_up(now, commands)
        if self._state is DryRunState.OUTLIVING and self._is_over:
            self._close(now, commands)

    def _watch(self, event: FromEnvoy, now: float, commands: list[Command]) -> None:
        if event.leg is Leg.RESPONSE and self._shadow.is_request_unreleased:
            # The request passed without waiting for its verdict. The shadow gets the response after the verdict.
            self._later.append(event)
            self._queued += _cost(event)
        else:
            self._feed(event, now, commands)
            self._catch_up(now, commands)
        if self._queued + self._shadow.held_bodies > self._limits.request_bytes + self._limits.response_bytes:
            self._give_up(now, commands)

    def _catch_up(self, now: float, commands: list[Command]) -> None:
        """Give the shadow the part of the response that waited for the request's verdict."""
        while self._later and not self._shadow.is_request_unreleased:
            event = self._later.popleft()
            self._queued -= _cost(event)
            self._feed(event, now, commands)

    def _feed(self, event: Event, now: float, commands: list[Command]) -> None:
        """Let the shadow handle an event; keep those of its commands that do not affect the real exchange."""
        for command in self._shadow.handle(event, now):
            if isinstance(command, Hold):
                self._shadow_held = command.size
            elif not isinstance(command, _OF_THE_SHADOW):
                commands.append(command)

    @property
    def _is_over(self) -> bool:
        # A response that waits for its request can only continue after a verdict.
        return self._shadow.is_complete or not self._shadow.is_waiting

    def _end(self, now: float, commands: list[Command]) -> None:
        if self._state is DryRunState.WATCHING:
            self._state = DryRunState.OUTLIVING
        else:
            self._close(now, commands)

    def _give_up(self, now: float, commands: list[Command], error: Exception | None = None) -> None:
        """End the shadow because it holds too much or has failed."""
        commands.append(ReportGivenUp(error))
        self._leave_shadow(now, commands, is_broken=error is not None)
        if self._state is DryRunState.WATCHING:
            self._state = DryRunState.PASSING
        else:
            self._state = DryRunState.CLOSED
            commands.append(Close())

    def _close(self, now: float, commands: list[Command]) -> None:
        if self._state is not DryRunState.PASSING:
            self._leave_shadow(now, commands, is_broken=False)
        self._state = DryRunState.CLOSED
        commands.append(Close())

    def _leave_shadow(self, now: float, commands: list[Command], *, is_broken: bool) -> None:
        """Stop the shadow's detections and session. Those of a broken shadow are stopped by the shell at `Close`."""
        self._later.clear()
        self._queued = self._shadow_held = 0
        if not is_broken:
            commands += [each for each in self._shadow.handle(StreamEnded(), now) if isinstance(each, _LAST_WORDS)]

    def _account(self, commands: list[Command]) -> None:
        held = self._queued + self._shadow_held
        if held != self._held:
            self._held = held
            commands.append(Hold(held, yields=held))

    def _passing(self, event: FromEnvoy) -> ToEnvoy:
        """Return the command that releases Envoy's message unchanged."""
        match event:
            case HeadersReceived(leg=Leg.REQUEST):
                # A body that is not read need not come to the sidecar, and must not meet Envoy's buffer limit.
                is_buffered = self._mode is BodyMode.BUFFERED and not event.end_of_stream
                return ReleaseHeaders(
                    Leg.REQUEST,
                    remove=_removable(event.headers),
                    replace_body=is_buffered and not self._shadow.is_request_unreleased,
                )
            case HeadersReceived():
                return self._shadow.response_headers()
            case BodyReceived():
                if event.leg is Leg.REQUEST and self._mode is BodyMode.BUFFERED:
                    return ReleaseBuffered(Leg.REQUEST)
                return ReleaseBody(event.leg, event.data, event.end_of_stream)
            case TrailersReceived():
                return ReleaseTrailers(event.leg)
            case _:
                assert_never(event)


def _removable(headers: Headers) -> tuple[str, ...]:
    """Return the names of the headers that the upstream must not see, and that it does not need for a signature."""
    own = own_headers(headers)
    signature = signature_of(headers) if own else None
    return tuple(name for name in own if signature is None or name not in signature.headers)


def _cost(event: FromEnvoy) -> int:
    """Return how much memory a waiting event takes, in bytes."""
    return _EVENT_BYTES + (len(event.data) if isinstance(event, BodyReceived) else 0)


_LAST_WORDS = (CancelDetection, CloseSession, ReportChunks)
_DETECTING = (DryRunState.WATCHING, DryRunState.OUTLIVING)
_FROM_ENVOY = (HeadersReceived, BodyReceived, TrailersReceived)
_OF_THE_SHADOW = (
    ReleaseHeaders,
    ReleaseBuffered,
    ReleaseBody,
    ReleaseTrailers,
    ImmediateResponse,
    Reset,
    PauseReading,
    ResumeReading,
    Complete,
    Close,
)
