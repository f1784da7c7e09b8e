"""What a stream that fails open passes on after the events that were held."""

from __future__ import annotations

from extproc.core.release_queue import ReleaseQueue
from extproc.core.stream_input import StreamInput


class OpenedRest:
    """Passes on the rest of a stream. It is read on if Aim has rewritten a text, because later events may repeat it."""

    __slots__ = ("_input", "_queue")

    def __init__(self, queue: ReleaseQueue, source: StreamInput) -> None:
        """Pass on what `source` has not yielded yet."""
        self._queue: ReleaseQueue | None = queue
        self._input = source
        if not queue.is_altered:
            queue.drop()
            self._queue = None

    def pass_on(self, data: bytes) -> bytes:
        """Return what may leave, decoded, of the next bytes.

        Raises ContentError for a broken content-encoding. An event that may repeat what Aim has rewritten raises
        ContentError or RedactionError.
        """
        queue = self._queue
        if data:
            self._input.add(data)
        if queue is None:
            return self._input.take_rest()
        return b"".join(map(queue.pass_on, self._input.all_units()))
