"""Writes the events of a stream as the client gets them: with what Aim has rewritten.

Some streams repeat a running text as a whole. A repeat leaves with the text that was released for its deltas. Some
events repeat a text as tokens. After a text of a choice or part is rewritten, all tokens of that choice or part become
null. So do tokens that no text accompanies.
"""

from __future__ import annotations

from collections.abc import Hashable

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.content.escapes import respell
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.held_event import HeldEvent, HeldText, short_place
from extproc.core.redaction import rewrite

_UNITS = 4096
"""The most choices and parts without tokens that are told apart. Beyond them all tokens become null."""


class EventWriter:
    """Applies what Aim has rewritten to the held events."""

    __slots__ = ("_dialect", "_units", "answer", "is_altered", "sequence")

    def __init__(self, dialect: Dialect) -> None:
        """Write events of `dialect`."""
        self._dialect = dialect
        self._units: set[Hashable] = set()
        self.is_altered = False
        """Whether any text was rewritten."""
        self.sequence = 0
        """The number of the next event, for APIs that number events."""
        self.answer: BlockAnswer | None = None
        """What is told the documents of the events."""

    def spelling(self, text: HeldText, new: str) -> str:
        """Return what Aim has made of a text in the spelling of its event: escaped, if it is in arguments."""
        if not new or text.piece is None:
            return new
        running = text.running
        in_string = running is not None and running.ends_in_string
        return respell(text.raw, text.text, new, in_string=in_string)

    def give(self, text: HeldText, spelling: str) -> None:
        """Write another text in the place of this one, and nothing of what it was.

        Raises RedactionError if the text cannot be rewritten.
        """
        leaf, piece = self._located(text), text.piece
        if piece is None:
            text.event.edits |= rewrite(leaf, spelling)
        else:
            for lender in text.lenders:
                lender.cut = ""
                lender.event.edits |= rewrite(lender.leaf, lender.spelling)
            piece.spelling = spelling
            text.event.edits |= rewrite(leaf, spelling + piece.cut)
        self.is_altered = True
        self.lose_tokens(leaf.unit)

    def lose_tokens(self, unit: Hashable) -> None:
        """Write no more tokens of a choice or part; None: of any."""
        self._units.add(short_place(unit) if len(self._units) < _UNITS else None)

    def _located(self, text: HeldText) -> Leaf:
        """Return the place of a text. The places of joined texts are found only when they are needed."""
        leaf, event = text.leaf, text.event
        if not leaf.is_joined or event.document is None:
            return leaf
        if event.located is None:
            event.located = self._dialect.deltas(event.document.read_again(), locates=True)
        return event.located[leaf.number]

    def written(self, event: HeldEvent) -> bytes:
        """Return the bytes of an event that leaves."""
        document = event.document
        if document is None:
            return event.unit.raw
        if event.sequence is not None:
            self.sequence = event.sequence + 1
        edits = event.edits
        for leaf, running in event.echoes:
            if running.is_rewritten:
                edits |= rewrite(leaf, "" if leaf.kind is Kind.SEAL else running.spelling)
        if self._units:
            edits |= {leaf.path: None for leaf in event.tokens if self._spells_rewritten(leaf)}
        rewritten = document.rewrite(edits) if edits else None
        if self.answer is not None:
            self.answer.follow(document.read_again(rewritten).root)
        return event.unit.raw if rewritten is None else event.unit.with_data(rewritten)

    def _spells_rewritten(self, tokens: Leaf) -> bool:
        """Return whether tokens may spell a text that was rewritten, or that no text accompanies them."""
        return tokens.unit is None or None in self._units or short_place(tokens.unit) in self._units
