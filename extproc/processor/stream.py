"""One gRPC stream of Envoy: reads its messages, hands them to a driver, and decides how the stream ends."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import grpc
import structlog
from grpc.aio import ServicerContext

from extproc.aim.client import AimClient, Caller
from extproc.config.settings import Settings
from extproc.core.commands import Reset
from extproc.core.dry_run import DryRun
from extproc.core.errors import ProtocolError
from extproc.core.events import BodyReceived, Event, HeadersReceived, TrailersReceived
from extproc.core.exchange import Exchange, misconfigured
from extproc.core.identity import NOBODY, Identity, first_value
from extproc.core.refusal import MISCONFIGURED
from extproc.core.vocabulary import Headers, Leg
from extproc.processor import wire
from extproc.processor.driver import Driver
from extproc.processor.load import Load
from extproc.processor.outbox import BROKEN, Outbox, broken
from extproc.processor.route import profile_of
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.observation import Observation
from extproc.telemetry.record import ExchangeRecord

_UNSENT_BYTES = 262_144
"""Bytes of bodies that may wait for Envoy before reading pauses."""

_log = structlog.get_logger()


def _new_id() -> str:
    """Return a new UUID of version 4. The standard library's object costs eight times as much as its digits."""
    digits = secrets.token_hex(16)
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stream waits for Envoy."""

    first_seconds: float = 10
    """from its opening to the first message: it counts among limits.streams"""
    last_seconds: float = 5
    """to take the last message, and from then on to end the stream"""


PATIENT = Patience()


class Stream:
    """One exchange on its gRPC stream."""

    def __init__(
        self,
        context: ServicerContext[bytes, bytes],
        settings: Settings,
        client: AimClient,
        telemetry: Telemetry,
        load: Load,
        patience: Patience,
        thread: Executor,
    ) -> None:
        """Serve `context` under `settings`, which the exchange keeps even if they are reloaded.

        `thread` handles what takes long.
        """
        self._context = context
        self._settings = settings
        self._client = client
        self._client.enter()  # a reload must not close it before the first message
        self._telemetry = telemetry
        self._load = load
        self._patience = patience
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None  # the stream's own
        self._is_reading = False  # whether it waits for a message
        self._room: asyncio.Future[None] | None = None  # what it waits for before it goes on
        self._is_left = False
        self._alarm: asyncio.TimerHandle | None = None
        self._observation: Observation | None = None  # of a stream that got no driver
        self._began = time.monotonic()
        self.driver: Driver | None = None
        """What drives the exchange, once the first message has arrived."""

    async def run(self) -> Reset | None:
        """Serve the stream; return with what to abort it, None if it may end cleanly."""
        self._task = asyncio.current_task()
        try:
            self._leave_in(self._patience.first_seconds)
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
        """Settle what the stream leaves behind. Nothing reads or writes any more."""
        self._is_left = True
        self._task = None  # it may refer to an error, and through it to the stream
        self._stay()
        try:
            if self.driver is not None:
                self.driver.leave_stream()
            elif self._observation is not None:
                self._observation.finished()
        finally:
            self._client.leave()

    # -- the exchange ----------------------------------------------------------------------------------------------

    async def _serve(self, first: bytes) -> Reset | None:
        settings = self._settings
        try:
            request = wire.parse(first)
            mode = wire.body_modes(request, assume_full_duplex=settings.assume_full_duplex)
        except ProtocolError:
            # A filter that would not guard has cost this exchange. It counts under no profile.
            self._observation = self._observe(ExchangeRecord(_new_id(), "", outcome="aborted", code=MISCONFIGURED.code))
            raise
        event = wire.decode(request)
        headers = event if isinstance(event, HeadersReceived) else HeadersReceived(Leg.REQUEST, ())
        name = profile_of(headers, self._context.invocation_metadata() or (), settings.profiles)
        profile = settings.profiles.get(name)
        if profile is None:
            await self._refuse_profile(name)
            return None
        call_id = _new_id()
        policy = settings.policies[name]
        if not profile.enforce and random.random() >= profile.sample:  # noqa: S311 - it guards nothing
            policy = replace(policy, hooks=frozenset())
        kind = Exchange if profile.enforce else DryRun
        exchange = kind(call_id, policy, settings.exchange_limits, request_mode=mode, began=int(time.time()))
        identity = Identity(
            first_value(profile.user_email, headers),
            first_value(profile.key_alias, headers),
            first_value(profile.session_id, headers),
        )
        record = ExchangeRecord(call_id, name)
        observation = self._observe(record, headers.headers, identity, is_dry_run=not profile.enforce)
        outbox = Outbox(self._context, observation)
        caller = Caller(name, call_id, identity)
        driver = Driver(exchange, observation, outbox, self._load, self._client, caller, self._thread)
        self.driver = driver
        driver.on_change = self._on_change
        if event is not None:
            await driver.take_and_write(event)
        await self._read(driver)
        return await self._finish(driver)

    def _observe(
        self,
        record: ExchangeRecord,
        headers: Headers = (),
        identity: Identity = NOBODY,
        *,
        is_dry_run: bool = False,
    ) -> Observation:
        """Return the observation of the exchange. Its spans join Envoy's trace, else the client's."""
        telemetry = self._telemetry
        observation = Observation(telemetry, record, identity, began=self._began, is_dry_run=is_dry_run)
        if telemetry.tracing is not None:
            observation.trace = telemetry.tracing.begin(self._context.invocation_metadata(), headers)
        return observation

    async def _refuse_profile(self, name: str) -> None:
        """Answer a stream whose profile nobody configured, and wait until Envoy ends it."""
        _log.error("unknown_profile", profile=name, known=sorted(self._settings.profiles))
        record = ExchangeRecord(_new_id(), "", outcome="refused", code=MISCONFIGURED.code)
        self._observation = observation = self._observe(record)
        await Outbox(self._context, observation).send(misconfigured())
        self._leave_in(self._patience.last_seconds)
        while await self._next() is not None:
            pass

    async def _finish(self, driver: Driver) -> Reset | None:
        """Let what was released before go out; return with what to abort the stream, None if it may end cleanly."""
        driver.end_stream()
        outbox = driver.outbox
        if not outbox.is_idle:
            try:
                async with asyncio.timeout(self._patience.last_seconds):
                    await driver.write()  # what waits for a task that has not begun
                    await outbox.settled()
            except TimeoutError:
                return Reset("Envoy does not take the last message")
        if outbox.reset is not None:
            return outbox.reset
        # Envoy would take a clean end before the end of the exchange as permission to pass everything.
        return None if driver.is_complete else Reset("the stream ended before the exchange")

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, driver: Driver) -> None:
        """Read Envoy's messages. Pause while the exchange holds as much as it may, or Envoy or Aim takes nothing."""
        last: Event | None = None
        try:
            while (message := await self._next()) is not None:
                event = wire.decode(wire.parse(message))
                if event is None:
                    _log.debug("unknown_message")
                    continue
                last = event
                await driver.take_and_write(event)
                while not (self._is_left or _has_room(driver)):
                    await self._change()
            if last is not None and _ends_response(last):
                # agentgateway ends its half of the stream with the answer, and reads on what is held of it.
                while not (self._is_left or _is_over(driver)):
                    await self._change()
        except (ProtocolError, *BROKEN) as error:
            self._broken(error)
        except Exception as error:
            log_internal_error(error)

    async def _change(self) -> None:
        """Wait until a change leaves room, or the stream is to be left."""
        self._room = self._loop.create_future()
        await self._room

    async def _next(self) -> bytes | None:
        """Return Envoy's next message; None at the end of the stream, or if it is to be left."""
        if self._is_left:
            return None
        self._is_reading = True
        try:
            message = await self._context.read()
        except asyncio.CancelledError:
            if self._is_left and self._task is not None and not self._task.uncancel():
                return None
            raise
        finally:
            self._is_reading = False
        return None if message is grpc.aio.EOF else message

    def _broken(self, error: Exception) -> Reset:
        return broken(self.driver.outbox.call_id if self.driver is not None else "", error)

    def _on_change(self) -> None:
        """Read on if there is room again. Leave the stream if it broke, or soon if its exchange is closed."""
        driver = self.driver
        if driver is None or self._is_left:
            return
        if driver.outbox.reset is not None:
            self._leave()
        elif driver.is_closed:
            # Envoy has this long to end the stream, from the last message that it took.
            self._stay()
            self._leave_in(self._patience.last_seconds)
        if self._room is not None and _has_room(driver):
            self._read_on()

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _leave_in(self, seconds: float) -> None:
        """Leave the stream after `seconds`, whatever Envoy does."""
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
            if self._is_reading and self._task is not None:
                self._task.cancel()
            self._read_on()

    def _read_on(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


_MAY_END = (HeadersReceived, BodyReceived)


def _ends_response(event: Event) -> bool:
    if isinstance(event, _MAY_END):
        return event.leg is Leg.RESPONSE and event.end_of_stream
    return isinstance(event, TrailersReceived) and event.leg is Leg.RESPONSE


def _is_over(driver: Driver) -> bool:
    """Return whether the client's answer is complete, and the data plane has taken it."""
    return (driver.is_complete or driver.is_closed) and driver.outbox.is_idle


def _has_room(driver: Driver) -> bool:
    return not driver.is_paused and driver.outbox.unsent < _UNSENT_BYTES and not driver.is_behind
