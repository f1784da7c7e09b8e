"""A text that is no JSON, but may be JSON for a more lenient reader, which takes a repeated key or a trailing comma.

Such a reader decodes the escapes in strings, so Aim reads them decoded, as in arguments. A redaction may change nothing
but strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.core.content.arguments import Misfit, decode, put_back, replace_strings
from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document, Edit, Path, PlainText
from extproc.core.errors import MalformedBody


class LenientText(PlainText):
    """Such a text as a part of a body: `root` is the text with its escapes decoded, and the only place is the root."""

    __slots__ = ()

    def __init__(self, text: str, values: int = MAX_VALUES) -> None:
        """Take `text`, with its escapes."""
        super().__init__(text, values)
        self.root = self._read_root()

    def _read_root(self) -> Any:
        """Return the text with its escapes decoded."""
        return decode(self.text)

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the text with the new strings at the path `()`, escaped again.

        Raises KeyError for other paths, and MalformedBody if more than strings would change.
        """
        new = edits.get((), self.root)
        try:
            changes = put_back(self.text, new or "")
        except Misfit as error:
            raise MalformedBody("a redaction changes more than the strings of a text") from error
        return super().rewrite({**edits, (): replace_strings(self.text, changes)})


def with_escapes_decoded(document: Document) -> Document:
    """Return a part of a body; a plain text with its escapes decoded."""
    return LenientText(document.text) if type(document) is PlainText and "\\" in document.text else document
