"""A text that a stream says piece by piece: as the model said it, and as the client gets it."""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.core.redaction import RedactionError, is_json

_KEPT = 8 * 1024 * 1024
"""Characters of a stream's running texts that are kept, to know repeats, and arguments that a rewrite broke."""


@dataclass(slots=True)
class Budget:
    """Characters of running texts that a stream may still keep."""

    left: int = _KEPT


@dataclass(slots=True)
class RunningText:
    """A running text: as the model said it, and as the client gets it."""

    is_json: bool
    budget: Budget
    said: int = 0
    original: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    size: int = 0
    is_kept: bool = True
    is_rewritten: bool = False
    unsound_at: tuple[int, bool] = (-1, False)

    def say(self, text: str) -> None:
        """Note what the model said next."""
        self.said += len(text)
        self._keep(self.original, text)

    def release(self, text: str, *, is_rewritten: bool) -> None:
        """Note what the client gets next."""
        self._keep(self.released, text)
        self.is_rewritten |= is_rewritten
        if self.is_json and self.is_rewritten and not self.is_kept:
            raise RedactionError("redacted arguments are too long to be checked")

    def _keep(self, pieces: list[str], text: str) -> None:
        if not self.is_kept:
            return
        self.size += len(text)
        self.budget.left -= len(text)
        if self.budget.left < 0:
            self.forget()
        else:
            pieces.append(text)

    def forget(self) -> None:
        """Give back what is kept; from now on a repeat is a text of its own."""
        self.is_kept = False
        self.budget.left += self.size
        self.size = 0
        self.original.clear()
        self.released.clear()

    def repeats(self, text: str) -> bool:
        """Tell whether `text` is what the model has said."""
        return self.is_kept and self.said == len(text) and "".join(self.original) == text

    @property
    def is_unsound(self) -> bool:
        """Tell whether a program would get arguments that it cannot parse, as far as they have come."""
        if not (self.is_json and self.is_rewritten):
            return False
        if self.unsound_at[0] != len(self.released):  # asked for each event without text: parsed once as it grows
            self.unsound_at = (len(self.released), not is_json("".join(self.released)))
        return self.unsound_at[1]

    @property
    def is_broken(self) -> bool:
        """Tell whether a rewrite made them so."""
        return self.is_unsound and is_json("".join(self.original))
