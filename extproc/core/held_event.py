"""An event of a stream that is held, and its texts that wait for Aim."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import blake2b

from extproc.core.content.document import Document, Edit, Path
from extproc.core.content.framing import Unit
from extproc.core.dialects.leaf import Leaf
from extproc.core.progress import Submission
from extproc.core.running_text import RunningText

LONG_NAME = 64
"""The longest id or place, in characters, that is kept unchanged. The upstream chooses their length."""


@dataclass(slots=True, eq=False)
class HeldEvent:
    """An event that is held.

    `waiting` is the number of its texts that Aim has not verified. `edits` are what Aim has rewritten, `echoes` the
    running texts that it repeats or signs, and `tokens` the places of tokens. `more` are the bytes that follow it and
    hold no data. `cost` is the memory that it takes, in bytes.
    """

    unit: Unit
    document: Document | None = None
    waiting: int = 0
    located: list[Leaf] | None = None
    has_text: bool = False
    edits: dict[Path, Edit] = field(default_factory=dict)
    echoes: list[tuple[Leaf, RunningText]] = field(default_factory=list)
    tokens: tuple[Leaf, ...] = ()
    is_final: bool = False
    sequence: int | None = None
    more: bytearray = field(default_factory=bytearray)
    cost: int = 0


@dataclass(slots=True, eq=False)
class Piece:
    """A piece of a call's arguments: its spelling up to the last whole escape, and the rest."""

    event: HeldEvent
    leaf: Leaf
    spelling: str
    cut: str


@dataclass(slots=True, eq=False)
class HeldText(Submission):
    """A waiting text: its event, its place, and the running text that it continues.

    `lenders` are the pieces that end within the escape with which this text begins.
    """

    event: HeldEvent
    leaf: Leaf
    running: RunningText | None
    piece: Piece | None = None
    lenders: tuple[Piece, ...] = ()


def short_place(place: Hashable) -> Hashable:
    """Return a place or unit of bounded size that identifies it. It may contain the upstream's own keys."""
    for step in place if isinstance(place, tuple) else (place,):
        if isinstance(step, str) and len(step) > LONG_NAME:
            return blake2b(repr(place).encode("utf-8", "surrogatepass")).digest()
    return place
