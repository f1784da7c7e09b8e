"""One serving process: the gRPC server with its health service, the admin port, and the orderly shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.admin.app import admin_app
from extproc.admin.port import listening
from extproc.config.settings import Settings
from extproc.processor import wire
from extproc.processor.servicer import ExternalProcessor
from extproc.serve.drain import drain
from extproc.serve.instance import Instance, start_client
from extproc.serve.link import Link, ReadinessChanged
from extproc.serve.listener import bind, grpc_server
from extproc.serve.open_files import check_limit, raise_limit
from extproc.serve.readiness import Readiness
from extproc.serve.worker import obey_supervisor, update_held_bytes
from extproc.telemetry import otel
from extproc.telemetry.metrics import Telemetry
from extproc.telemetry.snapshot import Phase

_log = structlog.get_logger()


async def serve(
    settings: Settings,
    config: Path | None = None,
    worker: int | None = None,
    is_outdated: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Reload the file at `config` when it changes.

    A worker of a supervisor has no admin port of its own, and ends with its supervisor. `is_outdated` returns whether
    the file differs from `settings`: it may have changed, or was refused, before this worker started. Raises
    SettingsError if the listener or the admin port cannot be opened.
    """
    raise_limit()
    check_limit(settings.limits.sessions)
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    telemetry = Telemetry()
    async with AsyncExitStack() as stack:
        telemetry.tracing = await stack.enter_async_context(otel.tracing())
        if worker is None:
            await stack.enter_async_context(otel.metrics(telemetry.registry))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        client = start_client(settings, group)
        processor = await stack.enter_async_context(ExternalProcessor(settings, client, telemetry))
        telemetry.keep_audit_log(settings)
        link = None
        if worker is None:
            telemetry.held_bytes.set_function(lambda: processor.load.held_bytes)
            readiness = Readiness(needs_aim=settings.readiness.aim)
            instance = Instance(processor, config, group, readiness)
            if settings.admin is not None:
                await stack.enter_async_context(listening(admin_app(instance), settings.admin))
        else:
            link = to_supervisor = await Link.to_supervisor()
            readiness = Readiness(
                needs_aim=settings.readiness.aim,
                on_change=lambda is_ready: to_supervisor.send(ReadinessChanged(is_ready)),
            )
            instance = Instance(processor, config, group, readiness, worker, is_outdated)
        server = grpc_server(settings)
        server.add_generic_rpc_handlers((processor.handler(),))
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        address = settings.listen.for_worker(worker or 0)
        stack.callback(bind(server, address, settings.tls))
        await server.start()
        for name in ("", wire.SERVICE):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        _tune_collector()
        _share_interpreter()
        readiness.enter(Phase.SERVING)
        loop.add_signal_handler(signal.SIGHUP, instance.reloader.ask)
        background = [instance.reloader.run(), readiness.watch_aim(instance.is_aim_reachable)]
        if link is not None:
            background += [update_held_bytes(processor), obey_supervisor(link, instance, stop)]
        tasks = [group.create_task(work) for work in background]
        admin = settings.admin if worker is None else None
        _log.info("serving", listen=str(address), admin=str(admin or ""), pid=os.getpid())
        await stop.wait()
        readiness.enter(Phase.DRAINING)
        await status.enter_graceful_shutdown()
        _log.info("draining", streams=processor.load.streams)
        await drain(processor, processor.settings.drain_seconds, hurry)
        await server.stop(0)
        for task in tasks:
            task.cancel()
        processor.client.retire()
    _log.info("stopped")


def _share_interpreter() -> None:
    """Let the event loop take the interpreter soon while the thread for documents has it.

    Each turn of the loop waits for this interval then, and a small exchange takes about a dozen turns.
    """
    sys.setswitchinterval(0.001)


def _tune_collector() -> None:
    """Exclude the loaded modules from garbage collection, and collect other objects less often.

    An exchange makes some thousand objects and leaves only a few reference cycles, of gRPC and websockets. With
    Python's defaults the collector would examine each object several times, and those of a large document again and
    again while it is read.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 5)
