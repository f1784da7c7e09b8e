"""The gate of the `moderation` hook: the response's releases wait here until the request's verdict is known."""

from __future__ import annotations

from extproc.core.commands import ReleaseBody, ReleaseHeaders, ReleaseTrailers

Released = ReleaseHeaders | ReleaseBody | ReleaseTrailers


class Gate:
    """Keeps commands in order while it is closed."""

    __slots__ = ("_kept", "held", "is_closed")

    def __init__(self) -> None:
        """Begin open."""
        self._kept: list[Released] = []
        self.is_closed = False
        self.held = 0
        """The bytes of the bodies that wait."""

    @property
    def is_empty(self) -> bool:
        """Return whether no command waits."""
        return not self._kept

    def close(self) -> None:
        """Keep commands from now on."""
        self.is_closed = True

    def keep(self, command: Released) -> None:
        """Keep `command` behind those that already wait."""
        self._kept.append(command)
        if isinstance(command, ReleaseBody):
            self.held += len(command.data)

    def open(self) -> list[Released]:
        """Let commands pass from now on; return those that waited."""
        self.is_closed = False
        kept, self._kept = self._kept, []
        self.held = 0
        return kept
