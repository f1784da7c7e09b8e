"""The session of a streamed answer, from when the stream takes it."""

from __future__ import annotations

from extproc.core.commands import CloseSession, OpenSession, SubmitChunk, SubmitDone
from extproc.core.context import Context

_REOPENINGS = 1
"""How often a session is opened again if it was lost before any text was submitted."""


class StreamSession:
    """Submits the chunks of one stream."""

    __slots__ = ("_context", "_reopenings", "awaits_text", "is_late", "number")

    def __init__(self, context: Context, *, is_late: bool = False) -> None:
        """Begin without a session. One that `is_late` is opened for the first text."""
        self._context = context
        self._reopenings = _REOPENINGS
        self.is_late = is_late
        self.awaits_text = False
        """Whether the next text opens a session."""
        self.number: int | None = None
        """The number of the session; None if there is none."""

    def begin(self, number: int | None) -> None:
        """Use a session that was opened in advance; open one if there is none, unless it is late."""
        self.number = number
        self.awaits_text = number is None and self.is_late
        if number is None and not self.is_late:
            self._open()

    def await_text(self) -> None:
        """Forget a session that was lost while no text waited; the next text opens another one."""
        self.number = None
        self.awaits_text = True

    def _open(self) -> None:
        self.awaits_text = False
        self._context.inspection.was_read = True
        self.number = self._context.number()
        self._context.emit(OpenSession(self.number))

    def reopen(self) -> bool:
        """Open another session in place of a lost one; return False if that was done before."""
        if not self._reopenings:
            return False
        self._reopenings -= 1
        self._open()
        return True

    def submit(self, chunk: str) -> None:
        """Submit a chunk, as JSON, to the session that was begun. A late one is opened for its first chunk."""
        if self.awaits_text:
            self._open()
        assert self.number is not None
        self._context.emit(SubmitChunk(self.number, chunk))

    def submit_done(self) -> None:
        """Tell Aim that no chunk follows."""
        assert self.number is not None
        self._context.emit(SubmitDone(self.number))

    def leave(self) -> None:
        """Close the session if there is one; none is opened any more."""
        self.awaits_text = False
        if self.number is not None:
            self._context.emit(CloseSession(self.number))
            self.number = None
