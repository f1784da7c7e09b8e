"""The dialect of JSON on a path that no dialect knows: every string is text unless its place is known to be inert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from extproc.core.content.document import Document, Path, fields, items
from extproc.core.content.plain_text import PlainText
from extproc.core.dialects.base import Dialect, Leaf, Prompt, prompt
from extproc.core.errors import MalformedBody

_INERT_NAME = re.compile(r"id|.*_id|type|object|model|role|status|created.*|url|mime_type").fullmatch

_INERT_VALUE = re.compile(r"@?[A-Za-z0-9._:/+=%-]{1,256}").fullmatch


class Generic(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "generic"
    reads_answers = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return every string that is not inert."""
        return [prompt("user", leaf) for leaf in _texts(document.root, (), is_inert=False)]

    def answers(self, document: Document) -> list[Leaf]:
        """Return every string that is not inert."""
        return list(_texts(document.root, (), is_inert=False))

    def deltas(self, document: Document) -> list[Leaf]:
        """Return every string of one event that is not inert."""
        return self.answers(document)


def _texts(node: Any, path: Path, *, is_inert: bool) -> Iterator[Leaf]:
    if isinstance(node, str):
        if node and not (is_inert and _INERT_VALUE(node)):
            yield Leaf(path, node, place=path)
    elif isinstance(node, dict):
        for key, value in fields(node).items():
            yield from _texts(value, (*path, key), is_inert=_INERT_NAME(key) is not None)
    else:
        for position, value in enumerate(items(node)):
            yield from _texts(value, (*path, position), is_inert=is_inert)


def parsed(dialect: Dialect, text: str) -> Document:
    """Return `text` as a document of `dialect`. What is no JSON is one plain text for the generic dialect.

    Raises MalformedBody for other dialects.
    """
    try:
        return Document(text)
    except MalformedBody:
        if dialect.name != Generic.name:
            raise
        return PlainText(text)
