"""Performs an exchange's commands for Aim: detections and the session. Results come back as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import assert_never

from extproc.aim.client import AimClient, Caller
from extproc.aim.detector import CONCURRENT
from extproc.aim.session import Session
from extproc.core.commands import (
    CancelDetection,
    CloseSession,
    Detect,
    OpenSession,
    SubmitChunk,
    SubmitDone,
    ToAim,
)
from extproc.core.errors import Reason
from extproc.core.events import Event, SessionDone, StreamBlocked, VerdictReached
from extproc.core.verdict import Failed, Outcome
from extproc.core.vocabulary import Hook, size_of
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.observation import Observation

_DECISIONS = (SessionDone, StreamBlocked)


class Effects:
    """The detections and the session of one exchange."""

    def __init__(
        self,
        client: AimClient,
        caller: Caller,
        observation: Observation,
        deliver: Callable[[Event], None],
        deliver_verdict: Callable[[Event], Awaitable[None]],
        recount: Callable[[], None],
    ) -> None:
        """Use `client` on behalf of `caller`.

        Events of the session go to `deliver`. Verdicts go to `deliver_verdict`, which the detection's task awaits, so
        that this task also writes to Envoy what follows from the verdict. `recount` is called when `held` has changed
        or Aim has caught up, and no event follows.
        """
        self._client = client
        self._caller = caller
        self._observation = observation
        self._deliver = deliver
        self._deliver_verdict = deliver_verdict
        self._recount = recount
        self._answers = 0  # bytes of Aim's answers that are being read
        self._session: Session | None = None
        self._session_number = 0
        self._detections: dict[int, asyncio.Task[None]] = {}
        self._copies: dict[int, int] = {}  # bytes of the messages that concurrent calls of a detection repeat

    @property
    def held(self) -> int:
        """Bytes that wait for Aim and that the exchange does not count."""
        held = self._answers
        if self._copies:
            held += sum(self._copies.values())
        return held if self._session is None else held + self._session.waiting

    @property
    def is_behind(self) -> bool:
        """Return whether Aim reads the session's chunks more slowly than they are submitted."""
        return self._session is not None and self._session.is_behind

    def use_profile(self, profile: str) -> None:
        """Make later detections and sessions with the key of `profile`."""
        self._caller = replace(self._caller, profile=profile)

    def perform(self, command: ToAim) -> None:
        """Perform `command`."""
        match command:
            case SubmitChunk():
                if self._session is not None and command.session == self._session_number:
                    self._session.submit(command.chunk)
                    self._observation.submitted(command.chunk)
            case Detect():
                self._observation.detecting(len(command.inputs))
                self._detections[command.detection] = self._client.start(self._detect, command)
                calls = min(len(command.inputs), CONCURRENT)
                if calls > 1:
                    self._copies[command.detection] = (calls - 1) * size_of(command.inputs[0].messages)
            case CancelDetection():
                self._copies.pop(command.detection, None)
                task = self._detections.pop(command.detection, None)
                if task is not None:
                    task.cancel()
            case OpenSession():
                self._close_session()
                self._session_number = command.session
                self._session = self._client.open_session(
                    command.session, self._caller, self._on_session, self._recount
                )
                self._observation.session_opened()
            case SubmitDone():
                if self._session is not None and command.session == self._session_number:
                    self._session.done()
            case CloseSession():
                if command.session == self._session_number:
                    self._close_session()
            case _:
                assert_never(command)

    def end(self) -> None:
        """Stop everything."""
        for task in self._detections.values():
            task.cancel()
        self._detections.clear()
        self._copies.clear()
        self._close_session()

    async def _detect(self, command: Detect) -> None:
        began = time.monotonic()
        try:
            outcomes: tuple[Outcome, ...] = await self._client.detect_all(
                command.hook, command.inputs, self._caller, partial(self._on_sent, command.hook), self._on_held
            )
        except Exception as error:
            log_internal_error(error)
            outcomes = (Failed(Reason.UNREADABLE_ANSWER),) * len(command.inputs)
        seconds = time.monotonic() - began
        self._detections.pop(command.detection, None)
        self._copies.pop(command.detection, None)
        try:
            self._observation.detected(command.hook, began, outcomes)
        except Exception as error:  # telemetry must not keep the verdict from the exchange
            log_internal_error(error)
        await self._deliver_verdict(VerdictReached(command.detection, outcomes, round(seconds * 1000)))

    def _on_sent(self, hook: Hook, size: int) -> None:
        try:
            self._observation.sent(hook, size)
        except Exception as error:  # telemetry must not keep the call from Aim
            log_internal_error(error)

    def _on_held(self, more: int) -> None:
        self._answers += more
        self._recount()

    def _on_session(self, event: Event) -> None:
        if isinstance(event, _DECISIONS):
            self._observation.session_decided(event.milliseconds)
        self._deliver(event)

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
            self._observation.session_closed()
