"""How far Aim has come in the texts of one choice index, if it returns no marks.

This is found by comparing what Aim said with what it got since it last said a text unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from extproc.core.marks import Marks
from extproc.core.progress import MOST_CHARACTERS, MOST_TEXTS, Submission, joined, submitted


class _Said(NamedTuple):
    """A text whose place was taken, and what Aim said there."""

    text: str
    raw: str
    given: str


class UnmarkedProgress:
    """How far an Aim that returns no marks has come since it last said a text unchanged."""

    __slots__ = ("_marks", "_newest", "_said")

    def __init__(self, marks: Marks) -> None:
        """Begin where Aim has said all texts whose places were taken."""
        self._marks = marks
        self._newest = 0
        self._said: list[_Said] = []

    @property
    def is_level(self) -> bool:
        """Return whether there is nothing to remember."""
        return not self._said

    def hear(self, text: str, places: Sequence[Submission]) -> None:
        """Record a verified text that took some `places`."""
        whole = joined(places)
        if not text or whole == text:
            self._said.clear()
            return
        self._newest = self._marks.last
        self._said.append(_Said(whole, "".join(place.raw for place in places), text))
        if (
            len(self._said) > MOST_TEXTS
            or sum(len(said.raw) + len(said.given) for said in self._said) > MOST_CHARACTERS
        ):
            self._said.clear()

    def left(self, waiting: Sequence[Submission]) -> tuple[int, str]:
        """Return how many waiting texts Aim has said, and the spelling of what it has not said although its place was
        taken.
        """
        said = self._said
        given = "".join(one.given for one in said)
        split = (count for count in range(1, len(said)) if "".join(one.text for one in said[:count]) == given)
        settled = next(split, len(said))  # one text was split if Aim said no more than the texts before
        texts = [*(one.text for one in said), *submitted(waiting, self._newest)]
        reached = max(settled, _reached(texts, given, settled))
        return max(0, reached - len(said)), "".join(one.raw for one in said[reached:])


def _reached(texts: list[str], given: str, settled: int) -> int:
    """Return how many of `texts` are in `given`, which Aim said of them. The first `settled` were settled by it.

    A text that is in it as it was tells how far Aim was; between such texts something was rewritten.
    """
    position = count = 0
    for number, text in enumerate(texts):
        if number == count and given.startswith(text, position):
            found = position
        elif number < settled or number > count:
            found = given.find(text, position + 1)
        else:
            continue
        if found >= 0:
            position, count = found + len(text), number + 1
    return min(len(texts), count + (position < len(given)))
