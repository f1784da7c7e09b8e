"""Tool arguments: JSON that a program parses, as one text for Aim.

The text is the JSON with the escapes of its strings decoded, because Aim reads words and not `\\u0041`. A redacted text
is put back string by string: the part between two strings must be unchanged, so that keys and structure stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from extproc.core.content import escapes

_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)("|\\?\Z)', re.DOTALL)
"""A string of JSON, or the beginning of one at the end of cut arguments."""

_COLON = re.compile(r"\s*:").match


class Misfit(ValueError):
    """A redacted text that changes more than the strings of the arguments."""


def decode(text: str) -> str:
    """Return `text` with the escapes of JSON decoded. An invalid or incomplete escape stays."""
    decoded, used = escapes.decode(text)
    return decoded + text[used:]


@dataclass(frozen=True, slots=True)
class _String:
    """A string in the arguments: where its inside begins and ends, and whether it is a key."""

    start: int
    end: int
    is_key: bool


def _strings(raw: str) -> Iterator[_String]:
    for found in _STRING.finditer(raw):
        yield _String(found.start(1), found.end(1), _COLON(raw, found.end()) is not None)


def put_back(raw: str, redacted: str) -> dict[int, str]:
    """Return the new values of the strings that differ, by their number among the strings that are not keys.

    `redacted` is what Aim made of `decode(raw)`. Raises Misfit if it differs in more than these strings.
    """
    strings = [string for string in _strings(raw) if not string.is_key]
    changes: dict[int, str] = {}
    before = 0  # the end of the last string in `raw`
    position = 0  # the place in `redacted`
    for number, string in enumerate(strings):
        between = decode(raw[before : string.start])
        if not redacted.startswith(between, position):
            raise Misfit("a redaction changes keys or structure")
        position += len(between)
        before = string.end
        last = number + 1 == len(strings)
        following = decode(raw[string.end : len(raw) if last else strings[number + 1].start])
        value = decode(raw[string.start : string.end])
        end = position + len(value)
        if not (redacted.startswith(value, position) and _fits(redacted, end, following, is_last=last)):
            end = len(redacted) - len(following) if last else redacted.find(following, position)
            if end < position or not _fits(redacted, end, following, is_last=last):
                raise Misfit("a redaction changes keys or structure")
            changes[number] = redacted[position:end]
        position = end
    if redacted[position:] != decode(raw[before:]):
        raise Misfit("a redaction changes keys or structure")
    return changes


def _fits(redacted: str, position: int, following: str, *, is_last: bool) -> bool:
    return redacted.startswith(following, position) and (not is_last or position + len(following) == len(redacted))


def replace_strings(raw: str, changes: dict[int, str]) -> str:
    """Return `raw` with the strings of these numbers replaced, escaped again."""
    pieces: list[str] = []
    before = 0
    strings = (string for string in _strings(raw) if not string.is_key)
    for number, string in enumerate(strings):
        if number in changes:
            pieces += (raw[before : string.start], json.dumps(changes[number], ensure_ascii=False)[1:-1])
            before = string.end
    return "".join((*pieces, raw[before:]))
