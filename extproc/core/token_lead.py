"""Tokens of a stream that no text accompanies.

Aim judges texts, and tokens spell the text of their event. A server that holds text back while it sends tokens, as some
do that look for a stop sequence, would show the client what nobody has judged.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.tokens import is_of_prompt
from extproc.core.held_event import short_place

_MOST = 4
"""The most events in a row with tokens of a choice or part and none of its text. One letter may take as many."""

_UNITS = 4096
"""The most choices and parts that are followed. The upstream chooses how many there are."""


class TokenLead:
    """How far the tokens of each choice or part run ahead of its text."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        """Begin without events."""
        self._events: dict[Hashable, int] = {}

    def read(self, leaves: Sequence[Leaf], tokens: Sequence[Leaf]) -> tuple[list[Leaf], list[Hashable]]:
        """Return the tokens of an event that must become null, and the choices or parts that lose all later ones.

        `leaves` are all that the event has, `tokens` those of them that are tokens.
        """
        texts = [leaf for leaf in leaves if leaf.kind is not Kind.TOKENS and leaf.kind is not Kind.SEAL]
        units = {short_place(leaf.unit) for leaf in texts}
        alone: list[Leaf] = []
        lost: list[Hashable] = []
        for leaf in tokens:
            unit = None if leaf.unit is None else short_place(leaf.unit)
            if is_of_prompt(leaf.path) or (texts if unit is None else unit in units):
                self._events.pop(unit, None)
                continue
            alone.append(leaf)
            count = self._events.get(unit, 0) + 1
            if count > _MOST or len(self._events) == _UNITS:
                lost.append(unit)
            else:
                self._events[unit] = count
        return alone, lost
