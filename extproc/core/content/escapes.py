"""The string escapes of a JSON text that arrives in pieces, such as a tool call's arguments (RFC 8259, section 7).

Aim reads the text with its escapes decoded. A redaction is put back into the text as it is spelt: what Aim left keeps
its spelling, and what Aim changed is escaped again. Outside of strings nothing is escaped. An invalid escape, and half
of a surrogate pair, stays as it is.
"""

from __future__ import annotations

import json
import re

_HEX = "[0-9a-fA-F]"
_PAIR = rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"
_SINGLE = rf"\\u(?![dD][89a-fA-F]){_HEX}{{4}}"

_ESCAPE = re.compile(rf'{_PAIR}|{_SINGLE}|\\["\\/bfnrt]')

_CUT = re.compile(
    rf"\\(?:u{_HEX}{{0,3}})?"
    rf"|\\u[dD][89abAB]{_HEX}{{2}}(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?"
)
"""The beginning of an escape that the next piece may complete."""

MAX_CUT = 11
"""The most characters of an incomplete escape."""

_INVALID = re.compile(
    rf'\\(?!["/bfnrt]|u(?![dD][89a-fA-F]){_HEX}{{4}}|u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}'
    rf"|(?<=\\u[dD][89abAB]{_HEX}{{2}}\\)u[dD][c-fC-F]{_HEX}{{2}})"
)
"""A backslash that begins no escape, and half of a surrogate pair, in a text without escaped backslashes."""

_BACKSLASH = r"\u005c"
"""Another spelling of an escaped backslash."""

_LITERAL = _BACKSLASH.replace("\\", "\\\\")
"""The same as a template of `re`."""

_ANY = re.compile(r"\\.", re.DOTALL)

_SURROGATE = re.compile("[\ud800-\udfff]")

_read = json.JSONDecoder(strict=False).decode

_QUOTE = re.compile(r'\\.|"', re.DOTALL)

_CLOSES = re.compile(r"\s*(?:[,:}\]]|\Z)")
"""What follows a quotation mark that ends a string."""


def decode(text: str) -> tuple[str, int]:
    """Return the decoded text up to its last whole escape, and the number of characters of `text` that it spells.

    The rest of `text`, at most `MAX_CUT` characters, is the beginning of an escape.
    """
    if "\\" not in text:
        return text, len(text)
    used = _whole(text)
    return _decoded(text[:used]), used


def _whole(text: str) -> int:
    """Return where an incomplete escape at the end begins; the length of the text if there is none."""
    last = text.rfind("\\")
    if len(text) - last > MAX_CUT:
        return len(text)
    for start in (last - 6, last):  # the first half of a surrogate pair may precede it
        if start >= 0 and _CUT.fullmatch(text, start) and _starts_escape(text, start):
            return start
    return len(text)


def _starts_escape(text: str, position: int) -> bool:
    """Return whether the backslash at `position` begins an escape: it may be the second one of an escaped backslash."""
    before = text[:position]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0


def _decoded(text: str) -> str:
    """Return a text without an incomplete escape decoded, in C."""
    # Without escaped backslashes every backslash begins an escape, and all quotation marks can be escaped alike.
    marked = text.replace("\\\\", _BACKSLASH).replace('\\"', '"').replace('"', '\\"')
    try:
        decoded: str = _read(f'"{marked}"')
    except ValueError:
        pass
    else:
        if not _SURROGATE.search(decoded):
            return decoded
    sound: str = _read(f'"{_INVALID.sub(_LITERAL, marked)}"')
    return sound


def _ends(raw: str) -> list[bool]:
    """Return for each quotation mark of a text whether it begins or ends a string. The others are escaped."""
    return [found[0] == '"' for found in _QUOTE.finditer(raw) if found[0].endswith('"')]


def respell(raw: str, old: str, new: str, *, in_string: bool) -> str:
    """Return `new` in the spelling of `raw`, the text that decodes to `old`.

    What both have in common, at the beginning and at the end, keeps its spelling. `in_string` is whether the text
    begins inside of a string.
    """
    start = _common(old, new)
    most = min(len(old), len(new)) - start
    after = _common(old[len(old) - most :][::-1], new[len(new) - most :][::-1]) if most else 0
    end = len(old) - after
    first, last = spelt_at(raw, start, end)
    in_string ^= _ANY.sub("", raw[:first]).count('"') % 2 == 1
    changed = new[start : len(new) - after]
    kinds = _ends(raw[first:last])
    if len(kinds) != changed.count('"'):
        # Aim has joined or moved pieces. In a string, a quotation mark ends it if JSON goes on after it.
        kinds = [bool(_CLOSES.match(new, start + found.end())) for found in re.finditer('"', changed)]
    return raw[:first] + _escaped(changed, kinds, in_string) + raw[last:]


def _escaped(text: str, kinds: list[bool], in_string: bool) -> str:
    """Return a text with escapes inside of its strings. `kinds` says which quotation marks begin or end one."""
    pieces: list[str] = []
    for number, part in enumerate(text.split('"')):
        if number:
            is_end = kinds[number - 1] or not in_string
            pieces.append('"' if is_end else '\\"')
            in_string ^= is_end
        pieces.append(json.dumps(part, ensure_ascii=False)[1:-1] if in_string else part)
    return "".join(pieces)


def spelt_at(raw: str, *positions: int) -> list[int]:
    """Return where in `raw` the characters at some positions of the decoded text are spelt. They are in order."""
    if "\\" not in raw:
        return list(positions)
    found = _ESCAPE.finditer(raw)
    escape = next(found, None)
    shorter = 0  # by so much is the decoded text shorter, up to the next escape
    places: list[int] = []
    for position in positions:
        while escape is not None and escape.start() - shorter < position:
            shorter += len(escape[0]) - 1
            escape = next(found, None)
        places.append(position + shorter)
    return places


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Nesting:
    """Follows a JSON text as it grows: whether it is inside of a string, and how deep it is nested."""

    __slots__ = ("_cut", "depth", "in_string", "is_closed", "is_over")

    def __init__(self) -> None:
        """Begin before the first character."""
        self._cut = False
        self.in_string = False
        self.depth = 0
        self.is_closed = False
        """Whether the first object or array has ended."""
        self.is_over = False
        """Whether more than white space follows it, so that the text cannot be JSON any more."""

    def feed(self, piece: str) -> None:
        """Read the next piece of the text."""
        self.is_over |= self.is_closed and bool(piece.strip(" \t\n\r"))
        if self._cut:
            piece, self._cut = piece[1:], not piece
        if "\\" in piece:
            self._cut = (len(piece) - len(piece.rstrip("\\"))) % 2 == 1
            piece = _ANY.sub("", piece)
        parts = piece.split('"')
        outside = "".join(parts[self.in_string :: 2])
        self.in_string ^= len(parts) % 2 == 0
        opened = outside.count("{") + outside.count("[")
        closed = outside.count("}") + outside.count("]")
        self.depth += opened - closed
        self.is_closed |= bool(closed) and self.depth <= 0
