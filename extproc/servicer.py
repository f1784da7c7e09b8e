"""The shell of an exchange: one gRPC stream is one `Exchange`; its inbox, its tasks, its commands performed.

One inbox, one loop, one writer: whatever happens, at Envoy's side or at Aim's, becomes an event in the inbox; the loop
hands each to the exchange and performs the commands in order. A handler that returned while the exchange is under way
would tell Envoy to pass everything, so `ExternalProcessor.process` returns only after Envoy ended the stream or the
exchange is closed; every other way out is an abort.
"""

from __future__ import annotations

import asyncio
import time
import traceback
import uuid
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, assert_never

import grpc
import structlog

from extproc import wire
from extproc.aim.client import AimClient, Caller
from extproc.aim.session import Session
from extproc.errors import ProtocolError
from extproc.events import (
    Analyze,
    BodyReceived,
    CancelAnalysis,
    ClearTimer,
    CloseSession,
    Command,
    Event,
    HeadersReceived,
    Hook,
    Leg,
    OpenSession,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    Reply,
    ReportChunks,
    ReportFailOpen,
    ReportVerdict,
    Reset,
    SessionDone,
    SessionFailed,
    SetTimer,
    StreamBlocked,
    SubmitChunk,
    SubmitDone,
    Timer,
    TimerFired,
    VerdictReached,
)
from extproc.exchange import Exchange, misconfigured
from extproc.identity import Identity, find_attribute, first_value
from extproc.record import ExchangeRecord
from extproc.settings import DEFAULT_PROFILE, Profile, Settings
from extproc.telemetry import Telemetry

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

PROFILE_METADATA = "x-extproc-profile"

_INBOX = 16
"""Messages of Envoy that wait for the exchange before reading pauses."""

_LAST_WORDS_SECONDS = 5.0
"""How long a closed exchange waits for Envoy to end the stream."""

_TOLD = -1.0
"""In place of a time: the wait of this leg has been counted."""

_log = structlog.get_logger()


class ExternalProcessor:
    """The `ExternalProcessor` service."""

    def __init__(self, settings: Settings, client: AimClient, telemetry: Telemetry) -> None:
        """Serve exchanges under `settings`, asking Aim through `client`."""
        self.settings = settings
        self.client = client
        self.telemetry = telemetry
        self.is_refusing = False
        self.live = 0
        self.held_bytes = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for grpc.aio; messages are handed over as bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE, {"Process": grpc.stream_stream_rpc_method_handler(self.process)}
        )

    async def process(self, _: AsyncIterator[bytes], context: ServicerContext[bytes, bytes]) -> None:
        """Serve one stream."""
        if self.is_refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        self.live += 1
        self.telemetry.streams.inc()
        self.idle.clear()
        stream = _Stream(self, context)
        try:
            reset = await stream.run()
        finally:
            stream.end()
            self.live -= 1
            self.telemetry.streams.dec()
            if not self.live:
                self.idle.set()
        if reset is not None:
            code = grpc.StatusCode.FAILED_PRECONDITION if reset.misconfigured else grpc.StatusCode.INTERNAL
            await context.abort(code, reset.message)

    def profile_of(
        self, headers: HeadersReceived, context: ServicerContext[bytes, bytes]
    ) -> tuple[str, Profile | None]:
        """Return the name and the profile of a stream; None for a name that nobody configured."""
        for key, value in context.invocation_metadata() or ():
            if key == PROFILE_METADATA:
                name = str(value)
                return name, self.settings.profiles.get(name)
        route = find_attribute(headers.attributes, "xds.route_name")
        if isinstance(route, str):
            for name, profile in self.settings.profiles.items():
                if any(fnmatchcase(route, pattern) for pattern in profile.routes):
                    return name, profile
        return DEFAULT_PROFILE, self.settings.profiles[DEFAULT_PROFILE]

    @property
    def is_overloaded(self) -> bool:
        """Tell whether as many exchanges are live, or as many bytes are held, as may be."""
        limits = self.settings.limits
        return self.live > limits.streams or self.held_bytes > limits.total_held_bytes


class _Stream:
    """One exchange on its gRPC stream."""

    def __init__(self, service: ExternalProcessor, context: ServicerContext[bytes, bytes]) -> None:
        self._service = service
        self._context = context
        self._telemetry = service.telemetry
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Event | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._exchange: Exchange | None = None
        self._record: ExchangeRecord | None = None
        self._caller: Caller | None = None
        self._session: Session | None = None
        self._session_number = 0
        self._analyses: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[Timer, tuple[asyncio.TimerHandle, TimerFired]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._began = time.monotonic()
        self._waiting_since: dict[Leg, float] = {}
        self._told_version = 0
        self._held = 0

    async def run(self) -> Reset | None:
        """Serve the stream; return what it is to be aborted with, None once Envoy may see its end."""
        async with asyncio.TaskGroup() as group:
            try:
                return await self._serve(group)
            except ProtocolError as error:
                _log.error("protocol_error", problem=str(error))
                return Reset(str(error), misconfigured=True)
            except Exception as error:
                # The message of an unforeseen error may hold content: only where it happened is told.
                frames = traceback.extract_tb(error.__traceback__)
                where = [f"{frame.filename}:{frame.lineno}" for frame in frames[-3:]]
                _log.error("internal_error", type=type(error).__name__, where=where)
                return Reset("internal error")
            finally:
                for task in (self._reader, *self._analyses.values()):
                    if task is not None:
                        task.cancel()

    def end(self) -> None:
        """Free what the stream holds outside, and write its record; its tasks have ended."""
        for handle, _ in self._timers.values():
            handle.cancel()
        self._close_session()
        self._service.held_bytes -= self._held
        if self._exchange is not None and self._record is not None:
            if not self._exchange.is_complete:
                self._record.outcome = "aborted"
            self._telemetry.finished(self._record, time.monotonic() - self._began)

    async def _serve(self, group: asyncio.TaskGroup) -> Reset | None:
        first = await self._context.read()
        if first is grpc.aio.EOF:
            return None
        exchange = self._begin(first)
        if exchange is None:
            await self._refuse_misconfigured()
            return None
        self._reader = group.create_task(self._read())
        while True:
            event = await self._inbox.get()
            if event is None:
                return None
            if isinstance(event, TimerFired) and not self._is_due(event):
                continue
            self._note_arrival(event)
            for command in exchange.handle(event):
                if isinstance(command, Reset):
                    _log.error("exchange_reset", call_id=exchange.record.call_id, problem=command.message)
                    return command
                await self._perform(command, group)
            self._account(exchange)
            if exchange.is_closed:
                await self._await_last_words()
                return None

    def _begin(self, first: bytes) -> Exchange | None:
        """Make the exchange that the first message asks for; None where its profile is unknown."""
        service = self._service
        request = wire.parse(first)
        mode = wire.body_modes(request, assume_full_duplex=service.settings.assume_full_duplex)
        event = wire.decode(request)
        headers = event if isinstance(event, HeadersReceived) else HeadersReceived(Leg.REQUEST, ())
        name, profile = service.profile_of(headers, self._context)
        if profile is None:
            _log.error("unknown_profile", profile=name, known=sorted(service.settings.profiles))
            return None
        self._record = ExchangeRecord(str(uuid.uuid4()), name)
        identity = Identity(
            first_value(profile.user_email, headers),
            first_value(profile.key_alias, headers),
            first_value(profile.session_id, headers),
        )
        self._caller = Caller(name, self._record.call_id, identity)
        self._exchange = Exchange(
            self._record,
            profile,
            service.settings.limits,
            verdict_timeout=service.settings.aim.verdict_timeout_seconds,
            request_mode=mode,
            is_overloaded=service.is_overloaded,
        )
        if event is not None:
            self._inbox.put_nowait(event)
        return self._exchange

    async def _refuse_misconfigured(self) -> None:
        for response in wire.encode(misconfigured()):
            await self._context.write(wire.serialise(response))
        await self._drain_envoy()

    # -- what comes in -------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Move Envoy's messages into the inbox, pausing while the exchange holds as much as it may."""
        assert self._exchange is not None
        try:
            while (message := await self._context.read()) is not grpc.aio.EOF:
                event = wire.decode(wire.parse(message))
                if event is None:
                    _log.debug("unknown_message", call_id=self._exchange.record.call_id)
                    continue
                self._inbox.put_nowait(event)
                while self._exchange.is_paused or self._inbox.qsize() >= _INBOX:
                    self._room.clear()
                    await self._room.wait()
        except (ProtocolError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            _log.warning("stream_broken", type=type(error).__name__)
        self._inbox.put_nowait(None)

    def _is_due(self, event: TimerFired) -> bool:
        """Tell whether the clock that fired is still the one that was set last."""
        current = self._timers.get(event.timer)
        if current is None or current[1] is not event:
            return False
        del self._timers[event.timer]
        return True

    def _note_arrival(self, event: Event) -> None:
        if isinstance(event, BodyReceived) and (event.end_of_stream or event.leg not in self._waiting_since):
            self._waiting_since[event.leg] = self._loop.time()

    def _account(self, exchange: Exchange) -> None:
        held = exchange.held_bytes
        if held != self._held:
            self._service.held_bytes += held - self._held
            self._held = held
        if not self._room.is_set() and not exchange.is_paused and self._inbox.qsize() < _INBOX:
            self._room.set()

    async def _await_last_words(self) -> None:
        """Let Envoy end the stream of a closed exchange, for a while."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                self._room.set()
                while await self._inbox.get() is not None:
                    self._room.set()
        except TimeoutError:
            pass

    async def _drain_envoy(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while await self._context.read() is not grpc.aio.EOF:
                    pass
        except TimeoutError:
            pass

    # -- what is to be done --------------------------------------------------------------------------------------

    async def _perform(self, command: Command, group: asyncio.TaskGroup) -> None:
        match command:
            case ReleaseBody() | ReleaseHeaders() | ReleaseBuffered() | ReleaseTrailers() | Reply():
                await self._write(command)
            case SubmitChunk():
                if self._session is not None and command.session == self._session_number:
                    self._session.submit(command.chunk)
            case SetTimer():
                self._set_timer(command)
            case ClearTimer():
                self._clear_timer(command.timer)
            case Analyze():
                self._analyses[command.analysis] = group.create_task(self._analyze(command))
            case CancelAnalysis():
                task = self._analyses.pop(command.analysis, None)
                if task is not None:
                    task.cancel()
            case OpenSession():
                self._open_session(command.session)
            case SubmitDone():
                if self._session is not None and command.session == self._session_number:
                    self._session.done()
            case CloseSession():
                if command.session == self._session_number:
                    self._close_session()
            case ReportVerdict() | ReportFailOpen() | ReportChunks():
                assert self._record is not None
                self._telemetry.report(self._record, command)
            case Reset():
                raise AssertionError("a reset is not performed but returned")
            case _:
                assert_never(command)

    async def _write(self, command: ReleaseBody | ReleaseHeaders | ReleaseBuffered | ReleaseTrailers | Reply) -> None:
        record = self._record
        assert record is not None
        self._note_release(command)
        for response in wire.encode(command):
            if record.version != self._told_version and record.dialect:
                self._told_version = record.version
                wire.attach_metadata(response, record.as_metadata())
            await self._context.write(wire.serialise(response))

    def _note_release(self, command: Command) -> None:
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
            self._telemetry.waited(leg, self._loop.time() - since)

    async def _analyze(self, command: Analyze) -> None:
        assert self._caller is not None
        began = self._loop.time()
        outcomes = await self._service.client.analyze(command.hook, command.inputs, self._caller)
        seconds = self._loop.time() - began
        self._telemetry.detected(command.hook, seconds)
        self._analyses.pop(command.analysis, None)
        self._inbox.put_nowait(VerdictReached(command.analysis, outcomes, round(seconds * 1000)))

    def _open_session(self, number: int) -> None:
        assert self._caller is not None
        self._close_session()
        self._session_number = number
        self._session = self._service.client.open_session(number, self._caller, self._deliver)
        self._telemetry.sessions.inc()

    def _deliver(self, event: Event) -> None:
        if isinstance(event, SessionDone | StreamBlocked):
            self._telemetry.detected(Hook.OUTPUT, event.milliseconds / 1000)
        elif isinstance(event, SessionFailed):
            self._telemetry.session_failed(event.reason)
        self._inbox.put_nowait(event)

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
            self._telemetry.sessions.dec()

    def _set_timer(self, command: SetTimer) -> None:
        self._clear_timer(command.timer)
        event = TimerFired(command.timer)
        handle = self._loop.call_later(command.seconds, self._inbox.put_nowait, event)
        self._timers[command.timer] = (handle, event)

    def _clear_timer(self, timer: Timer) -> None:
        current = self._timers.pop(timer, None)
        if current is not None:
            current[0].cancel()
