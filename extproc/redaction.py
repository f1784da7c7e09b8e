"""Putting Aim's redactions back into the places that the texts came from; any doubt refuses."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.dialects.base import Leaf
from extproc.document import Document, Path
from extproc.errors import ExtprocError, MalformedBody


class RedactionError(ExtprocError):
    """A redaction that cannot be put back; what it was to hide must not go on."""


def edits(redacted: Sequence[tuple[Leaf | None, str | None]]) -> dict[Path, str | None]:
    """Return the edits that put each text in its leaf's place; pairs without a leaf had no text to redact.

    Raises RedactionError where a text is missing, cannot be changed, or breaks arguments that were JSON, and when
    nothing would change: what Aim found is then in a place that was not sent as text.
    """
    changes: dict[Path, str | None] = {}
    for leaf, text in redacted:
        if leaf is None:
            continue
        if text is None:
            raise RedactionError("a redacted text is missing")
        if text == leaf.text:
            continue
        if leaf.fixed:
            raise RedactionError("a text that cannot be changed was to be redacted")
        if leaf.is_json and _is_json(leaf.text) and not _is_json(text):
            raise RedactionError("redacted arguments are no longer JSON")
        changes[leaf.path] = text
        if leaf.drop_when_rewritten is not None:
            changes[leaf.drop_when_rewritten] = None
    if not changes:
        raise RedactionError("a redaction changes nothing")
    return changes


def _is_json(text: str) -> bool:
    try:
        Document(text)
    except MalformedBody:
        return False
    return True
