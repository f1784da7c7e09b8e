"""The arguments of tool calls, which a stream sends in pieces.

They are submitted with their string escapes decoded. An event that ends within an escape waits for the event that
completes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from extproc.core.content.escapes import decode
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.errors import MalformedBody
from extproc.core.held_event import HeldEvent, HeldText, Piece
from extproc.core.running_text import RunningText


@dataclass(slots=True, eq=False)
class _Cut:
    """An incomplete escape at the end of a running text, and the pieces that it is in."""

    running: RunningText
    text: str
    lenders: tuple[Piece, ...]


class ArgumentPieces:
    """Decodes the pieces of arguments, and keeps the escapes that are not complete yet."""

    __slots__ = ("_cuts",)

    def __init__(self) -> None:
        """Begin without pieces."""
        self._cuts: dict[int, _Cut] = {}

    def read(self, event: HeldEvent, leaf: Leaf, running: RunningText | None) -> HeldText | None:
        """Return a piece with its escapes decoded; None if it has only a part of an escape.

        The event then waits until the escape is complete. Raises MalformedBody for a piece after the end.
        """
        if running is None or leaf.kind is Kind.REPEAT:
            text, used = decode(leaf.text)
            piece = Piece(event, leaf, leaf.text, "")
            return HeldText(0, text + leaf.text[used:], leaf.text, event, leaf, running, piece)
        if running.rest:
            raise MalformedBody("arguments go on after the end")
        cut = self._cuts.pop(id(running), None)
        before, lenders = (cut.text, cut.lenders) if cut is not None else ("", ())
        raw = before + leaf.text
        text, used = decode(raw)
        rest = raw[used:]
        if used and len(rest) > len(leaf.text):
            # Half of a surrogate pair, in an earlier piece, stands alone. It is no escape, and the rest is not read.
            text, used, rest = text + rest, len(raw), ""
        whole = len(leaf.text) - len(rest) if used else 0
        piece = Piece(event, leaf, leaf.text[:whole], leaf.text[whole:])
        if rest:
            event.waiting += 1
            kept = (piece,) if used else (*lenders, piece)
            self._cuts[id(running)] = _Cut(running, rest, kept)
        return HeldText(0, text, raw[:used], event, leaf, running, piece, lenders) if used else None

    def rest(self, running: RunningText) -> str:
        """Return the incomplete escape at the end of a running text; "" if there is none."""
        cut = self._cuts.get(id(running))
        return cut.text if cut is not None else ""

    def end(self, running: RunningText) -> None:
        """Let the incomplete escape of a running text leave as it is: nothing follows."""
        cut = self._cuts.pop(id(running), None)
        if cut is not None:
            running.rest = cut.text
            for piece in cut.lenders:
                piece.event.waiting -= 1

    def end_all(self) -> None:
        """Let all incomplete escapes leave as they are."""
        for cut in tuple(self._cuts.values()):
            self.end(cut.running)

    def clear(self) -> None:
        """Forget everything."""
        self._cuts.clear()
