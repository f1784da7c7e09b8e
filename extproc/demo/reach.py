"""Checks that the demo's port is free and that its upstream answers, and says in words what is wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx

from extproc.aim.transport import AiohttpTransport
from extproc.check.network import describe
from extproc.config.address import Address, unaddressed
from extproc.demo import DemoFailed
from extproc.demo.plan import ca_file
from extproc.render.upstream import Upstream

_SECONDS = 10.0


def require_free(address: Address) -> None:
    """Raise DemoFailed if nothing can listen on `address`. (Several Envoys may share a port without an error.)"""
    try:
        socket.create_server((address.host, address.port)).close()
    except OSError as error:
        why = f"cannot listen on {address}: {unaddressed(error)}"
        raise DemoFailed(f"{why}. Stop what listens there, or choose another --port.") from error


async def require_reachable(upstream: Upstream) -> None:
    """Send a GET request to `upstream`, without a key; raises DemoFailed unless there is an answer, of any status."""
    file = ca_file()
    try:
        tls = ssl.create_default_context(cafile=file) if upstream.scheme == "https" else None
    except OSError as error:
        raise DemoFailed(f"SSL_CERT_FILE: {file} holds no certificates that can be used.") from error
    try:
        async with asyncio.timeout(_SECONDS), AiohttpTransport(tls) as transport:
            answer = await transport.handle_async_request(httpx.Request("GET", upstream.url))
            await answer.aclose()
    except (TimeoutError, httpx.TransportError) as failure:
        what, _ = describe(failure, upstream.url, limit=f"{_SECONDS:g} s")
        trust = "" if upstream.scheme == "http" else " SSL_CERT_FILE names a file of further CA certificates."
        raise DemoFailed(f"{upstream.url} cannot be reached: {what}. Check --upstream.{trust}") from failure
