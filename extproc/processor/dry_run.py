"""The dry run: an exchange passes at once and unchanged, and a shadow of it is detected beside.

The shadow is an exchange like any other, fed with what Envoy sends; what it would release, refuse or reset goes
nowhere, what it asks Aim and reports is real. It may live longer than the exchange that it watches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import assert_never

import structlog

from extproc.config.settings import Limits
from extproc.core.commands import ReleaseBody, ReleaseBuffered, ReleaseHeaders, ReleaseTrailers, ToEnvoy
from extproc.core.content.body import declared_length
from extproc.core.events import BodyReceived, Event, HeadersReceived, TimerFired, TrailersReceived
from extproc.core.exchange import Exchange
from extproc.core.identity import own_headers
from extproc.core.record import CALL_ID_HEADER
from extproc.core.vocabulary import BodyMode, Leg
from extproc.processor.effects import Errands

EnvoyEvent = HeadersReceived | BodyReceived | TrailersReceived

_EVENT_BYTES = 256
"""What an event that waits costs beside its bytes."""

_log = structlog.get_logger()


def _cost(event: EnvoyEvent) -> int:
    """Return what an event that waits costs, in bytes."""
    return _EVENT_BYTES + (len(event.data) if isinstance(event, BodyReceived) else 0)


def passing(event: EnvoyEvent, exchange: Exchange, mode: BodyMode) -> ToEnvoy:
    """Return the command that lets what Envoy sent go on as it came."""
    match event:
        case HeadersReceived(leg=Leg.REQUEST):
            length = next((value for name, value in event.headers if name == "content-length"), "")
            is_long = declared_length(length) > exchange.limits.request_bytes
            # What is not read need not come here, and must not meet Envoy's buffer limit.
            skips_body = mode is BodyMode.BUFFERED and not event.end_of_stream
            return ReleaseHeaders(
                Leg.REQUEST,
                remove=own_headers(event.headers),
                replace_body=skips_body and (is_long or not exchange.is_inspected),
            )
        case HeadersReceived():
            named = ((CALL_ID_HEADER, exchange.record.call_id),) if exchange.is_inspected else ()
            return ReleaseHeaders(Leg.RESPONSE, set=named)
        case BodyReceived():
            if event.leg is Leg.REQUEST and mode is BodyMode.BUFFERED:
                return ReleaseBuffered(Leg.REQUEST)
            return ReleaseBody(event.leg, event.data, event.end_of_stream)
        case TrailersReceived():
            return ReleaseTrailers(event.leg)
        case _:
            assert_never(event)


class Shadow:
    """The exchange that would have been."""

    def __init__(
        self, exchange: Exchange, limits: Limits, account: Callable[[int], None], is_full: Callable[[int], bool]
    ) -> None:
        """Watch with `exchange`; give up where it would hold more than both bodies may have, or than there is room for.

        `account` is told by how many bytes the hold grows or shrinks, `is_full` tells whether others than who holds so
        many bytes leave no room.
        """
        self._exchange = exchange
        self._account = account
        self._is_full = is_full
        self._accounted = 0
        self._inbox: asyncio.Queue[Event | None] = asyncio.Queue()
        self._later: deque[EnvoyEvent] = deque()
        self._limit = limits.request_bytes + limits.response_bytes
        self._queued = 0
        self._has_given_up = False
        self._is_over = False

    def deliver(self, event: Event) -> None:
        """Take what happened at Aim's side."""
        self._inbox.put_nowait(event)

    async def take(self, event: Event) -> None:
        """Take what came of a question."""
        self._inbox.put_nowait(event)

    def observe(self, event: EnvoyEvent) -> None:
        """Take what Envoy sent."""
        if self._is_over or self._has_given_up:
            return
        self._queued += _cost(event)
        self._settle()
        if self._accounted > self._limit or self._is_full(0):
            self._has_given_up = True
            self._inbox.put_nowait(None)
        else:
            self._inbox.put_nowait(event)

    def _settle(self) -> None:
        held = self._queued + self._exchange.held_bytes
        self._account(held - self._accounted)
        self._accounted = held

    def ended(self) -> None:
        """Take that Envoy has ended the exchange."""
        self._inbox.put_nowait(None)

    async def run(self, errands: Errands) -> None:
        """Detect until there is nothing more to come."""
        try:
            await self._detect(errands)
        finally:
            self._is_over = True
            self._account(-self._accounted)
            self._exchange.forget()
        record = self._exchange.record
        if record.outcome != "unmatched":
            record.code, record.outcome = record.outcome, "dry_run"

    async def _detect(self, errands: Errands) -> None:
        exchange = self._exchange
        has_ended = False
        while not (exchange.is_complete or (has_ended and not errands.is_under_way and self._inbox.empty())):
            event = await self._inbox.get()
            if event is None:
                has_ended = True
                if self._has_given_up:
                    _log.warning("dry_run_given_up", call_id=exchange.record.call_id)
                    break
            elif isinstance(event, TimerFired) and not errands.is_due(event):
                continue
            elif isinstance(event, EnvoyEvent) and event.leg is Leg.RESPONSE:
                # The request went on before its verdict: for the shadow the response comes after it.
                self._later.append(event)
            else:
                self._handle(event, errands)
            while self._later and not exchange.request.is_unreleased:
                self._handle(self._later.popleft(), errands)

    def _handle(self, event: Event, errands: Errands) -> None:
        if isinstance(event, EnvoyEvent):
            self._queued -= _cost(event)
        for command in self._exchange.handle(event):
            if not isinstance(command, ToEnvoy):
                errands.perform(command)
        self._settle()
