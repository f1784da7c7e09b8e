"""Counts the values of a JSON text before it is parsed.

A parsed value can take up to fifty times the memory of its text, so the length of a text does not bound its cost.
Strings, keys among them, arrays and objects count one each, numbers, `true`, `false` and `null` one eighth each.

The text is read in blocks with the fast methods of `str`, because a loop over the values would take as long as the
parser does.
"""

from __future__ import annotations

import re

MAX_VALUES = 500_000
"""The default of `limits.values`."""

_BLOCK = 262_144
"""Characters that are read at a time. Their pieces take memory."""

_ESCAPE = re.compile(r"\\*+.?", re.DOTALL)
"""What is left of an escape after its first backslashes."""

_WEIGHT = 8
"""Of a string, an array or an object, in units of a number."""


def has_more_values(text: str, limit: int, *, block_size: int = _BLOCK) -> bool:
    """Return whether `text` has more than `limit` values.

    The count is exact for JSON. For another text it is some number, found in linear time too. `block_size` is in
    characters.
    """
    if len(text) <= limit:
        return False  # the shortest value takes one character
    brackets = text.count("[") + text.count("{")
    commas = text.count(",")
    if _WEIGHT * (text.count('"') // 2 + brackets) + commas + 1 <= _WEIGHT * limit:
        return False  # even if no string were a key and none contained a bracket or a comma
    start = strings = containers = empty = commas = keys = weight = 0
    is_in_string = False
    opener = ""
    while start < len(text) and weight <= _WEIGHT * (limit + 1):
        end = start + block_size
        if text[end - 1 : end] == "\\":
            end = next(_ESCAPE.finditer(text, end)).end()
        block = text[start:end]
        start = end
        if "\\" in block:
            block = block.replace("\\\\", "").replace('\\"', "")
        # Now each quote begins or ends a string, so every second piece is outside of the strings.
        pieces = block.split('"')
        outside = '"'.join(pieces[is_in_string::2])
        if is_in_string and len(pieces) > 1:
            outside = '"' + outside  # the string that began in an earlier block
        keys += outside.count(":")
        strings += outside.count('"')
        is_in_string ^= len(pieces) % 2 == 0
        containers += outside.count("[") + outside.count("{")
        commas += outside.count(",")
        outside = opener + "".join(outside.split())
        empty += outside.count("[]") + outside.count("{}")
        opener = outside[-1:] if outside[-1:] in ("[", "{") else ""
        # The values are the root, one behind each comma, and the first of each container that is not empty. In the
        # middle of the text one may be counted too many: the first of a container that will be empty.
        numbers = 1 + commas + keys - empty - strings
        weight = _WEIGHT * (strings + containers) + numbers
    return weight > _WEIGHT * limit
