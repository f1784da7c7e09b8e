"""Documents with other JSON in them, for tests that plant more than a string."""

from __future__ import annotations

import json
from collections.abc import Mapping

from extproc.core.content.document import Document, Path


class Raw(str):
    """A JSON text."""

    __slots__ = ()


Edit = str | None
"""The new value at a place: a string, None for `null`, or any JSON text as `Raw`."""


def edited(document: Document, edits: Mapping[Path, Edit]) -> str:
    """Return the text of a document with other values at some places. Everything else stays."""
    marks = {path: f"planted JSON {number}" for number, path in enumerate(edits) if isinstance(edits[path], Raw)}
    text = document.rewrite({**edits, **marks})
    for path, mark in marks.items():
        text = text.replace(json.dumps(mark), edits[path] or "")
    return text
