"""The strings of a list in a request, read as the lines of one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.joined import Joined
from extproc.core.dialects.leaf import Leaf

_STRINGS = {str}


def lines_of(nodes: list[Any], path: Path, *, is_inert: bool, is_fixed: bool, locates: bool) -> Leaf | None:
    """Return the strings of the list at `path` as one text, because a value may run over them; None for less than two.

    `is_inert`: those that look inert are no lines. `is_fixed`: they cannot be rewritten. With `locates` the text knows
    their places.
    """
    numbers: Sequence[int] = range(len(nodes))
    said = nodes
    if is_inert or set(map(type, nodes)) != _STRINGS:
        numbers = [
            number
            for number, node in enumerate(nodes)
            if type(node) is str and node and not (is_inert and looks_inert(node))
        ]
        said = [nodes[number] for number in numbers]
    if len(said) - said.count("") < 2:
        return None
    lines = Joined(locates=locates)
    around = lines.outermost(path)
    if is_fixed:
        for number in numbers:
            if nodes[number]:
                lines.add_text(nodes[number], around, number, fixed=True)
    else:
        lines.add_strings(said, around, numbers)
    return lines.leaf()
