"""The `ExternalProcessor` service: one gRPC stream is one exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from extproc.aim.client import AimClient, Caller
from extproc.config.settings import DEFAULT_PROFILE, PROFILE_METADATA, Profile, Settings
from extproc.core.events import HeadersReceived
from extproc.core.identity import find_attribute
from extproc.processor import wire
from extproc.processor.dry_run import Shadow
from extproc.processor.effects import Errands
from extproc.processor.stream import Stream
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.observation import Observation

if TYPE_CHECKING:
    from grpc.aio import ServicerContext


class ExternalProcessor:
    """The service, and what its streams share; an async context manager."""

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
        self._shadows: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> ExternalProcessor:
        """Start; dry runs may leave work behind from now on."""
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what dry runs left behind."""
        for task in self._shadows:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for grpc.aio; messages are handed over as bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE, {"Process": grpc.stream_stream_rpc_method_handler(self.process)}
        )

    async def process(self, _: AsyncIterator[bytes], context: ServicerContext[bytes, bytes]) -> None:
        """Serve one stream.

        Envoy takes a return as leave to pass everything: it comes only after Envoy ended the stream or the exchange
        is closed. Every other way out is an abort.
        """
        if self.is_refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        self.live += 1
        self.telemetry.streams.inc()
        self.idle.clear()
        stream = Stream(self, context)
        try:
            reset = await stream.run()
        finally:
            self.live -= 1
            self.telemetry.streams.dec()
            try:
                stream.end()
            finally:
                self._note_idle()
        del stream  # the exception of an abort keeps this frame for a while
        if reset is not None:
            code = grpc.StatusCode.FAILED_PRECONDITION if reset.misconfigured else grpc.StatusCode.INTERNAL
            await context.abort(code, reset.message)

    def _note_idle(self) -> None:
        if not self.live and not self._shadows:
            self.idle.set()

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

    def is_full(self, own: int) -> bool:
        """Tell whether others than the exchange that holds `own` bytes hold as many bytes as may be held."""
        return self.held_bytes - own > self.settings.limits.total_held_bytes

    def hold(self, size: int) -> None:
        """Count bytes that are held from now on, or, below zero, no longer."""
        self.held_bytes += size

    def watch(self, shadow: Shadow, observation: Observation, caller: Caller, client: AimClient) -> None:
        """Run a dry run's detection beside its stream, and after it."""
        client.enter()
        task = self._group.create_task(self._watch(shadow, observation, caller, client))
        task.add_done_callback(lambda _: client.leave())
        self._shadows.add(task)
        task.add_done_callback(self._unwatch)

    def _unwatch(self, task: asyncio.Task[None]) -> None:
        self._shadows.discard(task)
        self._note_idle()

    async def _watch(self, shadow: Shadow, observation: Observation, caller: Caller, client: AimClient) -> None:
        try:
            try:
                errands = Errands(client, caller, observation, shadow.deliver, shadow.take)
                try:
                    await shadow.run(errands)
                finally:
                    errands.end()
            finally:
                observation.finished()
        except Exception as error:
            log_internal_error(error)
