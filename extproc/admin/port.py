"""The admin port: liveness, readiness, metrics and a status page, of one serving process or of all workers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from extproc.admin.page import HEADERS, page
from extproc.config.address import Address, unaddressed
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.telemetry.metrics import add_process
from extproc.telemetry.snapshot import Snapshot

_CONNECTION_SECONDS = 15.0
"""Life of a connection, and how much longer one is that is being answered: each probe and scrape makes its own."""

_CONNECTIONS = 512
"""Connections at once; beyond them the answer is 503: the listener for Envoy needs descriptors too."""


class Subject(Protocol):
    """What an admin port tells of: a serving process, or the supervisor of several."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics."""
        ...

    @property
    def is_ready(self) -> bool:
        """Tell whether exchanges may be sent here."""
        ...

    async def snapshot(self) -> Snapshot:
        """Return what the status page shows now."""
        ...


class Admin:
    """What the admin port shows."""

    def __init__(self, subject: Subject) -> None:
        """Show `subject`, without secrets."""
        self._subject = subject
        add_process(subject.registry, lambda: subject.is_ready, lambda: subject.settings)
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ]
        )

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        return PlainTextResponse("ready\n") if self._subject.is_ready else PlainTextResponse("not ready\n", 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._subject.registry), media_type=CONTENT_TYPE_LATEST)

    async def _page(self, request: Request) -> Response:
        is_paused = "paused" in request.query_params
        text = page(await self._subject.snapshot(), self._subject.settings, is_paused=is_paused)
        return HTMLResponse(text, headers=HEADERS)

    @asynccontextmanager
    async def listening(self, address: Address) -> AsyncIterator[None]:
        """Serve on `address` while the context lasts; raises SettingsError."""
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            listener = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            raise SettingsError([f"admin: cannot listen on {address}: {unaddressed(error)}"]) from error
        # asyncio sets it only where the socket names its protocol: without it every answer waits for a delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _Server(
            uvicorn.Config(
                self.app,
                log_level="error",
                access_log=False,
                lifespan="off",
                ws="none",
                http=_Connection,
                limit_concurrency=_CONNECTIONS,
            )
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = server.force_exit = True


class _Connection(H11Protocol):
    """A connection that ends in time: uvicorn waits for ever for a request that never becomes whole."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._overdue = self.loop.call_later(_CONNECTION_SECONDS, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        super().connection_lost(exc)

    def _end(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # being answered, which the client may be slow to take
            self._overdue = self.loop.call_later(_CONNECTION_SECONDS, self.transport.abort)


class _Server(uvicorn.Server):
    """uvicorn that leaves the process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
