"""A connection to the admin port, with a bounded life.

uvicorn waits without limit for a request that never becomes complete, and for a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 15.0
"""The life of a connection, and how much longer an answer may take to be read: each probe and scrape connects anew."""


class Connection(asyncio.Protocol):
    """Passes what happens on a connection to uvicorn's protocol, and ends the connection in time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take the arguments of uvicorn's protocol."""
        self._http = H11Protocol(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection and its deadline."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass
        self._call_later(lambda: self._close(stream))
        self._http.connection_made(stream)

    def _close(self, transport: asyncio.Transport) -> None:
        # Closing still sends what was written, which the client may be slow to read.
        self._call_later(transport.abort)
        transport.close()

    def _call_later(self, callback: Callable[[], None]) -> None:
        self._deadline = asyncio.get_running_loop().call_later(_SECONDS, callback)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._http.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on."""
        self._http.data_received(data)

    def eof_received(self) -> None:
        """Pass the end of the client's data on."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the client is slow."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client caught up."""
        self._http.resume_writing()
