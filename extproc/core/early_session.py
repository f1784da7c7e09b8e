"""The session that is opened before the model answers, so that its handshake does not delay the client."""

from __future__ import annotations

from extproc.core.commands import CloseSession, OpenSession
from extproc.core.context import Context
from extproc.core.errors import Reason
from extproc.core.events import FromSession, SessionFailed, StreamBlocked
from extproc.core.verdict import Block
from extproc.core.vocabulary import Hook, Leg


class EarlySession:
    """The session of a request that asks for an event stream, until the stream arrives and takes it."""

    __slots__ = ("_context", "_session", "failure")

    def __init__(self, context: Context) -> None:
        """Begin without a session."""
        self._context = context
        self._session: int | None = None
        self.failure: Reason | None = None
        """Why there is no session although one was opened, if the stream must not open another."""

    def open(self) -> None:
        """Open the session."""
        self._context.inspection.was_read = True
        self._session = self._context.number()
        self._context.emit(OpenSession(self._session))

    def take(self) -> int | None:
        """Give up the session and return its number; return None if there is none."""
        session, self._session = self._session, None
        return session

    def close(self) -> None:
        """Close the session: no stream will take it."""
        session = self.take()
        if session is not None:
            self._context.emit(CloseSession(session))

    def handle(self, event: FromSession) -> None:
        """Record what happened to the session; ignore an event of another one."""
        if event.session != self._session:
            return
        if isinstance(event, StreamBlocked):
            self._context.report(Leg.RESPONSE, Hook.OUTPUT, [Block()], event.milliseconds)
            self._context.refuse_blocked(Leg.RESPONSE, event.message)
        elif isinstance(event, SessionFailed) and event.opened:
            self._session = None  # lost while unused: the stream opens another
        else:
            self.failure = event.reason if isinstance(event, SessionFailed) else Reason.SESSION
            self.close()
