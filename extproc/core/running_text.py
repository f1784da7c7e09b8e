"""A text that a stream sends in pieces: as the model said it, and as the client gets it."""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.core.redaction import RedactionError, is_json

_KEPT = 8 * 1024 * 1024
"""Characters of a stream's running texts that are kept, to recognise repeats and arguments that a rewrite broke."""

_PIECE_BYTES = 64
"""The memory that a kept piece takes in addition to its characters."""


@dataclass(slots=True)
class Budget:
    """The number of characters of running texts that a stream may still keep."""

    left: int = _KEPT
    held: int = 0
    """The memory that the kept pieces take, in bytes."""


@dataclass(slots=True)
class RunningText:
    """A running text: as the model said it, and as the client gets it."""

    is_json: bool
    budget: Budget
    said: int = 0
    original: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    size: int = 0
    held: int = 0
    is_kept: bool = True
    is_rewritten: bool = False
    unsound_at: tuple[int, bool] = (-1, False)

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
        self.size = self.held = 0
        self.original.clear()
        self.released.clear()

    def repeats(self, text: str) -> bool:
        """Return whether `text` equals what the model has said."""
        return self.is_kept and self.said == len(text) and "".join(self.original) == text

    @property
    def is_unsound(self) -> bool:
        """Return whether the released arguments were rewritten and are, so far, no valid JSON."""
        if not (self.is_json and self.is_rewritten):
            return False
        if self.unsound_at[0] != len(self.released):  # this is read for each event without text: parse once per growth
            self.unsound_at = (len(self.released), not is_json("".join(self.released)))
        return self.unsound_at[1]

    @property
    def is_broken(self) -> bool:
        """Return whether a rewrite made valid arguments invalid."""
        return self.is_unsound and is_json("".join(self.original))
