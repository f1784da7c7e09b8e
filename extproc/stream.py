"""One gRPC stream of Envoy: its messages become events, the commands of its exchange are performed.

One outbox, one writer: whatever happens, at Envoy's side or at Aim's, becomes an event, which the exchange is handed at
once. What it says to Aim is done at once; what it says to Envoy goes through the outbox, in order.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

import grpc
import structlog

from extproc import wire
from extproc.aim.client import Caller
from extproc.dry_run import Shadow, passing
from extproc.errands import Errands
from extproc.errors import ProtocolError
from extproc.events import (
    BodyMode,
    BodyReceived,
    Event,
    Headers,
    HeadersReceived,
    Leg,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    Reply,
    Reset,
    TimerFired,
    ToEnvoy,
    TrailersReceived,
)
from extproc.exchange import Exchange, misconfigured
from extproc.identity import NOBODY, Identity, first_value
from extproc.observation import Observation
from extproc.record import ExchangeRecord
from extproc.refusal import MISCONFIGURED
from extproc.telemetry import log_internal_error

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from extproc.servicer import ExternalProcessor

_UNSENT_BYTES = 262_144
"""Bytes of bodies that wait for Envoy to take them before reading pauses."""

_FIRST_SECONDS = 10.0
"""How long a stream may be open without a message: Envoy opens it to send one, and it counts among limits.streams."""

_LAST_WORDS_SECONDS = 5.0
"""How long a closed exchange waits for Envoy to end the stream."""

_BROKEN = (grpc.aio.BaseError, asyncio.InvalidStateError)
"""What reading and writing raise when Envoy is gone."""

_TOLD = -1.0
"""In place of a time: the wait of this leg has been counted."""

_log = structlog.get_logger()


def _new_id() -> str:
    return str(uuid.uuid4())


class Stream:
    """One exchange on its gRPC stream."""

    def __init__(self, service: ExternalProcessor, context: ServicerContext[bytes, bytes]) -> None:
        """Serve `context` for `service`."""
        self._service = service
        self._context = context
        self._telemetry = service.telemetry
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[ToEnvoy] = deque()
        self._unsent = 0
        self._wake: asyncio.Future[None] | None = None  # what the writer waits for
        self._room: asyncio.Future[None] | None = None  # what the reader waits for
        self._is_over = False
        self._is_writing = False
        self._reset: Reset | None = None
        self._call_id = ""
        self._exchange: Exchange | None = None
        self._errands: Errands | None = None
        self._observation: Observation | None = None
        self._began = time.monotonic()
        self._waiting_since: dict[Leg, float] = {}
        self._told_version = 0
        self._held = 0
        # The snapshot of this exchange: new settings are for new exchanges.
        self._settings = service.settings
        self._client = service.client
        self._client.enter()

    async def run(self) -> Reset | None:
        """Serve the stream; return what it is to be aborted with, None once Envoy may see its end."""
        try:
            try:
                async with asyncio.timeout(_FIRST_SECONDS):
                    first = await self._context.read()
            except TimeoutError:
                return Reset("no message in time")
            if first is grpc.aio.EOF:
                return None
            return await self._serve(first)
        except ProtocolError as error:
            _log.error("protocol_error", problem=str(error))
            return Reset(str(error), misconfigured=True)
        except _BROKEN as error:
            return self._broken(error)
        except Exception as error:  # a group of what its tasks raised, too
            log_internal_error(error)
            return Reset("internal error")

    def end(self) -> None:
        """Settle what the stream leaves behind, and write its record; its tasks have ended."""
        self._client.leave()
        self._service.hold(-self._held)
        exchange, observation = self._exchange, self._observation
        if exchange is not None and not exchange.is_complete:
            exchange.record.outcome = "aborted"
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
            self._observation = self._observe(ExchangeRecord(_new_id(), "", outcome="refused", code=MISCONFIGURED.code))
            await self._send(misconfigured())
            await self._drain_envoy()
            return None
        record = ExchangeRecord(_new_id(), name)
        self._call_id = record.call_id
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
        async with asyncio.TaskGroup() as group:
            self._errands = errands = Errands(
                self._client, caller, observation, group, self._take, self._take_and_write
            )
            if event is not None:
                self._take(event)
            reader = group.create_task(self._read(exchange))
            try:
                return await self._write(exchange)
            finally:
                reader.cancel()
                errands.end()

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

    def _take(self, event: Event) -> None:
        """Have an event decided about; what is for Envoy waits for the writer."""
        self._decide(event)
        if self._outbox and not self._is_writing:
            self._wake_writer()

    async def _take_and_write(self, event: Event) -> None:
        """Have an event decided about and write what is for Envoy, which costs a wake-up less."""
        self._decide(event)
        await self._flush()

    def _decide(self, event: Event) -> None:
        """Let the exchange decide about an event, and do what it says but for what is for Envoy."""
        exchange, errands, outbox = self._exchange, self._errands, self._outbox
        assert exchange is not None
        assert errands is not None
        if exchange.is_closed or (isinstance(event, TimerFired) and not errands.is_due(event)):
            return
        try:
            if isinstance(event, BodyReceived):
                self._note_arrival(event)
                exchange.is_overloaded = self._service.is_full(self._held)
            for command in exchange.handle(event):
                if isinstance(command, ToEnvoy):
                    outbox.append(command)
                    if isinstance(command, ReleaseBody):
                        self._unsent += len(command.data)
                else:
                    errands.perform(command)
        except Exception as error:
            outbox.append(Reset("internal error"))
            log_internal_error(error)
        finally:
            self._account(exchange)

    async def _pass(
        self, event: Event | None, exchange: Exchange, mode: BodyMode, caller: Caller, observation: Observation
    ) -> Reset | None:
        """Let everything go on at once, and detect beside."""
        if isinstance(event, HeadersReceived):
            first = dict(reversed(event.headers))
            exchange.pick_dialect(first.get(":method", ""), first.get(":path", ""))
        shadow = Shadow(exchange, self._settings.limits, self._service.hold, self._service.is_full)
        self._service.watch(shadow, observation, caller, self._client)
        try:
            while True:
                if isinstance(event, HeadersReceived | BodyReceived | TrailersReceived):
                    shadow.observe(event)
                    await self._send(passing(event, exchange, mode), exchange.record)
                message = await self._context.read()
                if message is grpc.aio.EOF:
                    return None
                event = wire.decode(wire.parse(message))
        finally:
            shadow.ended()

    # -- what comes in -------------------------------------------------------------------------------------------

    async def _read(self, exchange: Exchange) -> None:
        """Take Envoy's messages, pausing while the exchange holds as much as it may, or Envoy takes nothing."""
        try:
            while (message := await self._context.read()) is not grpc.aio.EOF:
                event = wire.decode(wire.parse(message))
                if event is None:
                    _log.debug("unknown_message", call_id=exchange.record.call_id)
                    continue
                self._take(event)
                while not self._has_room(exchange):
                    self._room = self._loop.create_future()
                    await self._room
        except (ProtocolError, *_BROKEN) as error:
            self._broken(error)
        self._is_over = True
        self._wake_writer()

    def _broken(self, error: Exception) -> Reset:
        _log.warning("stream_broken", call_id=self._call_id, type=type(error).__name__)
        return Reset("the stream broke")

    def _has_room(self, exchange: Exchange) -> bool:
        return not exchange.is_paused and self._unsent < _UNSENT_BYTES

    def _note_arrival(self, event: BodyReceived) -> None:
        if event.end_of_stream or event.leg not in self._waiting_since:
            self._waiting_since[event.leg] = time.monotonic()

    def _account(self, exchange: Exchange) -> None:
        held = exchange.held_bytes + self._unsent
        if held != self._held:
            self._service.hold(held - self._held)
            self._held = held
        if self._room is not None and not self._room.done() and self._has_room(exchange):
            self._room.set_result(None)

    async def _drain_envoy(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while await self._context.read() is not grpc.aio.EOF:
                    pass
        except TimeoutError:
            pass

    # -- what goes out -------------------------------------------------------------------------------------------

    async def _write(self, exchange: Exchange) -> Reset | None:
        """Write what the exchange releases, until its end."""
        while True:
            if not self._is_writing:
                await self._flush()
                if self._reset is not None:
                    return self._reset
                if exchange.is_closed:
                    await self._await_last_words()
                    return None
                if self._is_over:
                    # Envoy has ended the stream, or it broke. If it is not the end of the exchange, it must not look
                    # like one: a clean end would be taken as leave to pass everything.
                    return None if exchange.is_complete else Reset("the stream ended before the exchange")
            await self._woken()

    async def _flush(self) -> None:
        """Write what waits, in order, unless somebody does so already: whoever writes goes on until nothing waits."""
        if self._is_writing:
            return
        exchange = self._exchange
        assert exchange is not None
        self._is_writing = True
        try:
            while self._outbox and self._reset is None:
                command = self._outbox.popleft()
                if isinstance(command, Reset):
                    _log.error("exchange_reset", call_id=self._call_id, problem=command.message)
                    self._reset = command
                    break
                if isinstance(command, ReleaseBody):
                    command = self._joined(command)
                    self._unsent -= len(command.data)
                self._note_release(command)
                await self._send(command, exchange.record)
                self._account(exchange)
        except _BROKEN as error:
            self._reset = self._broken(error)
        except BaseException:
            # What was taken from the outbox is lost: nothing may be written behind it, whoever wakes next.
            self._reset = self._reset or Reset("internal error")
            raise
        finally:
            self._is_writing = False
        if self._reset is not None or self._is_over or exchange.is_closed:
            self._wake_writer()

    def _joined(self, first: ReleaseBody) -> ReleaseBody:
        """Return the first release of a body with those of the same body that wait right behind it."""
        pieces, last = [first.data], first
        while self._outbox and isinstance(follower := self._outbox[0], ReleaseBody) and follower.leg is first.leg:
            pieces.append(follower.data)
            last = follower
            self._outbox.popleft()
        return first if last is first else ReleaseBody(first.leg, b"".join(pieces), last.end_of_stream)

    async def _woken(self) -> None:
        self._wake = self._loop.create_future()
        await self._wake

    def _wake_writer(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _await_last_words(self) -> None:
        """Let Envoy end the stream of a closed exchange, for a while."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while not self._is_over:
                    await self._woken()
        except TimeoutError:
            pass

    async def _send(self, command: ToEnvoy, record: ExchangeRecord | None = None) -> None:
        for response in wire.encode(command):
            if record is not None and record.version != self._told_version and record.dialect:
                self._told_version = record.version
                wire.attach_metadata(response, record.as_metadata())
            await self._context.write(wire.serialise(response))

    def _note_release(self, command: ToEnvoy) -> None:
        match command:
            case ReleaseBuffered(leg=leg) | ReleaseHeaders(leg=leg):
                self._note_waited(leg)
            case Reply():
                for leg in tuple(self._waiting_since):
                    self._note_waited(leg)

    def _note_waited(self, leg: Leg) -> None:
        since = self._waiting_since.get(leg)
        if since is not None and since != _TOLD:
            self._waiting_since[leg] = _TOLD
            self._telemetry.waited(leg, time.monotonic() - since)
