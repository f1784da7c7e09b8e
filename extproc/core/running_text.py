"""A text that a stream sends in pieces: as the model said it, and as the client gets it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from extproc.core.content.document import Document
from extproc.core.content.escapes import Nesting
from extproc.core.errors import ContentError
from extproc.core.redaction import RedactionError, is_json

_KEPT = 8 * 1024 * 1024
"""Characters of a stream's running texts that are kept, to recognise repeats and arguments that a rewrite broke."""

_PIECE_BYTES = 80
"""The memory that a kept piece takes in addition to its characters."""

_TEXT_BYTES = 800
"""The memory that a running text takes in addition to its pieces."""


@dataclass(slots=True)
class Budget:
    """The number of characters of running texts that a stream may still keep."""

    left: int = _KEPT
    held: int = 0
    """The memory that the kept pieces take, in bytes."""


@dataclass(slots=True, eq=False)
class RunningText:
    """A running text: as the model said it, and as the client gets it. Arguments are kept in their JSON spelling."""

    is_json: bool
    budget: Budget
    said: int = 0
    original: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    rest: str = ""
    """The beginning of an escape at the end of the text. It is released as it is, because nothing completes it."""
    size: int = 0
    held: int = 0
    is_kept: bool = True
    is_rewritten: bool = False
    is_interrupted: bool = False
    """Whether something else stood in its place between two pieces, so that Aim did not read these as one text."""
    _nesting: Nesting = field(default_factory=Nesting)
    _read: int = 0
    _is_sound: bool | None = None

    def say(self, text: str) -> None:
        """Append what the model said."""
        self.said += len(text)
        self._keep(self.original, text)

    def release(self, text: str, *, is_rewritten: bool) -> None:
        """Append what the client gets; raise RedactionError if rewritten arguments are too long to be checked."""
        self._keep(self.released, text)
        self.is_rewritten |= is_rewritten
        if self.is_json and self.is_rewritten and not self.is_kept:
            raise RedactionError("redacted arguments are too long to be checked")

    def _keep(self, pieces: list[str], text: str) -> None:
        if not self.is_kept:
            return
        self.size += len(text)
        self.budget.left -= len(text)
        self.held += len(text) + _PIECE_BYTES
        self.budget.held += len(text) + _PIECE_BYTES
        if self.budget.left < 0:
            self.forget()
        else:
            pieces.append(text)

    def forget(self) -> None:
        """Free what is kept. From now on a repeat counts as a separate text."""
        self.is_kept = False
        self.budget.left += self.size
        self.budget.held -= self.held
        self.size = self.held = self._read = 0
        self.original.clear()
        self.released.clear()

    def repeats(self, text: str) -> bool:
        """Return whether `text` equals what the model has said, and Aim has read it in one piece."""
        return self.is_kept and not self.is_interrupted and self.said == len(text) and "".join(self.original) == text

    @property
    def spelling(self) -> str:
        """The text that the client gets."""
        return "".join(self.released) + self.rest

    @property
    def ends_in_string(self) -> bool:
        """Return whether the released arguments end inside of a string."""
        return self._follow().in_string

    def _follow(self) -> Nesting:
        """Read the pieces that were released since the last call: none is read twice."""
        for piece in self.released[self._read :]:
            self._nesting.feed(piece)
        self._read = len(self.released)
        return self._nesting

    @property
    def is_unsound(self) -> bool:
        """Return whether the released arguments were rewritten and are, so far, no whole JSON object or array."""
        if not (self.is_json and self.is_rewritten):
            return False
        nesting = self._follow()
        if nesting.is_over or not nesting.is_closed:
            return True
        if self._is_sound is None:  # only white space may follow, so they are parsed once
            self._is_sound = is_json("".join(self.released))
        return not self._is_sound

    @property
    def is_broken(self) -> bool:
        """Return whether a rewrite made valid arguments invalid, or gave them another structure."""
        if not (self.is_json and self.is_rewritten):
            return False
        said = _structure("".join(self.original))
        return said is not None and said != _structure(self.spelling)

    def breaks_with(self, rest: str) -> bool:
        """Return whether rewritten arguments are broken if `rest`, unchanged, is the next that the client gets."""
        if not (self.is_json and self.is_rewritten):
            return False
        said, given = "".join(self.original), self.spelling + rest
        before, after = Nesting(), Nesting()
        before.feed(said)
        after.feed(given)
        if (before.in_string, before.depth) != (after.in_string, after.depth):
            return True
        structure = _structure(said)
        return structure is not None and structure != _structure(given)


class RunningTexts:
    """The running texts of one stream, by place."""

    __slots__ = ("_budget", "_texts", "_unsound")

    def __init__(self) -> None:
        """Begin without texts."""
        self._texts: dict[Hashable, RunningText] = {}
        self._unsound: dict[int, RunningText] = {}
        self._budget = Budget()

    def get(self, place: Hashable) -> RunningText | None:
        """Return the running text of a place."""
        return self._texts.get(place)

    def begin(self, place: Hashable, *, is_json: bool) -> RunningText:
        """Return a new running text; the one that the place had is forgotten."""
        former = self._texts.get(place)
        if former is not None:
            former.forget()
            self._unsound.pop(id(former), None)
        text = self._texts[place] = RunningText(is_json, self._budget, held=_TEXT_BYTES)
        self._budget.held += _TEXT_BYTES
        return text

    def release(self, text: RunningText, spelling: str, *, is_rewritten: bool) -> None:
        """Record what the client gets; raise RedactionError if rewritten arguments are too long to be checked."""
        text.release(spelling, is_rewritten=is_rewritten)
        if text.is_unsound:
            self._unsound[id(text)] = text
        elif self._unsound:
            self._unsound.pop(id(text), None)

    def __iter__(self) -> Iterator[RunningText]:
        """Yield the texts."""
        return iter(self._texts.values())

    @property
    def held(self) -> int:
        """The memory that the kept texts take, in bytes."""
        return self._budget.held

    @property
    def are_sound(self) -> bool:
        """Return whether all rewritten arguments are, so far, a whole JSON object or array."""
        return not self._unsound

    def clear(self) -> None:
        """Forget everything."""
        self._texts.clear()
        self._unsound.clear()
        self._budget.held = 0


def _structure(text: str) -> Any:
    """Return a JSON text without its strings and numbers; None if it is no JSON."""
    try:
        return _shape(Document(text).root)
    except ContentError:
        return None


def _shape(node: Any) -> Any:
    if isinstance(node, dict):
        return ("{}", *map(_shape, node.values()))
    if isinstance(node, list):
        return ("[]", *map(_shape, node))
    return ""
