"""Collects the texts of large values that are one text for Aim, for a fraction of the time of a walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.joined import NOWHERE, Joined
from extproc.core.dialects.table import Place, Table
from extproc.core.errors import MalformedBody

SOURCE = "source"
"""The key of an object with media whose type may stand beside it, as in the documents of Bedrock."""

_STRINGS = {str}
_NULL = {type(None)}
_NUMBERS = {int, float, bool, *_NULL}


class Gatherer:
    """Appends the texts of values to joined texts: the same texts as a walk would.

    It raises MalformedBody for a number in place of a text and for a disguised key, as a walk does.
    """

    __slots__ = ("_into", "_is_request", "_locates", "_table", "_texts", "_walk")

    def __init__(
        self,
        table: Table,
        into: Joined,
        walk: Callable[[Any, Place, Path, Mapping[str, Any]], None],
        *,
        is_request: bool,
    ) -> None:
        """Gather `into` joined texts by `table`; `walk` reads other values, with the object around them."""
        self._table = table
        self._into = into
        self._texts = into.texts
        self._locates = into.locates
        self._walk = walk
        self._is_request = is_request

    def gather_list(self, nodes: list[Any], place: Place, path: Path, first: int) -> None:
        """Append the texts of the entries of a list from the index `first` on."""
        self._list(nodes[first:] if first else nodes, place, self._into.outermost(path), first)

    def gather_fields(self, node: Mapping[str, Any], place: Place, path: Path) -> None:
        """Append the texts of an object."""
        self._fields(node, place, self._into.outermost(path))

    def _within(self, around: int, step: str | int) -> int:
        return self._into.places.within(around, step) if self._locates else NOWHERE

    def _value(self, node: Any, place: Place, around: int, step: str | int) -> None:
        """Read the value at a key or an index of the place `around` it."""
        kind = type(node)
        if kind is str:
            if node:
                self._into.add_text(node, around, step)
        elif kind is list:
            self._list(node, place, self._within(around, step), 0)
        elif kind is dict:
            self._fields(node, place, self._within(around, step))
        elif place.needs_text and node is not None:
            raise MalformedBody("a number instead of a text")

    def _list(self, nodes: list[Any], place: Place, at: int, first: int) -> None:
        while len(nodes) == 1 and type(nodes[0]) is list:  # as in deep nests
            at = self._within(at, first)
            nodes, first = nodes[0], 0
        if len(nodes) == 1:
            self._value(nodes[0], place, at, first)
            return
        kinds = set(map(type, nodes))
        if kinds == _STRINGS:
            self._into.add_strings(nodes, at, range(first, first + len(nodes)))
        elif not kinds <= _NUMBERS:
            for index, value in enumerate(nodes, first):
                self._value(value, place, at, index)
        elif place.needs_text and kinds - _NULL:
            raise MalformedBody("token numbers instead of a text")

    def _fields(self, node: Mapping[str, Any], place: Place, at: int) -> None:
        children, find, texts, locates = place.children, self._table.find, self._texts, self._locates
        if place.folded and self._is_request and any(map(place.is_disguise, node.keys() - children.keys())):
            raise MalformedBody("a key in another letter case")
        for key, value in node.items():
            child = children.get(key) or find(key) or self._read_key(key, at)
            kind = type(value)
            if kind is str:
                if child.is_plain:
                    if value:
                        if locates:
                            self._into.places.add_row(len(texts), at, key)
                        texts.append(value)
                elif not child.is_inert or not looks_inert(value):
                    self._walk(value, child, self._path(at, key), node)
            elif kind in _NUMBERS:
                if child.needs_text and value is not None:
                    raise MalformedBody("a number instead of a text")
            elif child.is_plain and key != SOURCE:
                self._value(value, child, at, key)
            else:
                self._walk(value, child, self._path(at, key), node)

    def _path(self, around: int, step: str | int) -> Path:
        return self._into.places.path(around, step) if self._locates else ()

    def _read_key(self, key: str, at: int) -> Place:
        """Read a key that does not look like one; return its place."""
        self._into.add_text(key, at, key, fixed=True)
        return self._table.name(key)
