"""An answer that is held until it is whole: its bytes, its texts, and their redactions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from extproc.core.content.arguments import decode
from extproc.core.content.body import BodyBuffer, inflate
from extproc.core.content.document import Document, Edit, Path, PlainText
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import Framing
from extproc.core.detections import Allowance, Messages, join
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.joined import Parts
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.model_name import model_names
from extproc.core.dialects.tokens import is_of_prompt
from extproc.core.policy import Limits
from extproc.core.reading import document_of
from extproc.core.redaction import MOST_EDITS, RedactionError, edits
from extproc.core.verdict import Anonymize, Outcome
from extproc.core.vocabulary import Headers, Input


class WholeAnswer:
    """The body of one answer."""

    __slots__ = ("_alone", "_dialect", "_document", "_size", "buffer", "leaves", "models", "text_bytes")

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self.buffer = BodyBuffer(limit)
        self.leaves: list[Leaf] = []
        self.models: tuple[str, ...] = ()
        """The models that the answer names, once the body was read."""
        self._alone: Sequence[Path] = ()
        self._dialect: Dialect | None = None
        self._document: Document | None = None
        self._size = 0
        self.text_bytes = 0
        """The memory that the text takes in addition to the buffer, once the body was read."""

    def read(self, dialect: Dialect, framing: Framing, headers: Headers, limits: Limits) -> None:
        """Find the texts; raises ContentError, and there are then none."""
        plain = inflate(self.buffer.peek(), headers, limits.response_bytes, limits.inflate_ratio)
        if not plain.strip():
            return
        document = document_of(dialect, plain, framing, limits.values, is_answer=True)
        self.models = model_names(document.root)
        self.leaves, vouching = _leaves(dialect, document, locates=False)
        self._alone = _alone(self.leaves, vouching)
        document.forget()
        self.text_bytes = document.size
        self._dialect, self._document, self._size = dialect, document, len(plain)

    def inputs(self, messages: Messages, allowance: Allowance) -> list[Input]:
        """Return an input for each detection of the texts; raises BodyTooLarge if `allowance` has no room for them."""
        return allowance.inputs_of(self.leaves, messages, self._size)

    def redacted(self, outcomes: Sequence[Outcome]) -> bytes | None:
        """Return the body with the redactions of the outcomes, one for each input; None if there are none.

        The document is read once more: only then the places of all texts are known. Raises RedactionError.
        """
        if not any(isinstance(outcome, Anonymize) for outcome in outcomes):
            return None
        dialect, document = self._dialect, self._document
        assert dialect is not None
        assert document is not None
        document = document.read_again()
        leaves, vouching = _leaves(dialect, document, locates=True)
        if len(leaves) != len(self.leaves):  # pragma: no cover - both readings find the same texts
            raise RedactionError("the texts of an answer were found again in another number")
        changes: dict[Path, Edit] = {}
        for leaf, outcome in zip(join(leaves, len(outcomes)), outcomes, strict=True):
            if isinstance(outcome, Anonymize):  # one by one: each redaction must change its own text
                changes |= edits([(leaf, outcome.texts[-1] if outcome.texts else None)])
                if len(changes) > MOST_EDITS:
                    raise RedactionError("a redaction changes too many values")
        return document.rewrite(changes | _stale(changes, leaves, vouching) | dict.fromkeys(self._alone)).encode()

    def cleaned(self) -> bytes | None:
        """Return the body without comments and names that may hold text, and without tokens that no text accompanies.

        None if it has none of them.
        """
        document = self._document
        if document is not None and self._alone:
            return document.read_again().rewrite(dict.fromkeys(self._alone)).encode()
        return document.text.encode() if isinstance(document, FramedDocument) and document.is_cleaned else None

    def take(self) -> bytes:
        """Remove and return all bytes, as they came."""
        self._document = None
        self._alone = ()
        self.text_bytes = 0
        self.leaves = []
        return self.buffer.take()


def _leaves(dialect: Dialect, document: Document, *, locates: bool) -> tuple[list[Leaf], list[Leaf]]:
    """Return the texts of an answer, and the signatures and tokens that no text names itself."""
    if isinstance(document, FramedDocument):
        return _joined(dialect, document)
    leaves = dialect.answers(document, locates=locates)
    if not leaves or leaves[-1].kind is not Kind.TOKENS:
        return leaves, []
    return [leaf for leaf in leaves if leaf.kind is not Kind.TOKENS], [
        leaf for leaf in leaves if leaf.kind is Kind.TOKENS
    ]


def _joined(dialect: Dialect, body: FramedDocument) -> tuple[list[Leaf], list[Leaf]]:
    """Return the texts of several documents, and the signatures and tokens of these texts.

    The pieces of a running text are one text at the place of the first. A redaction of it empties the other pieces.
    """
    runs: defaultdict[Hashable, list[Leaf]] = defaultdict(list)
    vouching: list[Leaf] = []
    for number, document in enumerate(body.documents):
        for leaf in dialect.deltas(document, locates=True) if document is not None else ():
            if leaf.kind is Kind.SEAL or leaf.kind is Kind.TOKENS:
                vouching.append(_inside(number, leaf))
                continue
            is_alone = dialect.streams_in is Framing.JSON_LINES or leaf.place is None or leaf.kind is Kind.REPEAT
            run = (number, leaf.path, leaf.number) if is_alone else ("running", leaf.place)
            runs[run].append(_inside(number, leaf))
    return [_join(pieces, body) for pieces in runs.values()], vouching


def _inside(number: int, leaf: Leaf) -> Leaf:
    """Return a leaf of document `number` as one of the whole body."""
    emptied = tuple((number, *path) for path in leaf.emptied)
    parts = leaf.parts.within(number) if isinstance(leaf.parts, Parts) else ()
    return replace(leaf, path=(number, *leaf.path), emptied=emptied, parts=parts)


def _join(pieces: list[Leaf], body: FramedDocument) -> Leaf:
    """Return the pieces of one running text as one, with the escapes of arguments and plain texts decoded."""
    first, *others = pieces
    text = "".join(piece.text for piece in pieces)
    emptied = tuple([path for piece in pieces for path in piece.emptied] + [piece.path for piece in others])
    if len(first.path) == 1 and any(map(_is_raw, pieces)):
        return _join_plain(pieces, body, text, emptied)
    if _is_raw(first) and text.lstrip()[:1] in ("{", "[", '"'):
        return replace(first, raw=text, text=decode(text), emptied=emptied)
    return replace(first, text=text, emptied=emptied)


def _is_raw(piece: Leaf) -> bool:
    """Return whether the escapes of a piece are not decoded."""
    return piece.is_json and not piece.is_embedded


def _join_plain(pieces: list[Leaf], body: FramedDocument, text: str, emptied: tuple[Path, ...]) -> Leaf:
    """Return pieces that are no JSON, beside which there may be strings of JSON, as one text."""
    first = pieces[0]

    def is_plain(piece: Leaf) -> bool:
        return isinstance(body.documents[_number(piece)], PlainText)

    if all(map(is_plain, pieces)):
        return replace(first, raw=text, text=decode(text), emptied=emptied)
    said = [(plain, "".join(piece.text for piece in group)) for plain, group in groupby(pieces, is_plain)]
    # It cannot be put back: what is an escape in a plain text is none in a string.
    joined = "".join(decode(text) if plain else text for plain, text in said)
    return replace(first, text=joined, fixed=True, emptied=emptied)


def _number(piece: Leaf) -> int:
    """Return the number of the document that a piece is of."""
    number = piece.path[0]
    assert isinstance(number, int)
    return number


def _alone(texts: Sequence[Leaf], vouching: Sequence[Leaf]) -> list[Path]:
    """Return the places of tokens that no text of their choice or part accompanies, so that nobody has judged them."""
    units = {None, *(leaf.unit for leaf in texts)} if texts else ()
    tokens = (leaf for leaf in vouching if leaf.kind is Kind.TOKENS and not is_of_prompt(leaf.path))
    return [leaf.path for leaf in tokens if leaf.unit not in units]


def _stale(changes: Mapping[Path, Edit], leaves: list[Leaf], vouching: list[Leaf]) -> dict[Path, Edit]:
    """Return the edits that remove the signatures of changed texts, and the tokens that may spell them."""
    if not vouching:
        return {}
    changed = {path[:size] for path in changes for size in range(1, len(path) + 1)}
    texts = [leaf for leaf in leaves if any(part.path in changed for part in leaf.parts or (leaf,))]
    places, units = {leaf.place for leaf in texts}, {leaf.unit for leaf in texts}
    edits: dict[Path, Edit] = {}
    for leaf in vouching:
        if leaf.kind is Kind.SEAL:
            if leaf.place in places:
                edits[leaf.path] = ""
        elif leaf.unit is None or None in units or leaf.unit in units:
            edits[leaf.path] = None
    return edits
