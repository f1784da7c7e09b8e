"""The end of a test's connection."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress


async def abort(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, and wait until it is closed: a loop that ends first would leave its socket open."""
    writer.transport.abort()
    with suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
