"""What a stream that fails open passes on after the events that were held."""

from __future__ import annotations

from extproc.core.context import Context
from extproc.core.errors import ContentError
from extproc.core.redaction import RedactionError
from extproc.core.refusal import failed, redaction_failed
from extproc.core.release_queue import ReleaseQueue
from extproc.core.stream_input import StreamInput
from extproc.core.vocabulary import RESPONSE


class OpenedRest:
    """Passes on the rest of a stream. It is read on if Aim has rewritten a text, because later events may repeat it."""

    __slots__ = ("_context", "_input", "_queue")

    def __init__(self, context: Context, queue: ReleaseQueue, source: StreamInput) -> None:
        """Pass on what `source` has not yielded yet."""
        self._context = context
        self._queue: ReleaseQueue | None = queue
        self._input = source
        if not queue.is_altered:
            queue.drop()
            self._queue = None

    def pass_on(self, data: bytes) -> bytes | None:
        """Return what may leave, decoded, of the next bytes; refuse the stream and return None if nothing may."""
        queue, source = self._queue, self._input
        if data:
            source.add(data)
        try:
            return source.take_rest() if queue is None else b"".join(map(queue.pass_on, source.all_units()))
        except (ContentError, RedactionError) as error:
            if source.is_broken and isinstance(error, ContentError):
                self._context.refuse(failed(RESPONSE, error.reason))
            else:
                # What cannot be read may repeat what Aim has rewritten.
                self._context.refuse(redaction_failed(RESPONSE))
            return None
