"""An answer that is held until it is whole: its bytes, its texts, and their redactions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from extproc.core.content.body import BodyBuffer, inflate
from extproc.core.content.document import Document, Edit, Path
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import Framing
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.policy import Limits
from extproc.core.questions import Messages, Question, pack
from extproc.core.reading import document_of
from extproc.core.redaction import edits
from extproc.core.verdict import Anonymize, Outcome
from extproc.core.vocabulary import Headers, Input


class WholeAnswer:
    """The body of one answer."""

    __slots__ = ("_asked", "_dialect", "_document", "buffer", "leaves")

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self.buffer = BodyBuffer(limit)
        self.leaves: list[Leaf] = []
        self._dialect: Dialect | None = None
        self._document: Document | None = None
        self._asked: tuple[Messages, int, int] = (), 0, 0

    @property
    def held(self) -> int:
        """Bytes held."""
        return self.buffer.size + (self._document.size if self._document is not None else 0)

    def read(self, dialect: Dialect, framing: Framing, headers: Headers, limits: Limits) -> None:
        """Find the texts; raises ContentError, and there are then none."""
        plain = inflate(self.buffer.peek(), headers, limits.response_bytes, limits.inflate_ratio)
        if not plain.strip():
            return
        document = document_of(dialect, plain, framing, limits.values)
        self.leaves = _leaves(dialect, document, locates=False)
        document.forget()
        self._dialect, self._document = dialect, document

    def ask(self, messages: Messages, *, asked: int, sent: int) -> list[Input]:
        """Return the inputs about the texts, after `asked` inputs about a request of `sent` bytes."""
        self._asked = messages, asked, sent
        return [question.input for question in self._pack(self.leaves)]

    def _pack(self, leaves: list[Leaf]) -> list[Question]:
        messages, asked, sent = self._asked
        received = len(self._document.text) if self._document is not None else 0
        return pack(leaves, messages, asked=asked, sent=sent, received=received)

    def redacted(self, outcomes: Sequence[Outcome]) -> bytes | None:
        """Return the body with the redactions of the outcomes, one for each input; None if there are none.

        The document is read once more: only then the places of all texts are known. Raises RedactionError.
        """
        if not any(isinstance(outcome, Anonymize) for outcome in outcomes):
            return None
        dialect, document = self._dialect, self._document
        assert dialect is not None
        assert document is not None
        questions = self._pack(_leaves(dialect, document.read_again(), locates=True))
        changes: dict[Path, Edit] = {}
        for question, outcome in zip(questions, outcomes, strict=True):
            if isinstance(outcome, Anonymize):  # one by one: each redaction must change its own text
                changes |= edits([(question.leaf, outcome.texts[-1] if outcome.texts else None)])
        return document.rewrite(changes).encode()

    def take(self) -> bytes:
        """Remove and return all bytes, as they came."""
        self._document = None
        self._asked = (), 0, 0
        self.leaves = []
        return self.buffer.take()


def _leaves(dialect: Dialect, document: Document, *, locates: bool) -> list[Leaf]:
    if isinstance(document, FramedDocument):
        return _joined(dialect, document)
    return dialect.answers(document, locates=locates)


def _joined(dialect: Dialect, body: FramedDocument) -> list[Leaf]:
    """Return the texts of several documents. The pieces of a running text are one text at the place of the first.

    A redaction of it empties the other pieces, and removes what vouches for them or spells them.
    """
    runs: dict[Hashable, list[Leaf]] = {}
    vouching: list[Path] = []
    for number, document in enumerate(body.documents):
        for leaf in dialect.deltas(document, locates=True) if document is not None else ():
            if leaf.kind in (Kind.SEAL, Kind.TOKENS):
                vouching.append((number, *leaf.path))
                continue
            alone = leaf.place is None or leaf.kind is Kind.REPEAT
            runs.setdefault((number, leaf.path) if alone else ("running", leaf.place), []).append(_inside(number, leaf))
    return [replace(_join(pieces), nulled=tuple(vouching)) for pieces in runs.values()]


def _inside(number: int, leaf: Leaf) -> Leaf:
    """Return a leaf of document `number` as one of the whole body."""
    emptied = tuple((number, *path) for path in leaf.emptied)
    parts = tuple(_inside(number, part) for part in leaf.parts)
    return replace(leaf, path=(number, *leaf.path), emptied=emptied, parts=parts)


def _join(pieces: list[Leaf]) -> Leaf:
    first, *others = pieces
    emptied = [path for piece in pieces for path in piece.emptied] + [piece.path for piece in others]
    return replace(first, text="".join(piece.text for piece in pieces), emptied=tuple(emptied))
