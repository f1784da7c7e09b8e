"""Starts and stops the demo's parts together, on free loopback ports: Aim, model, sidecar and Envoy."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from extproc.aim.transport import AiohttpTransport
from extproc.config.address import Address
from extproc.demo import DemoFailed, model
from extproc.demo.child import running
from extproc.demo.envoy import Envoy, running_envoy
from extproc.demo.observed import Observed
from extproc.demo.plan import Plan, ca_file
from extproc.demo.reach import require_free, require_reachable
from extproc.local_aim import policies, service
from extproc.local_aim.judge import Observer
from extproc.render.envoy import render_envoy
from extproc.render.upstream import Upstream

_HOST = "127.0.0.1"
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Chain:
    """The running parts; a client's base URL is `base_url`, and `aim` and `model` are URLs."""

    plan: Plan
    envoy: Envoy
    base_url: str
    sidecar_admin: str
    aim: str
    model: str
    observed: Observed
    http: httpx.AsyncClient

    @property
    def chat_url(self) -> str:
        """The URL of the model's chat completions."""
        return f"{self.base_url}/chat/completions"


@asynccontextmanager
async def running_chain(plan: Plan, binary: Path) -> AsyncIterator[Chain]:
    """Run all parts of `plan` while the context lasts, with the Envoy `binary`.

    Raises DemoFailed if a part cannot be started. If a part exits by itself, the context is cancelled and DemoFailed
    is raised in a group.
    """
    if plan.port:
        require_free(Address(host=_HOST, port=plan.port))
    if plan.is_gateway and plan.upstream is not None:
        await require_reachable(plan.upstream)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extproc-demo-")))
        observed = Observed(folder / "sidecar.log")
        aim = (
            plan.account.aim.base
            if plan.account
            else await stack.enter_async_context(_local_aim(None if plan.is_gateway else observed.on_analysis))
        )
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=AiohttpTransport(), trust_env=False, timeout=_PROBE_SECONDS)
        )
        listen, admin = free_addresses(2)
        # The sidecar takes longest to start: start it first and wait for it later.
        sidecar = await stack.enter_async_context(
            running(
                "sidecar",
                [sys.executable, "-m", "extproc", "serve"],
                folder,
                plan.environment(listen, admin, aim),
            )
        )
        upstream = plan.upstream
        if upstream is None:
            on_request = None if plan.is_gateway else observed.on_request
            port = await stack.enter_async_context(model.listening(Address(host=_HOST, port=0), on_request))
            upstream = Upstream.parse(f"http://{_HOST}:{port}")
        anywhere = Address(host=_HOST, port=0)
        text = render_envoy(
            plan.settings(listen),
            listen=Address(host=_HOST, port=plan.port),
            upstreams=plan.routes(upstream),
            admin=anywhere,
            ca_file=ca_file(),
        )
        envoy = await stack.enter_async_context(running_envoy(binary, text, folder, http))
        await sidecar.when_ready(functools.partial(_is_ok, http, f"http://{admin}/readyz"))
        # An uninspected request through all parts, so that every connection is open before the first scene.
        if plan.upstream is None and not await _is_ok(http, f"{envoy.url}/healthz"):
            raise DemoFailed("a request through Envoy and the sidecar does not reach the demo model")
        yield Chain(
            plan,
            envoy,
            envoy.url + plan.base_path,
            f"http://{admin}",
            aim,
            upstream.url,
            observed,
            http,
        )


def free_addresses(count: int) -> list[Address]:
    """Return `count` free loopback addresses."""
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    try:
        return [Address(host=_HOST, port=each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def _local_aim(on_analysis: Observer | None) -> AsyncIterator[str]:
    # The screen shows what this service would log.
    logging.getLogger(service.__name__).addHandler(logging.NullHandler())
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(
            service.serve(_HOST, 0, policies.load(), on_analysis=on_analysis, on_ready=ready.set_result)
        )
        yield f"http://{_HOST}:{await ready}"
        serving.cancel()


async def _is_ok(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.HTTPError:
        return False
