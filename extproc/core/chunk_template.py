"""Chat chunks that differ from an earlier one only in their text: nothing else of them has to be read again."""

from __future__ import annotations

import re
from typing import Self

from extproc.core.content.document import Document
from extproc.core.dialects.leaf import Leaf

_PLAIN = re.compile(r'"([^"\\\x00-\x1f]+)"').fullmatch
"""A JSON string that spells itself."""


_LONG = 4096
"""The most characters around a text that a template keeps."""

_USELESS = 8
"""After so many templates in a row that no chunk had, none is made any more: some servers write padding into each."""


class ChunkTemplates:
    """The template of a stream's last chunk, as long as templates are of use."""

    __slots__ = ("_template", "_useless")

    def __init__(self) -> None:
        """Begin without a template."""
        self._template: ChunkTemplate | None = None
        self._useless = 0

    def read(self, data: str) -> Leaf | None:
        """Return the text of a chunk like the last one; None for any other."""
        if self._template is None or (leaf := self._template.read(data)) is None:
            return None
        self._useless = 0
        return leaf

    def learn(self, document: Document, leaves: list[Leaf]) -> None:
        """Expect chunks like this one, which has these leaves, if it has nothing else to read."""
        if self._useless < _USELESS and (template := ChunkTemplate.of(document, leaves)) is not None:
            self._template = template
            self._useless += 1

    def forget(self) -> None:
        """Expect no chunk any more."""
        self._template = None


class ChunkTemplate:
    """The bytes around the text of a chunk, and the place of that text."""

    __slots__ = ("_after", "_before", "_leaf")

    def __init__(self, before: str, after: str, leaf: Leaf) -> None:
        """Expect chunks that begin and end so, with a text at the place of `leaf`."""
        self._before = before
        self._after = after
        self._leaf = leaf

    @classmethod
    def of(cls, document: Document, leaves: list[Leaf]) -> Self | None:
        """Return the template of a chunk with these leaves; None if it has more to read than the delta of a choice."""
        if len(leaves) != 1 or (leaf := leaves[0]).index is None or leaf != _plain(leaf, leaf.text):
            return None
        start, end = document.span(leaf.path)
        if start + len(document.text) - end > _LONG:
            return None
        return cls(document.text[:start], document.text[end:], _plain(leaf, ""))

    def read(self, data: str) -> Leaf | None:
        """Return the text of a chunk; None unless all other bytes are those of the template."""
        before, after = self._before, self._after
        if not (data.startswith(before) and data.endswith(after)):
            return None
        text = _PLAIN(data, len(before), len(data) - len(after))
        if text is None:
            return None
        return _plain(self._leaf, text[1])


def _plain(leaf: Leaf, text: str) -> Leaf:
    """Return a text at the place of `leaf` that is not written in any special way."""
    return Leaf(leaf.path, text, leaf.place, leaf.index, unit=leaf.unit)
