"""One gRPC stream of Envoy: its messages become events, the commands of its exchange are performed.

Whatever happens, at Envoy's side or at Aim's, becomes an event, which the exchange is handed at once. What it says to
Aim is done at once too; what it says to Envoy goes through the outbox, written by whoever brought the event: the
stream's own task, which reads, or a question's. For a clock and a session, which must not wait, a task is made.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

import grpc
import structlog

from extproc.aim.client import Caller
from extproc.core.commands import Reset, ToEnvoy
from extproc.core.errors import ProtocolError
from extproc.core.events import BodyReceived, Event, HeadersReceived, TimerFired, TrailersReceived
from extproc.core.exchange import Exchange, misconfigured
from extproc.core.identity import NOBODY, Identity, first_value
from extproc.core.record import ExchangeRecord
from extproc.core.refusal import MISCONFIGURED
from extproc.core.vocabulary import BodyMode, Headers, Leg
from extproc.processor import wire
from extproc.processor.dry_run import Shadow, passing
from extproc.processor.effects import Errands
from extproc.processor.outbox import BROKEN, Outbox, broken
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.observation import Observation

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from extproc.processor.servicer import ExternalProcessor

_UNSENT_BYTES = 262_144
"""Bytes of bodies that wait for Envoy to take them before reading pauses."""

_FIRST_SECONDS = 10.0
"""How long a stream may be open without a message: Envoy opens it to send one, and it counts among limits.streams."""

_LAST_WORDS_SECONDS = 5.0
"""How long a closed exchange waits for Envoy to end the stream."""

_log = structlog.get_logger()


def _new_id() -> str:
    """Return a new UUID of version 4, by its digits: the standard library's object costs eight times as much."""
    digits = secrets.token_hex(16)
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Stream:
    """One exchange on its gRPC stream."""

    def __init__(self, service: ExternalProcessor, context: ServicerContext[bytes, bytes]) -> None:
        """Serve `context` for `service`."""
        self._service = service
        self._context = context
        self._telemetry = service.telemetry
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Task[object] | None = None  # the stream's own task, while it waits for a message
        self._room: asyncio.Future[None] | None = None  # what it waits for before it reads on
        self._is_left = False
        self._alarm: asyncio.TimerHandle | None = None
        self._exchange: Exchange | None = None
        self._observation: Observation | None = None
        self._outbox: Outbox | None = None
        self._errands: Errands | None = None  # only while the stream is served: they refer to it
        self._began = time.monotonic()
        self._held = 0
        # The snapshot of this exchange: new settings are for new exchanges.
        self._settings = service.settings
        self._client = service.client
        self._client.enter()

    async def run(self) -> Reset | None:
        """Serve the stream; return what it is to be aborted with, None once Envoy may see its end."""
        try:
            self._leave_in(_FIRST_SECONDS)
            first = await self._next()
            self._stay()
            if first is not None:
                return await self._serve(first)
            return Reset("no message in time") if self._is_left else None
        except ProtocolError as error:
            _log.error("protocol_error", problem=str(error))
            return Reset(str(error), misconfigured=True)
        except BROKEN as error:
            return self._broken(error)
        except Exception as error:
            log_internal_error(error)
            return Reset("internal error")

    def end(self) -> None:
        """Settle what the stream leaves behind, and write its record; nothing reads or writes any more."""
        self._is_left = True
        self._stay()
        if self._outbox is not None:
            self._outbox.close()
        self._client.leave()
        self._service.hold(-self._held)
        exchange, observation = self._exchange, self._observation
        if exchange is not None:
            if not exchange.is_complete:
                exchange.record.outcome = "aborted"
            exchange.forget()
        if observation is not None:
            observation.finished()

    async def _serve(self, first: bytes) -> Reset | None:
        service = self._service
        try:
            request = wire.parse(first)
            mode = wire.body_modes(request, assume_full_duplex=self._settings.assume_full_duplex)
        except ProtocolError:
            # No exchange, but one that a filter which does not guard has cost: counted under no profile.
            self._observation = self._observe(ExchangeRecord(_new_id(), "", outcome="aborted", code=MISCONFIGURED.code))
            raise
        event = wire.decode(request)
        headers = event if isinstance(event, HeadersReceived) else HeadersReceived(Leg.REQUEST, ())
        name, profile = service.profile_of(headers, self._context)
        if profile is None:
            _log.error("unknown_profile", profile=name, known=sorted(self._settings.profiles))
            record = ExchangeRecord(_new_id(), "", outcome="refused", code=MISCONFIGURED.code)
            self._observation = observation = self._observe(record)
            await Outbox(self._context, observation).send(misconfigured())
            self._leave_in(_LAST_WORDS_SECONDS)
            while await self._next() is not None:
                pass
            return None
        record = ExchangeRecord(_new_id(), name)
        exchange = Exchange(
            record,
            profile,
            self._settings.limits,
            verdict_timeout=self._settings.aim.verdict_timeout_seconds,
            request_mode=mode,
            is_overloaded=service.is_overloaded,
        )
        identity = Identity(
            first_value(profile.user_email, headers),
            first_value(profile.key_alias, headers),
            first_value(profile.session_id, headers),
        )
        caller = Caller(name, record.call_id, identity)
        observation = self._observe(record, headers.headers, identity, is_dry_run=not profile.enforce)
        if not profile.enforce:
            return await self._pass(event, exchange, mode, caller, observation)
        self._exchange, self._observation = exchange, observation
        return await self._guard(event, exchange, caller, observation)

    def _observe(
        self,
        record: ExchangeRecord,
        headers: Headers = (),
        identity: Identity = NOBODY,
        *,
        is_dry_run: bool = False,
    ) -> Observation:
        """Return the witness of the exchange; its spans join the trace that Envoy is in, else the client's."""
        telemetry = self._telemetry
        observation = Observation(telemetry, record, identity, began=self._began, is_dry_run=is_dry_run)
        if telemetry.tracing is not None:
            observation.trace = telemetry.tracing.begin(self._context.invocation_metadata(), headers)
        return observation

    async def _pass(
        self, event: Event | None, exchange: Exchange, mode: BodyMode, caller: Caller, observation: Observation
    ) -> Reset | None:
        """Let everything go on at once, and detect beside."""
        if isinstance(event, HeadersReceived):
            first = dict(reversed(event.headers))
            exchange.pick_dialect(first.get(":method", ""), first.get(":path", ""))
        outbox = Outbox(self._context, observation)
        shadow = Shadow(exchange, self._settings.limits, self._service.hold, self._service.is_full)
        self._service.watch(shadow, observation, caller, self._client)
        try:
            while True:
                if isinstance(event, HeadersReceived | BodyReceived | TrailersReceived):
                    shadow.observe(event)
                    await outbox.send(passing(event, exchange, mode))
                message = await self._next()
                if message is None:
                    return None
                event = wire.decode(wire.parse(message))
        finally:
            shadow.ended()

    async def _guard(
        self, event: Event | None, exchange: Exchange, caller: Caller, observation: Observation
    ) -> Reset | None:
        """Let nothing go on but what the exchange releases."""
        self._outbox = outbox = Outbox(self._context, observation)
        self._errands = errands = Errands(self._client, caller, observation, self._take, self._take_and_write)
        try:
            if event is not None:
                await self._take_and_write(event)
            await self._read(exchange)
        finally:
            errands.end()
            self._errands = None
        if not outbox.is_idle:
            try:
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await outbox.flush(self._account)  # what waits for a task that has not begun
                    await outbox.settled()
            except TimeoutError:
                return Reset("what was said last is not taken")
        if outbox.reset is not None:
            return outbox.reset
        # Envoy has ended the stream, or it broke. If it is not the end of the exchange, it must not look like one: a
        # clean end would be taken as leave to pass everything.
        return None if exchange.is_complete else Reset("the stream ended before the exchange")

    # -- what comes in -------------------------------------------------------------------------------------------

    async def _read(self, exchange: Exchange) -> None:
        """Take Envoy's messages, pausing while the exchange holds as much as it may, or Envoy takes nothing."""
        try:
            while (message := await self._next()) is not None:
                event = wire.decode(wire.parse(message))
                if event is None:
                    _log.debug("unknown_message", call_id=exchange.record.call_id)
                    continue
                await self._take_and_write(event)
                while not (self._is_left or self._has_room(exchange)):
                    self._room = self._loop.create_future()
                    await self._room
        except (ProtocolError, *BROKEN) as error:
            self._broken(error)
        except Exception as error:
            log_internal_error(error)

    async def _next(self) -> bytes | None:
        """Return Envoy's next message, None at the end of the stream and when it is to be left."""
        if self._is_left:
            return None
        self._reading = task = asyncio.current_task()
        try:
            message = await self._context.read()
        except asyncio.CancelledError:
            if self._is_left and task is not None and not task.uncancel():
                return None
            raise
        finally:
            self._reading = None
        return None if message is grpc.aio.EOF else message

    def _broken(self, error: Exception) -> Reset:
        return broken(self._exchange.record.call_id if self._exchange is not None else "", error)

    def _has_room(self, exchange: Exchange) -> bool:
        assert self._outbox is not None
        return not exchange.is_paused and self._outbox.unsent < _UNSENT_BYTES

    def _leave_in(self, seconds: float) -> None:
        """Leave the stream then, whatever Envoy does."""
        self._alarm = self._loop.call_later(seconds, self._leave)

    def _stay(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _leave(self) -> None:
        """Read no further message."""
        if not self._is_left:
            self._is_left = True
            self._stay()
            if self._reading is not None:
                self._reading.cancel()
            self._read_on()

    def _read_on(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # -- what is done about it -----------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        """Have an event decided about; what is for Envoy a task writes."""
        self._decide(event)
        if self._outbox is not None and self._outbox.is_due:
            self._client.start(self._write)

    async def _take_and_write(self, event: Event) -> None:
        """Have an event decided about and write what is for Envoy."""
        self._decide(event)
        if self._outbox is not None and self._outbox.is_due:
            await self._write()

    def _decide(self, event: Event) -> None:
        """Let the exchange decide about an event, and do what it says but for what is for Envoy."""
        exchange, errands, outbox, observation = self._exchange, self._errands, self._outbox, self._observation
        assert exchange is not None
        assert errands is not None
        assert outbox is not None
        assert observation is not None
        if exchange.is_closed or (isinstance(event, TimerFired) and not errands.is_due(event)):
            return
        try:
            if isinstance(event, BodyReceived):
                observation.arrived(event)
                exchange.is_overloaded = self._service.is_full(self._held)
            for command in exchange.handle(event):
                if isinstance(command, ToEnvoy):
                    outbox.put(command)
                else:
                    errands.perform(command)
        except Exception as error:
            outbox.put(Reset("internal error"))
            log_internal_error(error)
        finally:
            self._account()

    async def _write(self) -> None:
        """Write what waits for Envoy, and leave the stream if that failed."""
        outbox = self._outbox
        assert outbox is not None
        try:
            await outbox.flush(self._account)
        finally:
            if outbox.reset is not None:
                self._leave()

    def _account(self) -> None:
        """Tell how many bytes the stream holds, read on if that leaves room, and wait for the end if it is near."""
        exchange, outbox = self._exchange, self._outbox
        assert exchange is not None
        assert outbox is not None
        if self._errands is None:  # it has ended
            return
        held = exchange.held_bytes + outbox.unsent
        if held != self._held:
            self._service.hold(held - self._held)
            self._held = held
        if self._room is not None and self._has_room(exchange):
            self._read_on()
        if exchange.is_closed and not self._is_left:
            # From the last message that was taken on: Envoy has that long to end the stream.
            self._stay()
            self._leave_in(_LAST_WORDS_SECONDS)
