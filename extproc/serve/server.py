"""One serving process: the gRPC server with its health service, the admin port, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.admin.port import Admin
from extproc.config.address import Address
from extproc.config.settings import Settings, Tls
from extproc.core.errors import SettingsError
from extproc.processor import wire
from extproc.processor.servicer import ExternalProcessor
from extproc.serve.instance import Serving, start_client
from extproc.serve.link import RELOAD, Link
from extproc.serve.unix_socket import SocketFile
from extproc.telemetry import otel
from extproc.telemetry.metrics import SHARED_VALUES, Telemetry, share_values

GRACE_SECONDS = 2.0
"""After a signal new streams are still served so long: whoever routes to us needs time to see that we leave."""

_GAUGE_SECONDS = 1.0

_MEBIBYTE = 1024 * 1024

_WINDOW = 65_536
"""Bytes of one stream that may come unread; a message that is being read may be larger."""

_HANDSHAKE_SECONDS = 10.0
"""From a connection to its TLS and HTTP/2 handshakes' end; by default gRPC gives two minutes to who says nothing."""

_KEEPALIVE_SECONDS = (30.0, 10.0)
"""A connection that was silent so long is asked for a sign of life, and closed with its streams without one in time."""

_MORE_STREAMS = 1000
"""Streams that one connection may have beyond limits.streams, to be refused in words; those beyond these wait."""

_log = structlog.get_logger()


async def serve(settings: Settings, config: Path | None = None, worker: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; follow changes of the file at `config`.

    As a worker of a supervisor it has no admin port of its own, and ends with its supervisor.
    Raises SettingsError when the listener or the admin port cannot be opened.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if worker is not None:
        share_values(worker)
    telemetry = Telemetry()
    async with AsyncExitStack() as stack:
        telemetry.tracing = await stack.enter_async_context(otel.tracing())
        if worker is None:
            await stack.enter_async_context(otel.metrics(telemetry.registry))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        client = start_client(settings, group)
        service = await stack.enter_async_context(ExternalProcessor(settings, client, telemetry))
        telemetry.keep_audit_log(settings)
        link = None
        if worker is None:
            telemetry.held_bytes.set_function(lambda: service.held_bytes)
            serving = Serving(service, config, group)
            if settings.admin is not None:
                await stack.enter_async_context(Admin(serving).listening(settings.admin))
        else:
            link = await Link.to_supervisor()
            serving = Serving(service, config, group, link.send, worker)
        server = grpc_server(settings)
        server.add_generic_rpc_handlers((service.handler(),))
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        address = settings.listen.for_worker(worker or 0)
        stack.callback(_bind(server, address, settings.tls))
        await server.start()
        for name in ("", wire.SERVICE):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        _tune_collector()
        serving.serve(is_serving=True)
        loop.add_signal_handler(signal.SIGHUP, serving.reloader.ask)
        background = [serving.reloader.run(), serving.watch_aim()]
        if link is not None:
            background += [_keep_held_bytes(service), _obey_supervisor(link, serving, stop)]
        tasks = [group.create_task(work) for work in background]
        admin = settings.admin if worker is None else None
        _log.info("serving", listen=str(address), admin=str(admin or ""), pid=os.getpid())
        await stop.wait()
        serving.serve(is_serving=False)
        await status.enter_graceful_shutdown()
        _log.info("draining", streams=service.live)
        await _drain(service, service.settings.drain_seconds, hurry)
        await server.stop(0)
        for task in tasks:
            task.cancel()
        service.client.retire()
    _log.info("stopped")


def _tune_collector() -> None:
    """Have the garbage collector leave what was loaded alone, and look seldom at what comes and goes.

    An exchange makes some thousand objects and leaves a handful that refer to each other, gRPC's own: by default the
    collector would look several times at each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)


async def _keep_held_bytes(service: ExternalProcessor) -> None:
    """Write the gauge for the supervisor now and then, for ever: it changes with every piece of a body."""
    while True:
        service.telemetry.held_bytes.set(service.held_bytes)
        await asyncio.sleep(_GAUGE_SECONDS)


async def _obey_supervisor(link: Link, serving: Serving, stop: asyncio.Event) -> None:
    """Do what the supervisor asks, until its end.

    Its end is ours: what it left behind is removed, and we drain.
    """
    try:
        while True:
            if await link.receive() == RELOAD:
                serving.reloader.ask()
            else:
                link.send(await serving.snapshot())
    except EOFError:
        _log.error("supervisor_gone")
        shutil.rmtree(os.environ[SHARED_VALUES], ignore_errors=True)
        stop.set()


async def _drain(service: ExternalProcessor, seconds: float, hurry: asyncio.Event) -> None:
    """Wait for the live streams: at most `seconds`, and no longer than until a second signal."""
    async with asyncio.TaskGroup() as group:

        async def wait_for_streams() -> None:
            await asyncio.sleep(min(GRACE_SECONDS, seconds))
            service.is_refusing = True
            await service.idle.wait()

        async def wait_for_hurry() -> None:
            await hurry.wait()

        tasks = [group.create_task(wait_for_streams()), group.create_task(wait_for_hurry())]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    if service.live:
        _log.warning("resetting", streams=service.live)


def grpc_server(settings: Settings) -> grpc.aio.Server:
    """Return a server for Envoys, with nothing to serve yet."""
    # Envoy's body limit is request_bytes + 1 MiB, so that ours speaks first; a message is a little more than a body.
    largest = settings.limits.request_bytes + 2 * _MEBIBYTE
    most = settings.limits.streams + _MORE_STREAMS
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", -1),
            # A second process on the port is a mistake, not a helper.
            ("grpc.so_reuseport", 0),
            # A stream that is not read holds its window in memory. By measuring the line gRPC lets it grow to many
            # megabytes, where pausing a stream is to pause its upstream.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
            # Envoy's keep-alive pings may come often and between streams; by default that costs the connection.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
            # An Envoy that vanished without a word (its node, or what is between) would keep its streams for ever. One
            # that lives answers, however long its streams last; pings go on while nothing else does.
            ("grpc.keepalive_time_ms", int(_KEEPALIVE_SECONDS[0] * 1000)),
            ("grpc.keepalive_timeout_ms", int(_KEEPALIVE_SECONDS[1] * 1000)),
            ("grpc.http2.ping_timeout_ms", int(_KEEPALIVE_SECONDS[1] * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.server_handshake_timeout_ms", int(_HANDSHAKE_SECONDS * 1000)),
            ("grpc.max_concurrent_streams", most),
            # Streams that came and were not looked at yet, those that were dropped meanwhile too: by default gRPC
            # cancels new ones at random behind a thousand, which a flood or a burst leaves for part of a second.
            ("grpc.server.max_pending_requests", most),
            ("grpc.server.max_pending_requests_hard_limit", most + _MORE_STREAMS),
        ]
    )


def _bind(server: grpc.aio.Server, address: Address, tls: Tls) -> Callable[[], None]:
    """Have `server` listen on `address`; return what removes a socket's file. Raises SettingsError."""
    file = SocketFile(Path(address.path)) if address.path else None
    # A socket's group may connect, nobody else.
    previous = os.umask(0o117)
    try:
        if file is not None:
            file.check()
        first = str(address) if file is None else f"unix:{file.first_path}"
        if tls.cert_file is not None:
            server.add_secure_port(first, _credentials(tls))
        else:
            server.add_insecure_port(first)
        if file is not None:
            file.publish()
    except (RuntimeError, OSError) as error:
        raise SettingsError([f"listen: cannot listen on {address}; is it in use?"]) from error
    finally:
        os.umask(previous)
    return file.remove if file is not None else lambda: None


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials that follow the files as they change."""
    seen: list[tuple[int, ...]] = []

    def configuration() -> grpc.ServerCertificateConfiguration | None:
        files = [file for file in (tls.key_file, tls.cert_file, tls.client_ca_file) if file is not None]
        try:
            now = tuple(file.stat().st_mtime_ns for file in files)
            if seen and seen[-1] == now:
                return None
            key, chain, *ca = (file.read_bytes() for file in files)
        except OSError:
            return None  # being replaced: the last ones stay
        seen[:] = [now]
        return grpc.ssl_server_certificate_configuration([(key, chain)], ca[0] if ca else None)

    first = configuration()
    if first is None:
        raise SettingsError(["tls: a certificate file cannot be read"])
    return grpc.dynamic_ssl_server_credentials(
        first, lambda: configuration(), require_client_authentication=tls.client_ca_file is not None
    )
