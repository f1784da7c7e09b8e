"""The marks of one session: the numbers of the submitted chunks, and what is known of Aim's use of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from extproc.core.chunk import MARK, mark_of


class Joins(Enum):
    """Which mark a chunk has that joins several texts. This is known once Aim has joined texts and changed none."""

    UNKNOWN = auto()
    FIRST = auto()
    LAST = auto()


class Marks:
    """Numbers the chunks of a session, and reads the marks of verified chunks."""

    __slots__ = ("_are_echoed", "joins", "last")

    def __init__(self) -> None:
        """Begin without chunks."""
        self._are_echoed: bool | None = None
        self.joins = Joins.UNKNOWN
        self.last = 0
        """The last mark that was given."""

    def give(self) -> int:
        """Return the mark of the next chunk."""
        self.last += 1
        return self.last

    def read(self, chunk: Mapping[str, Any]) -> int | None:
        """Return the mark of a verified chunk; None if it has none, or if the first one had none.

        Raises SessionViolation for a mark that was never given.
        """
        if self._are_echoed is None:
            self._are_echoed = chunk.get(MARK) is not None
        return mark_of(chunk, self.last) if self._are_echoed else None
