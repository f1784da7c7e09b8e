"""Texts of several places that are one text for Aim, each beginning a line.

There may be hundreds of thousands of them. So the place of each is kept in as little memory as possible, and becomes a
leaf only if a redaction changes the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

from extproc.core.content.document import Path
from extproc.core.dialects.leaf import Leaf

At = tuple[Any, ...]
"""A place as (the place around it, its key or index). The outermost place is (None, its path)."""


def path_of(at: At) -> Path:
    """Return the path of a place."""
    steps: list[str | int] = []
    while at[0] is not None:
        steps.append(at[1])
        at = at[0]
    steps.reverse()
    return (*at[1], *steps)


class Parts(Sequence[Leaf]):
    """The leaves of joined texts; each is made when it is read.

    `first` has the numbers of the texts at which a row of `places` begins. A row is a leaf, or the place of one text,
    with a third value if it cannot be rewritten, or a list and the indices of the texts in it.
    """

    __slots__ = ("_first", "_places", "mark", "prefix", "texts")

    def __init__(self, texts: list[str], first: list[int], places: list[Leaf | At]) -> None:
        """Take the texts and their places."""
        self.texts = texts
        self._first = first
        self._places = places
        self.prefix: Path = ()
        self.mark: Callable[[Leaf], None] | None = None
        """Completes a leaf."""

    def within(self, step: str | int) -> Parts:
        """Return the parts as those of a document that is number `step` of several."""
        parts = Parts(self.texts, self._first, self._places)
        parts.prefix, parts.mark = (step, *self.prefix), self.mark
        return parts

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    @overload
    def __getitem__(self, number: int) -> Leaf: ...

    @overload
    def __getitem__(self, number: slice) -> list[Leaf]: ...

    def __getitem__(self, number: int | slice) -> Leaf | list[Leaf]:
        """Return the leaf of a text, or of several."""
        if isinstance(number, slice):
            return list(map(self._leaf, range(*number.indices(len(self.texts)))))
        if number < 0 or number >= len(self.texts):
            raise IndexError("a text that was not joined")
        return self._leaf(number)

    def __iter__(self) -> Iterator[Leaf]:
        """Return the leaves in order."""
        return map(self._leaf, range(len(self.texts)))

    def _leaf(self, number: int) -> Leaf:
        row = bisect_right(self._first, number) - 1
        place = self._places[row]
        if isinstance(place, Leaf):
            leaf = replace(place)
        elif place[0] is None or isinstance(place[1], str | int):
            leaf = Leaf(path_of(place), self.texts[number], fixed=len(place) > 2)
        else:
            leaf = Leaf(path_of((place[0], place[1][number - self._first[row]])), self.texts[number])
        if self.mark is not None:
            self.mark(leaf)
        if self.prefix:
            leaf.path = (*self.prefix, *leaf.path)
            leaf.emptied = tuple((*self.prefix, *path) for path in leaf.emptied)
            if isinstance(leaf.parts, Parts):  # joined texts may be joined again
                for step in reversed(self.prefix):
                    leaf.parts = leaf.parts.within(step)
        return leaf


class Joined:
    """Collects texts that are one for Aim."""

    __slots__ = ("_first", "_places", "locates", "texts")

    def __init__(self, *, locates: bool) -> None:
        """Begin empty; keep the places of the texts if `locates`."""
        self.locates = locates
        self.texts: list[str] = []
        self._first: list[int] = []
        self._places: list[Leaf | At] = []

    def add(self, leaf: Leaf) -> None:
        """Append a text."""
        if self.locates:
            self.mark(leaf)
        self.texts.append(leaf.text)

    def add_text(self, text: str, at: At) -> None:
        """Append the text at a place."""
        if self.locates:
            self.mark(at)
        self.texts.append(text)

    def mark(self, place: Leaf | At) -> None:
        """Record where the texts are that will be appended next; see `Parts`."""
        self._first.append(len(self.texts))
        self._places.append(place)

    def add_strings(self, nodes: list[str], at: At, indices: Sequence[int]) -> None:
        """Append the strings of the list at a place that are not empty; their `indices` in it are given."""
        said = list(filter(None, nodes))
        if self.locates and said:
            if len(said) < len(nodes):
                indices = [index for index, node in zip(indices, nodes, strict=True) if node]
            self.mark((at, indices))
        self.texts += said

    def __bool__(self) -> bool:
        """Return whether there is a text."""
        return bool(self.texts)

    @property
    def parts(self) -> Parts:
        """The texts with their places."""
        return Parts(self.texts, self._first, self._places)

    def leaf(self) -> Leaf:
        """Return the joined text."""
        if self.locates and len(self.texts) == 1:
            return self.parts[0]
        return Leaf((), "\n".join(self.texts), is_joined=True, parts=self.parts if self.locates else ())
