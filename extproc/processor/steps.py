"""The events that one exchange handles in the thread for documents, and those that wait meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from extproc.core.commands import Command
from extproc.core.events import BodyReceived, ChunkVerified, Event, VerdictReached
from extproc.core.verdict import Anonymize

HEAVY_BYTES: Final = 65_536
"""An event is handled in the thread if more bytes than this are read to handle it."""

_Found = list[Command] | Exception


class Steps:
    """The step that the thread has of one exchange: nothing else may touch the exchange until it ends."""

    def __init__(
        self, thread: Executor, handle: Callable[[Event, float], list[Command]], on_end: Callable[[_Found], None]
    ) -> None:
        """Let `thread` call `handle`; its commands, or its exception, go to `on_end` on the event loop."""
        self._thread = thread
        self._handle = handle
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._step: asyncio.Future[_Found] | None = None
        self._step_bytes = 0
        self._waiting: deque[Event] = deque()
        # Attributes, not properties: every event of every exchange asks for them.
        self.is_under_way = False
        """Whether the thread has a step, or will have it."""
        self.is_busy = False
        """Whether an event must wait."""
        self.held = 0
        """Bytes of the events that wait, and those that the step adds to what the exchange holds."""

    def begin(self, event: Event, added: int) -> None:
        """Let the thread handle an event, which adds `added` bytes or its own to what the exchange holds."""
        self._step_bytes = max(_size(event), added)
        self.held += self._step_bytes
        self.is_under_way = self.is_busy = True
        self._step = self._loop.run_in_executor(self._thread, self._take, event)
        self._step.add_done_callback(self._on_done)

    def _take(self, event: Event) -> _Found:
        """Handle an event, in the thread. The clocks of the exchange start from now: the thread may have been busy."""
        try:
            return self._handle(event, self._loop.time())
        except Exception as error:
            return error

    def _on_done(self, step: asyncio.Future[_Found]) -> None:
        if step is self._step:  # nobody has left it
            self._release()  # from now on the exchange counts what the step has added
            self._on_end(RuntimeError("the thread has ended") if step.cancelled() else step.result())

    def end(self) -> None:
        """Note that all that followed from the step was done: what waits may be handled."""
        self._step = None
        self._release()
        self.is_under_way = False
        self.is_busy = bool(self._waiting)

    def _release(self) -> None:
        self.held -= self._step_bytes
        self._step_bytes = 0

    def wait(self, event: Event) -> None:
        """Keep an event until those before it were handled."""
        self.is_busy = True
        self._waiting.append(event)
        self.held += _size(event)

    def next(self) -> Event | None:
        """Remove and return the next event that waits; None if there is none, or a step is under way."""
        if self._step is not None or not self._waiting:
            return None
        event = self._waiting.popleft()
        self.held -= _size(event)
        self.is_busy = bool(self._waiting)
        return event

    async def settled(self) -> None:
        """Wait until no step is under way. The step goes on if this is cancelled."""
        while self._step is not None:
            await asyncio.wait((self._step,))

    def leave(self) -> None:
        """Forget the step and what waits. A step that has not begun never will; what another finds is ignored."""
        if self._step is not None:
            self._step.cancel()
        self._waiting.clear()
        self.end()
        self.held = 0
        self._on_end = _ignore  # it may refer to what refers to this


def _ignore(_: _Found) -> None:
    """Stand in for a callback that nobody needs."""


def _size(event: Event) -> int:
    """Return how many bytes of bodies or texts an event has."""
    match event:
        case BodyReceived():
            return len(event.data)
        case ChunkVerified():
            return sum(len(text or "") for _, text in event.texts)
        case VerdictReached():
            redactions = (outcome.texts for outcome in event.outcomes if isinstance(outcome, Anonymize))
            return sum(len(text or "") for texts in redactions for text in texts)
        case _:
            return 0
