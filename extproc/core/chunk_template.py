"""A chat chunk that differs from an earlier one only in its text: nothing else of it has to be read again."""

from __future__ import annotations

import re
from typing import Self

from extproc.core.content.document import Document
from extproc.core.dialects.leaf import Leaf

_PLAIN = re.compile(r'"([^"\\\x00-\x1f]+)"').fullmatch
"""A JSON string that spells itself."""


class ChunkTemplate:
    """The bytes around the text of a chunk, and the place of that text."""

    __slots__ = ("_after", "_before", "_leaf")

    def __init__(self, before: str, after: str, leaf: Leaf) -> None:
        """Expect chunks that begin and end so; `leaf` is the text of the chunk from which this was taken."""
        self._before = before
        self._after = after
        self._leaf = leaf

    @classmethod
    def of(cls, document: Document, leaves: list[Leaf]) -> Self | None:
        """Return the template of a chunk with these leaves; None if it has more to read than the delta of a choice."""
        if len(leaves) != 1 or (leaf := leaves[0]).index is None or leaf != _plain(leaf, leaf.text):
            return None
        start, end = document.span(leaf.path)
        return cls(document.text[:start], document.text[end:], leaf)

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
