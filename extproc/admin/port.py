"""The admin port: an HTTP server within the process. It does not handle the process's signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from extproc.admin.connection import Connection, Crowd
from extproc.config.address import Address, unaddressed
from extproc.core.errors import SettingsError

_CONNECTIONS = 256
"""The most connections at once: the listener for Envoy needs file descriptors too."""


@asynccontextmanager
async def listening(app: ASGIApp, address: Address) -> AsyncIterator[None]:
    """Serve `app` on `address` within the context; raises SettingsError if it cannot listen."""
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise SettingsError([f"admin: cannot listen on {address}: {unaddressed(error)}"]) from error
    # asyncio sets it only on sockets with an explicit protocol. Without it every answer waits for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        http=cast(type[asyncio.Protocol], partial(Connection, Crowd(_CONNECTIONS))),  # uvicorn only calls it
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(server, listener))
        try:
            yield
        finally:
            server.should_exit = server.force_exit = True


async def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run `server` until it should exit.

    `Server.serve` takes the same steps, but also handles SIGTERM and SIGINT, which cannot be switched off. Here these
    signals start a drain, during which the port keeps answering.
    """
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    await server.main_loop()
    await server.shutdown(sockets=[listener])
