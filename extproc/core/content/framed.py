"""A whole body of several documents: an event stream or JSON lines that were held to their end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from extproc.core.content.census import has_more_values
from extproc.core.content.document import Document, Edit, Path
from extproc.core.content.framing import Framing, Unit, decoder_of
from extproc.core.errors import BodyTooLarge

_UNIT_BYTES = 256
"""The memory that a document takes in addition to its bytes and its text."""

_UNIT_VALUES = 4
"""The values that each line of a body counts for, because a document costs more than a value."""

Parse = Callable[[Unit], Document | None]
"""Returns the document of a unit, None if it has none."""


class FramedDocument(Document):
    """The documents of a body as one. A path begins with the number of a document."""

    __slots__ = ("_framing", "_parse", "_units", "documents", "is_cleaned")

    def __init__(self, text: str, values: int, framing: Framing, parse: Parse) -> None:
        """Cut `text` into documents.

        Raises MalformedBody for a body that is not in the framing, BodyTooLarge for one with more than `values` values.
        """
        if has_more_values(text, values - _UNIT_VALUES * (text.count("\n") + text.count("\r"))):
            raise BodyTooLarge("too many values")
        body = text.encode()
        decoder = decoder_of(framing, len(body) + 1)
        self._framing, self._parse = framing, parse
        self._units: list[Unit] = [*decoder.feed(body), *decoder.finish()]
        self.text = "".join(unit.raw.decode() for unit in self._units)
        self.is_cleaned = self.text != text
        """Whether comments or names were emptied, because they may hold text."""
        self._start = 0
        self.documents = [parse(unit) if unit.data and unit.data.strip() else None for unit in self._units]
        self.root = [document and document.root for document in self.documents]

    def read_again(self, text: str | None = None) -> FramedDocument:
        """Return the documents with their parsed values; or those of another `text`."""
        text = self.text if text is None else text
        return FramedDocument(text, sys.maxsize, self._framing, self._parse)

    @property
    def size(self) -> int:
        """The memory that the documents take, in bytes: each keeps its bytes and its text."""
        return super().size + 2 * len(self.text) + _UNIT_BYTES * len(self._units)

    def forget(self) -> None:
        """Free the parsed values."""
        self.root = None
        for document in self.documents:
            if document is not None:
                document.forget()

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the text with the value at each path replaced; raise KeyError for a path that does not exist."""
        inside: dict[str | int, dict[Path, Edit]] = {}
        for path, value in edits.items():
            inside.setdefault(path[0], {})[path[1:]] = value
        pieces = []
        for number, (unit, document) in enumerate(zip(self._units, self.documents, strict=True)):
            if document is None or number not in inside:
                pieces.append(unit.raw.decode())
            else:
                pieces.append(unit.with_data(document.rewrite(inside.pop(number))).decode())
        if inside:
            raise KeyError("an edit names a document that the body lacks")
        return "".join(pieces)

    def spelling(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return the text of the value at each path, below the root of a document."""
        inside: dict[int, list[Path]] = {}
        for path in paths:
            assert isinstance(path[0], int)
            inside.setdefault(path[0], []).append(path[1:])
        found: dict[Path, str] = {}
        for number, within in inside.items():
            document = self.documents[number]
            assert document is not None
            found |= {(number, *path): text for path, text in document.spelling(within).items()}
        return found
