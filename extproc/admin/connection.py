"""A connection to the admin port, with a bounded lifetime.

uvicorn itself waits without limit for the rest of a request, and for a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 15.0
"""The lifetime of a connection, and the additional time to read an answer. Probes and scrapes open new connections."""


class Connection(asyncio.Protocol):
    """Forwards the events of a connection to uvicorn's protocol, and ends the connection in time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Create uvicorn's protocol with these arguments."""
        self._http = H11Protocol(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection and its deadline."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are not a subclass of it
        self._call_later(lambda: self._close(stream))
        self._http.connection_made(stream)

    def _close(self, transport: asyncio.Transport) -> None:
        # Closing still sends the rest of the answer, and the client may read it slowly.
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
        """Forward data."""
        self._http.data_received(data)

    def eof_received(self) -> None:
        """Forward the end of the client's data."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Forward that the client reads slowly."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Forward that the client has caught up."""
        self._http.resume_writing()
