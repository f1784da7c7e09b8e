"""A connection to the admin port, with a bounded lifetime and a place among a bounded number.

uvicorn itself waits without limit for the rest of a request, and for a client that does not read its answer. It would
also refuse a probe while strangers hold all the connections that it allows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 15.0
"""The lifetime of a connection, and the additional time to read an answer. Probes and scrapes open new connections."""


class Crowd:
    """The open connections of a port.

    A new connection is always served. If there are more than `most`, the oldest connection of the peer that has the
    most is closed. So a peer can take the places of its own connections, but not that of a probe from another address.
    A probe from the same address sends its request at once, long before its connection is the oldest.
    """

    def __init__(self, most: int) -> None:
        """Keep at most `most` connections."""
        self._most = most
        self._peers: dict[asyncio.Transport, str] = {}  # in the order of their arrival
        self._counts: Counter[str] = Counter()

    def enter(self, transport: asyncio.Transport) -> None:
        """Add a connection, and abort another one if there are too many."""
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if name else ""
        self._peers[transport] = peer
        self._counts[peer] += 1
        if len(self._peers) > self._most:
            greediest, _ = self._counts.most_common(1)[0]
            oldest = next(each for each, its_peer in self._peers.items() if its_peer == greediest)
            self.leave(oldest)
            oldest.abort()

    def leave(self, transport: asyncio.Transport) -> None:
        """Remove a connection, unless it was removed before."""
        peer = self._peers.pop(transport, None)
        if peer is not None:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]


class Connection(asyncio.Protocol):
    """Forwards the events of a connection to uvicorn's protocol, and ends the connection in time."""

    def __init__(self, crowd: Crowd, *arguments: Any, **options: Any) -> None:
        """Create uvicorn's protocol with these arguments, for a connection among `crowd`."""
        self._crowd = crowd
        self._http = H11Protocol(*arguments, **options)
        self._stream: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection and its deadline."""
        stream = cast(asyncio.Transport, transport)  # uvloop's transports are not a subclass of it
        self._stream = stream
        self._call_later(lambda: self._close(stream))
        self._http.connection_made(stream)
        self._crowd.enter(stream)

    def _close(self, transport: asyncio.Transport) -> None:
        # Closing still sends the rest of the answer, and the client may read it slowly.
        self._call_later(transport.abort)
        transport.close()

    def _call_later(self, callback: Callable[[], None]) -> None:
        self._deadline = asyncio.get_running_loop().call_later(_SECONDS, callback)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline, and free the place."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._stream is not None:
            self._crowd.leave(self._stream)
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
