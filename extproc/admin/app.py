"""The admin app: liveness, readiness, metrics and the status page, of one serving process or of all workers."""

from __future__ import annotations

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

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if subject.is_ready else PlainTextResponse("not ready\n", 503)

    # Health and readiness are a word each, so that probes may use any name.
    def is_known(request: Request) -> bool:
        return host.is_known(request.headers.get("host"), subject.settings.admin_hosts)

    async def metrics(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse(_UNKNOWN_HOST, 421)
        return Response(generate_latest(subject.registry), media_type=CONTENT_TYPE_LATEST)

    async def status_page(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse(_UNKNOWN_HOST, 421)
        is_paused = "paused" in request.query_params
        text = page(await subject.snapshot(), subject.settings, is_paused=is_paused)
        return HTMLResponse(text, headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", status_page),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )
