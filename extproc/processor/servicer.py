"""The `ExternalProcessor` service: one gRPC stream is one exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc
from grpc.aio import ServicerContext

from extproc.aim.client import AimClient
from extproc.config.settings import Settings
from extproc.processor import wire
from extproc.processor.driver import Driver
from extproc.processor.load import Load
from extproc.processor.stream import PATIENT, Patience, Stream
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.metrics import Telemetry


class ExternalProcessor:
    """The service, and what its streams share; an async context manager."""

    def __init__(
        self, settings: Settings, client: AimClient, telemetry: Telemetry, patience: Patience = PATIENT
    ) -> None:
        """Serve exchanges under `settings`, with detections by `client`."""
        self.settings = settings
        self.client = client
        self.telemetry = telemetry
        self.load = Load(lambda: self.settings.limits)
        self.is_refusing = False
        """Whether new streams are refused, because the process drains."""
        self.idle = asyncio.Event()
        """Set while no stream is open and no dry run outlives its stream."""
        self.idle.set()
        self._patience = patience
        # One, so that the parsed forms of several large documents do not exist at the same time.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="documents")
        self._outliving: set[Driver] = set()

    async def __aenter__(self) -> ExternalProcessor:
        """Start."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up the dry runs that outlive their streams, and end the thread for documents."""
        for driver in tuple(self._outliving):
            try:
                driver.abandon()
            except Exception as error:  # the others are to be given up all the same
                log_internal_error(error)
        # The loop goes on: what the thread has begun is told to it.
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for grpc.aio, which passes messages as bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE, {"Process": grpc.stream_stream_rpc_method_handler(self.process)}
        )

    async def process(self, _: AsyncIterator[bytes], context: ServicerContext[bytes, bytes]) -> None:
        """Serve one stream.

        Envoy takes a return as permission to pass everything. So this returns only after Envoy has ended the stream or
        the exchange is closed. Every other way out is an abort.
        """
        if self.is_refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        stream = self.stream_of(context)  # what fails here has counted nothing yet
        self.load.streams += 1
        self.idle.clear()
        self._show_streams()
        try:
            reset = await stream.run()
        finally:
            self.load.streams -= 1
            self._show_streams()
            try:
                stream.end()
            finally:
                self._keep(stream.driver)
                self._note_idle()
        del stream  # the error of an abort keeps this frame, in a reference cycle of gRPC
        if reset is not None:
            code = grpc.StatusCode.FAILED_PRECONDITION if reset.misconfigured else grpc.StatusCode.INTERNAL
            await context.abort(code, reset.message)

    def stream_of(self, context: ServicerContext[bytes, bytes]) -> Stream:
        """Return the stream of `context`, under the settings in force."""
        return Stream(context, self.settings, self.client, self.telemetry, self.load, self._patience, self._thread)

    def _keep(self, driver: Driver | None) -> None:
        """Own a dry run that outlives its stream, until it is settled."""
        if driver is None or driver.is_settled:
            return

        def let_go() -> None:
            self._outliving.discard(driver)
            self._note_idle()

        self._outliving.add(driver)
        driver.on_settled = let_go

    def _show_streams(self) -> None:
        try:
            self.telemetry.streams.set(self.load.streams)
        except Exception as error:  # telemetry must not touch the exchange
            log_internal_error(error)

    def _note_idle(self) -> None:
        if not self.load.streams and not self._outliving:
            self.idle.set()
