"""Texts of several places that are one text for Aim, each beginning a line.

There may be hundreds of thousands of them. So the place of each is kept in as little memory as possible, and becomes a
leaf only if a redaction changes the text.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import compress
from typing import overload

from extproc.core.content.document import Path
from extproc.core.dialects.leaf import Leaf

NOWHERE = -1
"""The place around an outermost one, and any place while places are not kept."""


class Places:
    """Where joined texts are, in a few bytes for each.

    A place is a number. It is either outermost, with a path, or at a key or an index of the place around it. A row says
    where one or more texts are: the first of them is at a key or an index of a place, those behind it at the following
    indices.
    """

    __slots__ = ("_around", "_first", "_fixed", "_keys", "_leaves", "_paths", "_rows", "_steps", "_to")

    def __init__(self) -> None:
        """Begin without places."""
        self._keys: list[str] = []
        self._paths: list[Path] = []
        # Of each place: the place around it, and an index, the number of a path, or `~` the number of a key.
        self._around = array("i")
        self._steps = array("i")
        # Of each row: the number of its first text, the place around it, and an index, or `~` the number of a key.
        self._first = array("i")
        self._rows = array("i")
        self._to = array("i")
        self._fixed: set[int] = set()  # rows whose texts cannot be rewritten
        self._leaves: dict[int, Leaf] = {}  # rows whose texts are leaves already

    def outermost(self, path: Path) -> int:
        """Return a new place at `path`."""
        self._paths.append(path)
        return self.within(NOWHERE, len(self._paths) - 1)

    def within(self, around: int, step: str | int) -> int:
        """Return a new place at a key or an index of the place `around` it."""
        self._around.append(around)
        self._steps.append(step if isinstance(step, int) else self._number(step))
        return len(self._around) - 1

    def _number(self, key: str) -> int:
        self._keys.append(key)
        return -len(self._keys)

    def add_row(self, first: int, around: int, step: str | int, *, fixed: bool = False) -> None:
        """Record that the text number `first` is at a key or an index of a place, and those after it behind it."""
        if fixed:
            self._fixed.add(len(self._first))
        self._first.append(first)
        self._rows.append(around)
        self._to.append(step if isinstance(step, int) else self._number(step))

    def add_leaf(self, first: int, leaf: Leaf) -> None:
        """Record that the text number `first` is that of a leaf."""
        self._leaves[len(self._first)] = leaf
        self.add_row(first, NOWHERE, 0)

    def leaf(self, number: int, text: str) -> Leaf:
        """Return the leaf of a text by its number."""
        row = bisect_right(self._first, number) - 1
        leaf = self._leaves.get(row)
        if leaf is not None:
            return replace(leaf)
        to = self._to[row]
        last = self._keys[~to] if to < 0 else to + number - self._first[row]
        return Leaf((*self._path(self._rows[row]), last), text, fixed=row in self._fixed)

    def _path(self, place: int) -> Path:
        steps: list[str | int] = []
        while self._around[place] != NOWHERE:
            step = self._steps[place]
            steps.append(self._keys[~step] if step < 0 else step)
            place = self._around[place]
        steps.reverse()
        return (*self._paths[self._steps[place]], *steps)

    def path(self, around: int, step: str | int) -> Path:
        """Return the path of a key or an index of a place."""
        return (*self._path(around), step)


class Parts(Sequence[Leaf]):
    """The leaves of joined texts; each is made when it is read."""

    __slots__ = ("_places", "mark", "prefix", "texts")

    def __init__(self, texts: list[str], places: Places) -> None:
        """Take the texts and their places."""
        self.texts = texts
        self._places = places
        self.prefix: Path = ()
        self.mark: Callable[[Leaf], None] | None = None
        """Completes a leaf."""

    def within(self, step: str | int) -> Parts:
        """Return the parts as those of a document that is number `step` of several."""
        parts = Parts(self.texts, self._places)
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
        leaf = self._places.leaf(number, self.texts[number])
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

    __slots__ = ("locates", "places", "texts")

    def __init__(self, *, locates: bool) -> None:
        """Begin empty; keep the places of the texts if `locates`."""
        self.locates = locates
        self.texts: list[str] = []
        self.places = Places() if locates else _NO_PLACES

    def outermost(self, path: Path) -> int:
        """Return the place at `path`."""
        return self.places.outermost(path) if self.locates else NOWHERE

    def add(self, leaf: Leaf) -> None:
        """Append a text."""
        if self.locates:
            self.places.add_leaf(len(self.texts), leaf)
        self.texts.append(leaf.text)

    def add_text(self, text: str, around: int, step: str | int, *, fixed: bool = False) -> None:
        """Append the text at a key or an index of a place. A `fixed` one cannot be rewritten."""
        if self.locates:
            self.places.add_row(len(self.texts), around, step, fixed=fixed)
        self.texts.append(text)

    def add_strings(self, nodes: list[str], around: int, indices: Sequence[int]) -> None:
        """Append the strings of a list at a place that are not empty; their `indices` in it are given."""
        if self.locates:
            self._add_rows(around, indices if all(nodes) else list(compress(indices, nodes)))
        self.texts += filter(None, nodes)

    def _add_rows(self, around: int, indices: Sequence[int]) -> None:
        """Record where strings are: a row for each run of indices."""
        first = len(self.texts)
        if not indices:
            return
        if indices[-1] - indices[0] == len(indices) - 1:
            self.places.add_row(first, around, indices[0])
            return
        following = None
        for number, index in enumerate(indices, first):
            if index != following:
                self.places.add_row(number, around, index)
            following = index + 1

    def __bool__(self) -> bool:
        """Return whether there is a text."""
        return bool(self.texts)

    @property
    def parts(self) -> Parts:
        """The texts with their places."""
        return Parts(self.texts, self.places)

    def leaf(self) -> Leaf:
        """Return the joined text."""
        if self.locates and len(self.texts) == 1:
            return self.parts[0]
        return Leaf((), "\n".join(self.texts), is_joined=True, parts=self.parts if self.locates else ())


_NO_PLACES = Places()
"""What joined texts have that are not located."""
