"""An answer that takes the place of what Aim has blocked: a whole document, or the events that complete a stream.

An object belongs to one exchange. It is told the documents that were released to the client, and from them it knows
what a running stream still lacks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, auto
from sys import getsizeof
from typing import Any

DONE = "[DONE]"
"""The mark of the end, which is no JSON."""

Event = tuple[str, Any]
"""The name of an event, which may be empty, and its JSON value or `DONE`."""

MOST_KEPT = 1_048_576
"""The most bytes of a running stream's texts that an answer keeps, because its last events repeat them."""

_LONGEST_NAME = 512
_MOST_CHOICES = 128
_LARGEST = 2**53


class Frames(Enum):
    """What the frames of an AWS event stream hold."""

    PARTS = auto()
    """pieces of another stream: Amazon SageMaker"""
    NAMED = auto()
    """an event each, whose name is in the headers: Bedrock's Converse"""
    CHUNKS = auto()
    """an event each, in base64: Bedrock's InvokeModel"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer tells of its exchange. `created` is in seconds since 1970; `path` is the client's."""

    call_id: str
    model: str
    created: int
    path: str = ""

    @property
    def created_at(self) -> str:
        """The same time as RFC 3339 writes it."""
        days, seconds = divmod(self.created, 86_400)
        # The days of a year that begins in March, so that a leap day is its last.
        era, day = divmod(days + 719_468, 146_097)
        year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
        day -= 365 * year + year // 4 - year // 100
        month = (5 * day + 2) // 153
        date = (400 * era + year + (month > 9), month + 3 - 12 * (month > 9), day - (153 * month + 2) // 5 + 1)
        time = (seconds // 3600, seconds // 60 % 60, seconds % 60)
        return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*date, *time)


class BlockAnswer(ABC):
    """The answer of one exchange."""

    frames = Frames.PARTS

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        self.facts = facts

    @property
    def kept(self) -> int:
        """The bytes of released texts that are kept."""
        return 0

    @abstractmethod
    def follow(self, root: Any) -> None:
        """Take note of a document of the stream that was released. It may be any JSON value."""
        ...

    @abstractmethod
    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer with the message as its text."""
        ...

    @abstractmethod
    def rest(self, message: str) -> list[Event]:
        """Return the events that complete the stream: all of one if nothing was released.

        What is open is closed, the message follows, and the end says why.
        """
        ...


class Choices:
    """The choices of a stream, by index, and whether each has ended."""

    __slots__ = ("_ended",)

    def __init__(self) -> None:
        """Begin without a choice."""
        self._ended: dict[int, bool] = {}

    def see(self, index: Any, *, has_ended: bool) -> None:
        """Take note of a piece of a choice. One without an index is the first."""
        known = number(index) or 0
        if known in self._ended or len(self._ended) < _MOST_CHOICES:
            self._ended[known] = has_ended or self._ended.get(known, False)

    def __contains__(self, index: int) -> bool:
        """Return whether a piece of the choice was released."""
        return index in self._ended

    @property
    def open(self) -> list[int]:
        """The choices that get the message: those that have not ended, or else all, or else the first."""
        return [each for each, has_ended in self._ended.items() if not has_ended] or list(self._ended) or [0]


class Pieces:
    """A text that arrives in pieces. Of a text of more than `MOST_KEPT` bytes nothing is kept."""

    __slots__ = ("_is_long", "_pieces", "kept")

    def __init__(self) -> None:
        """Begin with an empty text."""
        self._pieces: list[str] = []
        self._is_long = False
        self.kept = 0

    def add(self, text: Any) -> None:
        """Append a piece, if it is a string."""
        if not isinstance(text, str) or not text or self._is_long:
            return
        self.kept += getsizeof(text)
        self._pieces.append(text)
        if self.kept > MOST_KEPT:
            self._is_long = True
            self._pieces.clear()
            self.kept = 0

    def replace(self, text: Any) -> None:
        """Take another text in place of all pieces."""
        self._pieces.clear()
        self._is_long = False
        self.kept = 0
        self.add(text)

    @property
    def text(self) -> str:
        """The whole text; empty if it was too long."""
        return "".join(self._pieces)


def number(value: Any) -> int | None:
    """Return a value that is an index or a count; None for any other."""
    return value if type(value) is int and 0 <= value < _LARGEST else None


def name(value: Any, other: str) -> str:
    """Return a name of the upstream, such as an id; `other` for what is none."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME else other
