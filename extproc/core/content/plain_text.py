"""A body, or a part of one, that is one text and not JSON."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.core.content.document import Document, Edit, Path


class PlainText(Document):
    """A document whose root is its text. It has one place, which is the root."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        """Take `text` as it is."""
        self.text = text
        self.root = text

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the new text at the root. Half of a surrogate pair, which UTF-8 cannot have, becomes `?`."""
        return (edits[()] or "").encode("utf-8", "replace").decode()
