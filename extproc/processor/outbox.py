"""The messages for Envoy on one stream: in order, one at a time, and none after one that was lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import grpc
import structlog
from grpc.aio import ServicerContext

from extproc.core.commands import ImmediateResponse, ReleaseBody, ReleaseBuffered, Reset, ToEnvoy
from extproc.processor import wire
from extproc.telemetry.logs import log_internal_error
from extproc.telemetry.observation import Observation

BROKEN = (grpc.aio.BaseError, asyncio.InvalidStateError)
"""What reading and writing raise when Envoy is gone."""

_log = structlog.get_logger()


def broken(call_id: str, error: Exception) -> Reset:
    """Log that the stream broke; return with what to abort it."""
    _log.warning("stream_broken", call_id=call_id, type=type(error).__name__)
    return Reset("the stream broke")


class Outbox:
    """Messages that wait until Envoy takes them.

    The task that puts a message in calls `flush`. If another task is writing, that task writes the message too.
    """

    def __init__(self, context: ServicerContext[bytes, bytes], observation: Observation) -> None:
        """Write to `context`."""
        self._context = context
        self._observation = observation
        self._waiting: deque[ToEnvoy] = deque()
        self._is_writing = False
        self._settled: asyncio.Future[None] | None = None  # what `settled` waits for
        self.unsent = 0
        """Bytes of bodies that wait, also of the one that is being written."""
        self.reset: Reset | None = None
        """What the stream is to be aborted with: nothing is written any more."""

    @property
    def call_id(self) -> str:
        """The call id of the exchange, for the log."""
        return self._observation.record.call_id

    @property
    def is_due(self) -> bool:
        """Return whether something waits and no task writes."""
        return bool(self._waiting) and not self._is_writing

    @property
    def is_idle(self) -> bool:
        """Return whether nothing waits and no task writes."""
        return not self._waiting and not self._is_writing

    def put(self, command: ToEnvoy) -> None:
        """Add `command` to what waits, unless nothing is written any more."""
        if self.reset is not None:
            return
        self._waiting.append(command)
        self.unsent += _size(command)

    async def flush(self, sent: Callable[[], None]) -> None:
        """Write until nothing waits, unless a task does so already; call `sent` after each message but the last."""
        if self._is_writing:
            return
        self._is_writing = True
        waiting = self._waiting
        try:
            while waiting and self.reset is None:
                command = waiting.popleft()
                if isinstance(command, Reset):
                    _log.error("exchange_reset", call_id=self.call_id, problem=command.message)
                    self.reset = command
                    break
                if isinstance(command, ReleaseBody):
                    command = self._joined(command)
                try:
                    self._observation.released(command)
                    await self.send(command)
                finally:
                    self.unsent -= _size(command)
                if waiting:
                    sent()
        except BROKEN as error:
            self.reset = self.reset or broken(self.call_id, error)
        except Exception as error:
            log_internal_error(error)
            self.reset = self.reset or Reset("internal error")
        except BaseException:
            # The message that was taken out is lost, so nothing may be written after it.
            self.reset = Reset("cancelled")
            raise
        finally:
            self._is_writing = False
            if self.reset is not None:
                self._drop()
            if self._settled is not None and not self._settled.done():  # the task that waited may have been cancelled
                self._settled.set_result(None)

    def close(self) -> None:
        """Write nothing more, because the stream is over."""
        self.reset = self.reset or Reset("the stream is over")
        self._drop()

    def _drop(self) -> None:
        """Free what waits and will not be written any more."""
        self.unsent -= sum(map(_size, self._waiting))
        self._waiting.clear()

    async def settled(self) -> None:
        """Wait until no task writes."""
        if self._is_writing:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled

    async def send(self, command: ToEnvoy) -> None:
        """Write `command` now, with what is new in the record as dynamic metadata."""
        # Nothing is kept for a later message: if the client leaves before it, Envoy's access log would lack the facts.
        record = self._observation.record
        for message in wire.encode(command):
            if record.untold and record.dialect:
                message += wire.metadata(record.take_untold())
            await self._context.write(message)

    def _joined(self, first: ReleaseBody) -> ReleaseBody:
        """Join the first release of a body with those of the same body that wait right behind it."""
        waiting = self._waiting
        if not waiting:
            return first
        pieces, last = [first.data], first
        while waiting and isinstance(follower := waiting[0], ReleaseBody) and follower.leg is first.leg:
            pieces.append(follower.data)
            last = follower
            waiting.popleft()
        return first if last is first else ReleaseBody(first.leg, b"".join(pieces), last.end_of_stream)


def _size(command: ToEnvoy) -> int:
    """Return the bytes of the body that a message for Envoy carries."""
    # A match statement would take three times as long.
    if isinstance(command, ReleaseBody):
        return len(command.data)
    if isinstance(command, _WHOLE):
        return len(command.body or b"")
    return 0


_WHOLE = (ReleaseBuffered, ImmediateResponse)
