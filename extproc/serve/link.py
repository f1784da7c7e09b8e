"""What ties a worker to its supervisor: a socket pair, through which each sees at once that the other is gone.

The worker says whether it is ready and, when it is asked, what the status page shows of it; the supervisor asks, and
tells it to read the settings again. Both ends are the same
program under the same user, and nobody else holds one: values travel pickled.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
from contextlib import suppress

_SIZE_BYTES = 4

SNAPSHOT = "snapshot"
"""The supervisor asks what the status page shows of the worker."""

RELOAD = "reload"
"""The supervisor has the worker read its settings again."""


class Link:
    """One end; messages go either way, and keep their order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk through these streams."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """Return the link whose end is `end`, which is closed if there can be none."""
        try:
            end.setblocking(False)
            return cls(*await asyncio.open_connection(sock=end))
        except BaseException:
            end.close()
            raise

    @classmethod
    async def to_supervisor(cls) -> Link:
        """Return the worker's end, which it was given as its standard input; raises OSError where it was not."""
        return await cls.over(socket.socket(fileno=os.dup(0)))

    def send(self, message: object) -> None:
        """Send a message; one to a peer that is gone is lost."""
        data = pickle.dumps(message)
        with suppress(RuntimeError):  # uvloop's word for a connection that is lost
            self._writer.write(len(data).to_bytes(_SIZE_BYTES) + data)

    async def receive(self) -> object:
        """Return the next message; raises EOFError when the peer is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_SIZE_BYTES))
            return pickle.loads(await self._reader.readexactly(size))  # noqa: S301 - from our own other end
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError from error

    def close(self) -> None:
        """Leave; the peer sees the end."""
        self._writer.close()
