"""An answer that is held until it is whole: its bytes, its texts, and their redactions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

from extproc.core.content.body import BodyBuffer, inflate
from extproc.core.content.document import Document, Edit, Path
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import Framing
from extproc.core.dialects.base import Dialect, Kind, Leaf
from extproc.core.errors import MalformedBody
from extproc.core.policy import Limits
from extproc.core.reading import document_of
from extproc.core.redaction import edits
from extproc.core.verdict import Anonymize, Outcome
from extproc.core.vocabulary import Headers

_TEXTS = 1024
"""The most texts of one whole answer: each is an input of the detection."""


class WholeAnswer:
    """The body of one answer."""

    __slots__ = ("_document", "buffer", "leaves")

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self.buffer = BodyBuffer(limit)
        self.leaves: list[Leaf] = []
        self._document: Document | None = None

    @property
    def held(self) -> int:
        """Bytes held."""
        return self.buffer.size + (len(self._document.text) if self._document is not None else 0)

    def read(self, dialect: Dialect, framing: Framing, headers: Headers, limits: Limits) -> None:
        """Find the texts; raises ContentError, and there are then none."""
        plain = inflate(self.buffer.peek(), headers, limits.response_bytes, limits.inflate_ratio)
        if not plain.strip():
            return
        document = document_of(dialect, plain, framing)
        leaves = _joined(dialect, document) if isinstance(document, FramedDocument) else dialect.answers(document)
        document.forget()
        if len(leaves) > _TEXTS:
            raise MalformedBody("an answer has too many texts")
        self.leaves, self._document = leaves, document

    def redacted(self, outcomes: Sequence[Outcome]) -> bytes | None:
        """Return the body with the redactions of the outcomes, one for each text; None if there are none.

        Raises RedactionError.
        """
        changes: dict[Path, Edit] = {}
        for leaf, outcome in zip(self.leaves, outcomes, strict=True):
            if isinstance(outcome, Anonymize):  # one by one: each redaction must change its own text
                changes |= edits([(leaf, outcome.texts[-1] if outcome.texts else None)])
        return self._document.rewrite(changes).encode() if changes and self._document is not None else None

    def take(self) -> bytes:
        """Remove and return all bytes, as they came."""
        self._document = None
        return self.buffer.take()


def _joined(dialect: Dialect, body: FramedDocument) -> list[Leaf]:
    """Return the texts of several documents. The pieces of a running text are one text at the place of the first.

    A redaction of it empties the other pieces, and what vouches for them.
    """
    runs: dict[Hashable, list[Leaf]] = {}
    for number, leaf in _leaves(dialect, body):
        alone = leaf.place is None or leaf.kind is Kind.REPEAT
        runs.setdefault((number, leaf.path) if alone else ("running", leaf.place), []).append(_inside(number, leaf))
    return [_join(pieces) for pieces in runs.values() if any(piece.kind is not Kind.SEAL for piece in pieces)]


def _leaves(dialect: Dialect, body: FramedDocument) -> Iterator[tuple[int, Leaf]]:
    for number, document in enumerate(body.documents):
        if document is not None:
            for leaf in dialect.deltas(document):
                yield number, leaf


def _inside(number: int, leaf: Leaf) -> Leaf:
    """Return a leaf of document `number` as one of the whole body."""
    return replace(
        leaf,
        path=(number, *leaf.path),
        nulled=None if leaf.nulled is None else (number, *leaf.nulled),
        emptied=tuple((number, *path) for path in leaf.emptied),
    )


def _join(pieces: list[Leaf]) -> Leaf:
    texts = [piece for piece in pieces if piece.kind is not Kind.SEAL]
    first, *others = texts
    seals = [piece.path for piece in pieces if piece.kind is Kind.SEAL]
    emptied = [path for piece in texts for path in piece.emptied] + [piece.path for piece in others] + seals
    emptied += [piece.nulled for piece in others if piece.nulled is not None]
    return replace(first, text="".join(piece.text for piece in texts), emptied=tuple(emptied))
