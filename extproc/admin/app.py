"""The admin app: liveness, readiness, metrics and the status page, of one serving process or of all workers."""

from __future__ import annotations

import asyncio
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from extproc.admin import host
from extproc.admin.page import HEADERS, page
from extproc.config.settings import Settings
from extproc.telemetry.metrics import add_process
from extproc.telemetry.snapshot import Snapshot

_UNKNOWN_HOST = "This name is not in admin_hosts. An IP address works.\n"

_CLOSE = {"connection": "close"}
"""One request per connection: a client that sends many at once would keep the process busy with their answers."""


class Subject(Protocol):
    """What the admin app reports on: a serving process, or the supervisor of several."""

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
        """Return whether exchanges may be sent here."""
        ...

    async def snapshot(self) -> Snapshot:
        """Return what the status page shows now."""
        ...


def admin_app(subject: Subject) -> Starlette:
    """Return an app that shows `subject`, without secrets; it adds metrics of the process to its registry."""
    add_process(subject.registry, lambda: subject.is_ready, lambda: subject.settings)

    # However many ask, exchanges have their turn after each of these answers, which take milliseconds.
    costly = asyncio.Lock()

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_CLOSE)

    async def readyz(_: Request) -> Response:
        is_ready = subject.is_ready
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503, _CLOSE)

    # Health and readiness are a word each, so that probes may use any name.
    def is_known(request: Request) -> bool:
        return host.is_known(request.headers.get("host"), subject.settings.admin_hosts)

    async def metrics(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse(_UNKNOWN_HOST, 421, _CLOSE)
        async with costly:
            text = generate_latest(subject.registry)
            await asyncio.sleep(0)
        return Response(text, headers=_CLOSE, media_type=CONTENT_TYPE_LATEST)

    async def status_page(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse(_UNKNOWN_HOST, 421, _CLOSE)
        is_paused = "paused" in request.query_params
        snapshot = await subject.snapshot()
        async with costly:
            text = page(snapshot, subject.settings, is_paused=is_paused)
            await asyncio.sleep(0)
        return HTMLResponse(text, headers={**HEADERS, **_CLOSE})

    return Starlette(
        routes=[
            Route("/", status_page),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )
