"""The link between a worker and its supervisor: a socket pair, so that each notices at once when the other has ended.

A message is its length in four bytes, then JSON.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator, TypeAdapter, ValidationError

from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.snapshot import Snapshot

_SIZE_BYTES = 4


@dataclass(frozen=True, slots=True)
class ReadinessChanged:
    """From a worker: it became ready, or is no longer ready."""

    is_ready: bool
    kind: Literal["readiness_changed"] = "readiness_changed"


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """From a worker: the answer to TakeSnapshot."""

    snapshot: Snapshot
    kind: Literal["snapshot_taken"] = "snapshot_taken"


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """From the supervisor: send what the status page shows of the worker."""

    kind: Literal["take_snapshot"] = "take_snapshot"


@dataclass(frozen=True, slots=True)
class Reload:
    """From the supervisor: read the settings again."""

    kind: Literal["reload"] = "reload"


@dataclass(frozen=True, slots=True)
class Beat:
    """From the supervisor: are you alive? From a worker: yes."""

    kind: Literal["beat"] = "beat"


Message = ReadinessChanged | SnapshotTaken | TakeSnapshot | Reload | Beat

_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Discriminator("kind")])


class Link:
    """One end of the link. Messages go both ways and keep their order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send and receive through these streams."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """Return the link over the socket `end`. On failure, close the socket."""
        try:
            end.setblocking(False)
            return cls(*await asyncio.open_connection(sock=end))
        except BaseException:
            end.close()
            raise

    @classmethod
    async def to_supervisor(cls) -> Link:
        """Return the worker's end, its standard input; raises OSError if that is not a socket."""
        return await cls.over(socket.socket(fileno=os.dup(0)))

    def send(self, message: Message) -> None:
        """Send a message; it is lost if the peer is gone."""
        data = _MESSAGE.dump_json(message)
        with suppress(RuntimeError):  # uvloop raises this when the connection is lost
            self._writer.write(len(data).to_bytes(_SIZE_BYTES) + data)

    async def receive(self) -> Message:
        """Return the next message; raises EOFError when the peer is gone.

        A malformed message is a bug, but must not end a process: it is logged and skipped.
        """
        while True:
            try:
                size = int.from_bytes(await self._reader.readexactly(_SIZE_BYTES))
                data = await self._reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise EOFError from error
            try:
                return _MESSAGE.validate_json(data)
            except ValidationError as error:
                log_internal_error(error)

    def close(self) -> None:
        """Close this end; the peer sees it at once."""
        self._writer.close()
