"""Applies Aim's redactions to the documents that the texts came from, or raises RedactionError in case of doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable

from extproc.core.content.document import Document, Edit, Path, Raw
from extproc.core.dialects.base import Leaf
from extproc.core.errors import ExtprocError, MalformedBody

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: JSON can contain it, UTF-8 cannot."""


class RedactionError(ExtprocError):
    """A redaction that cannot be applied. The text that it should hide must not be released."""


def edits(redacted: Iterable[tuple[Leaf | None, str | None]]) -> dict[Path, Edit]:
    """Return the edits that replace each leaf's text by its redacted text. A pair without a leaf needs no edit.

    Raises RedactionError if a text is missing, cannot be changed, or breaks arguments that were JSON. It also raises if
    nothing would change: Aim then found something in a place that was not sent as text.
    """
    changes: dict[Path, Edit] = {}
    for leaf, text in redacted:
        if leaf is None:
            continue
        if text is None:
            raise RedactionError("a redacted text is missing")
        if text != leaf.text:
            if leaf.is_json and not leaf.is_embedded and is_json(leaf.text) and not is_json(text):
                raise RedactionError("redacted arguments are no longer JSON")
            changes |= rewrite(leaf, text)
    if not changes:
        raise RedactionError("a redaction changes nothing")
    return changes


def rewrite(leaf: Leaf, text: str) -> dict[Path, Edit]:
    """Return the edits that give `leaf` another text, and that remove what still shows or signs the old one.

    Raises RedactionError for a text that cannot be changed, and for an object whose new text is not an object.
    """
    if leaf.fixed:
        raise RedactionError("a redacted text cannot be changed")
    changes: dict[Path, Edit] = dict.fromkeys(leaf.emptied, "")
    changes |= dict.fromkeys(leaf.nulled)
    if leaf.is_embedded:
        if not text.lstrip().startswith("{") or not is_json(text):
            raise RedactionError("a redacted object is no longer an object")
        text = Raw(_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
    changes[leaf.path] = text
    return changes


def is_json(text: str) -> bool:
    """Return whether `text` is one JSON value."""
    try:
        Document(text)
    except MalformedBody:
        return False
    return True
