"""The opening of a websocket to Aim: the library connects, through a proxy if there is one, and shakes hands."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from io import BytesIO
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.protocol import State

from extproc.aim import protocol
from extproc.aim.connection import Socket
from extproc.aim.names import Names
from extproc.aim.network import Network
from extproc.core.errors import DetectionTimeout, DetectionUnavailable, Reason


class Opening(ClientConnection):
    """The library's connection during the opening handshake. A `Socket` takes over once the websocket is open.

    The library makes an instance of this class because `create_connection` says so. The class overrides what the event
    loop calls on every `asyncio.Protocol`, and nothing of the library's own.
    """

    def __init__(self, frames: ClientProtocol, **options: Any) -> None:
        """Create a connection as the library does."""
        super().__init__(frames, **options)
        self.frames = frames
        self._carrier: asyncio.Transport | None = None
        self._rest = b""  # what arrived behind the response to the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._carrier = cast(asyncio.Transport, transport)  # uvloop's transports are not a subclass of it

    def data_received(self, data: bytes) -> None:
        """Give the library the lines of the response, the last of which opens the websocket, and keep the rest."""
        lines = BytesIO(data)
        while self.state is not State.OPEN and (line := lines.readline()):
            super().data_received(line)
        if self.state is State.OPEN:
            assert self._carrier is not None
            self._carrier.pause_reading()
            self._rest += lines.read()

    def hand_over(self, socket: Socket) -> None:
        """Let `socket`, which has `frames`, carry the messages from now on."""
        assert self._carrier is not None
        self._carrier.set_protocol(socket)
        socket.connection_made(self._carrier)
        if self.state is not State.OPEN:
            socket.connection_lost(None)
            return
        if self._rest:
            socket.data_received(self._rest)
        self._carrier.resume_reading()


class _Connect(connect):
    """A connection that follows no redirect, so that Aim's key goes only to the address in the settings."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def open_websocket(
    url: str, headers: list[tuple[str, str]], *, network: Network, names: Names, seconds: float, frame_bytes: int
) -> Opening:
    """Connect to `url` within `seconds`, and return once the websocket is open for messages of at most `frame_bytes`.

    Raises DetectionError.
    """
    # The library encodes header values as latin-1. This makes them UTF-8, as over REST.
    fields = [(name, value.encode().decode("latin-1")) for name, value in headers]
    try:
        async with asyncio.timeout(seconds):
            *others, last = await network.routes(url, names)
            for route in others:
                with suppress(OSError):
                    return await _connect(url, fields, network, frame_bytes, route)
            return await _connect(url, fields, network, frame_bytes, last)
    except TimeoutError as error:
        raise DetectionTimeout("Aim's session did not open in time") from error
    except InvalidStatus as error:
        raise protocol.session_refused(error.response.status_code) from _bare(error)
    except (WebSocketException, OSError, EOFError) as error:
        raise DetectionUnavailable(Reason.UNREACHABLE, "Aim's session could not be opened") from _bare(error)


async def _connect(
    url: str, fields: list[tuple[str, str]], network: Network, frame_bytes: int, route: dict[str, Any]
) -> Opening:
    opening = await _Connect(
        url,
        create_connection=Opening,
        additional_headers=fields,
        user_agent_header=None,
        compression=None,  # costs CPU and memory for each stream, and saves little
        ssl=network.tls_for(url),
        open_timeout=None,
        ping_interval=None,  # the socket's own pings do not depend on a pong in time
        max_size=frame_bytes,
        **route,
    )
    assert isinstance(opening, Opening)
    return opening


def _bare(error: Exception) -> Exception:
    """Return `error` without its traceback: websockets keeps it, and with it the objects in its frames."""
    return error.with_traceback(None)
