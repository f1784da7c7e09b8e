"""A JSON text, parsed with the standard library and edited in place.

Everything outside the edited values stays byte for byte: unknown fields, the order of keys, the spelling of numbers,
white space. Only for an edit is the text scanned again, along the edited paths, to find where their values begin and
end.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from extproc.core.content.census import MAX_VALUES, has_more_values
from extproc.core.errors import BodyTooLarge, MalformedBody

Path = tuple[str | int, ...]
"""Keys and indices from the root to a value."""


PARSED_FACTOR = 4
"""The memory of a parsed value, for each byte of its text. Measured: 1 to 3 for chats, 2 for vectors, 5 for tool
definitions, 6 for log probabilities."""


MAX_DEPTH = 128
"""The most nested arrays and objects: the readers of a document may recurse."""


class Raw(str):
    """JSON text that an edit inserts unchanged."""

    __slots__ = ()


Edit = str | None
"""The new value of an edit: a string, None for `null`, or any JSON text as `Raw`."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # Readers differ in which of the values they use, so Aim could see another one.
        raise MalformedBody("a key is repeated")
    return fields


_SPACE = " \t\n\r"
_BOM = "\ufeff"

_decoder = json.JSONDecoder(object_pairs_hook=_object)
_skipper = json.JSONDecoder()


class Document:
    """A JSON document: `text` is its unchanged text, `root` its parsed value.

    A byte order mark before the JSON stays in the text, and in every rewrite.
    """

    __slots__ = ("_start", "root", "text")

    def __init__(self, text: str, values: int = MAX_VALUES) -> None:
        """Parse `text`, which may have at most `values` values, as `extproc.core.content.census` counts them.

        Raises BodyTooLarge for more, and MalformedBody unless the text is one JSON value of reasonable depth in which
        no key is repeated.
        """
        if len(text) > values and has_more_values(text, values):
            raise BodyTooLarge("a document has too many values")
        self.text = text
        self.root: Any
        self._start = 0
        first = 0
        if not text.startswith("{"):
            self._start = int(text.startswith(_BOM))
            first = self._first()
        try:
            # `decode` would look for white space around the value with regular expressions. There hardly ever is any.
            self.root, end = _decoder.raw_decode(text, first)
            if end != len(text) and text[end:].strip(_SPACE):
                raise ValueError("more than one value")
        except (ValueError, RecursionError) as error:
            raise MalformedBody("not JSON") from error
        # Counting brackets is cheap, and most documents have fewer of them than may be nested.
        if text.count("{") + text.count("[") > MAX_DEPTH and is_deeper(self.root, MAX_DEPTH):
            raise MalformedBody("nested too deeply")

    def _first(self) -> int:
        """Return the position of the first character of the value."""
        return len(self.text) - len(self.text[self._start :].lstrip(_SPACE))

    @classmethod
    def from_bytes(cls, data: bytes, values: int = MAX_VALUES) -> Self:
        """Parse UTF-8 bytes.

        Raises MalformedBody if they are not UTF-8, and what `Document` raises.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise MalformedBody("not UTF-8") from error
        return cls(text, values)

    @property
    def size(self) -> int:
        """The memory that the document takes, in bytes: its text and, until `forget`, its parsed value."""
        size = sys.getsizeof(self.text)
        return size if self.root is None else (1 + PARSED_FACTOR) * size

    def read_again(self, text: str | None = None) -> Self:
        """Return the document with its parsed value, which this one may have forgotten; or one of another `text`."""
        if text is not None:
            return type(self)(text, sys.maxsize)
        again = type(self).__new__(type(self))
        again.text, again._start = self.text, self._start
        again.root = self._read_root()
        return again

    def _read_root(self) -> Any:
        """Return the value of the text, which was checked before."""
        return _skipper.raw_decode(self.text, self._first())[0]

    @classmethod
    def unread(cls, text: str) -> Self:
        """Return a document whose text is known to be one JSON value, without its parsed value."""
        document = cls.__new__(cls)
        document.text, document.root, document._start = text, None, int(text.startswith(_BOM))
        return document

    def forget(self) -> None:
        """Free the parsed value, which takes much memory. `rewrite` needs only the text."""
        self.root = None

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the text with the value at each path replaced.

        An edit below the place of another has no effect. Raises KeyError for a path that does not exist.
        """
        if () in edits:
            return self.text[: self._start] + _spelling(edits[()])
        wanted, count = _tree({path: _spelling(value) for path, value in edits.items()})
        first = self._first()
        spans = _spans(self.text, first, wanted) if self.text.startswith(("{", "["), first) else []
        if len(spans) != count:
            raise KeyError("an edit names a place that the document lacks")
        pieces: list[str] = []
        position = 0
        for start, end, replacement in spans:
            pieces += (self.text[position:start], replacement)
            position = end
        pieces.append(self.text[position:])
        return "".join(pieces)

    def span(self, path: Path) -> tuple[int, int]:
        """Return where the value at `path` begins and ends in the text. It must exist, and not be the root."""
        wanted, _ = _tree({path: ""})
        ((start, end, _),) = _spans(self.text, self._first(), wanted)
        return start, end

    def spelling(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return the text of the value at each path. All must exist, and none may be the root or below another."""
        wanted, _ = _tree({path: str(n) for n, path in enumerate(paths)})
        spans = _spans(self.text, self._first(), wanted)
        return {paths[int(number)]: self.text[start:end] for start, end, number in spans}


def _tree(values: Mapping[Path, str]) -> tuple[dict[str | int, Any], int]:
    """Return the values at their paths as nested objects, and their number. One below another is left out."""
    tree: dict[str | int, Any] = {}
    count = 0
    for path, value in sorted(values.items(), key=lambda item: len(item[0])):
        node: Any = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
            if isinstance(node, str):
                break
        else:
            node[path[-1]] = value
            count += 1
    return tree, count


class PlainText(Document):
    """A text that is no JSON, in the form of a document: `root` is the text, and the only place is the root."""

    __slots__ = ()

    def __init__(self, text: str, values: int = MAX_VALUES) -> None:
        """Take `text` as it is. It is one value."""
        self.text = text
        self.root = text
        self._start = 0

    def _read_root(self) -> Any:
        """Return the text."""
        return self.text

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the new text at the path `()`, or the text if there is no edit; raises KeyError for other paths."""
        if edits.keys() - {()}:
            raise KeyError("an edit names a place that a plain text lacks")
        # Half of a surrogate pair, which UTF-8 cannot have, becomes `?`.
        return (edits.get((), self.text) or "").encode("utf-8", "replace").decode()


def _spelling(value: Edit) -> str:
    # Escaped to ASCII, because JSON can contain a lone surrogate and UTF-8 cannot.
    return value if isinstance(value, Raw) else json.dumps(value)


def is_deeper(root: Any, limit: int) -> bool:
    """Return whether a JSON value has more than `limit` nested arrays and objects."""
    level = [root] if type(root) is dict or type(root) is list else []
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return bool(level)


def without(root: Any, paths: Iterable[Path]) -> Any:
    """Return a copy of a JSON value in which the values at the paths are null. Other values are shared, not copied."""
    tree: dict[str | int, Any] = {}
    for path in paths:
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = None
    return _without(root, tree)


def _without(node: Any, tree: Mapping[str | int, Any] | None) -> Any:
    if not tree:
        return node if tree is not None else None
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    found = {step: _without(value, tree[step]) if step in tree else value for step, value in pairs}
    return found if isinstance(node, dict) else list(found.values())


def fields(node: Any) -> Mapping[str, Any]:
    """Return `node` if it is an object, else an empty object."""
    return node if type(node) is dict else {}


def items(node: Any) -> list[Any]:
    """Return `node` if it is an array, else an empty array."""
    return node if type(node) is list else []


def _spans(text: str, position: int, wanted: Mapping[str | int, Any]) -> list[tuple[int, int, str]]:
    """Return (start, end, replacement) of the wanted values in the container at `position`, in order.

    The text must be valid JSON.
    """
    spans: list[tuple[int, int, str]] = []
    _find(text, position, wanted, spans, is_last=True)
    return spans


def _find(
    text: str, position: int, wanted: Mapping[str | int, Any], spans: list[tuple[int, int, str]], *, is_last: bool
) -> int:
    """Append the spans of the wanted values in the container at `position`; return the position after it.

    If it `is_last`, nothing is wanted behind it, and the position that is returned says nothing.
    """
    find = _find_members if text[position] == "{" else _find_elements
    return find(text, position + 1, wanted, spans, is_last=is_last)


def _find_elements(
    text: str, position: int, wanted: Mapping[str | int, Any], spans: list[tuple[int, int, str]], *, is_last: bool
) -> int:
    """Do what `_find` does for an array whose first element is at `position`."""
    index = 0
    left = len(wanted)
    for step in sorted(step for step in wanted if isinstance(step, int) and step >= 0):
        position = _skip_elements(text, position, step - index)
        if text[position] == "]":
            return position + 1
        left -= 1
        position = _take(text, position, wanted[step], spans, is_last=is_last and not left)
        index = step + 1
    return position if is_last else _skip_elements(text, position, sys.maxsize) + 1


def _skip_elements(text: str, position: int, count: int) -> int:
    """Return the position behind so many elements of an array, or that of its end."""
    # There may be hundreds of thousands of them.
    read = _skipper.raw_decode
    while count > 0:
        if count >= _MANY and (many := _many_elements(text, position)):
            position = many.end()
            count -= _MANY
            continue
        for _ in range(min(count, _MANY)):
            position = _after_space(text, position)
            if text[position] == "]":
                return position
            position = _after_comma(text, read(text, position)[1])
            count -= 1
    return _after_space(text, position)


def _find_members(
    text: str, position: int, wanted: Mapping[str | int, Any], spans: list[tuple[int, int, str]], *, is_last: bool
) -> int:
    """Do what `_find` does for an object whose first key is at `position`."""
    read = _skipper.raw_decode
    left = len(wanted)
    while (member := _member(text, position)) is not None:
        key, is_simple = member[1], member.lastindex == 2
        if "\\" in key:
            key = read(text, member.start(1) - 1)[0]
        target = wanted.get(key)
        if target is None:
            position = member.end() if is_simple else _after_comma(text, read(text, member.end())[1])
            continue
        left -= 1
        value = member.start(2) if is_simple else member.end()
        position = _take(text, value, target, spans, is_last=is_last and not left)
        if is_last and not left:
            return position
    return _after_space(text, position) + 1


def _take(
    text: str, position: int, target: Mapping[str | int, Any] | str, spans: list[tuple[int, int, str]], *, is_last: bool
) -> int:
    """Append the span of the value at `position`, or those in it; return the position behind the comma after it."""
    if isinstance(target, str):
        _, end = _skipper.raw_decode(text, position)
        spans.append((position, end, target))
    elif text[position] in "{[":
        end = _find(text, position, target, spans, is_last=is_last)
    else:
        _, end = _skipper.raw_decode(text, position)
    return end if is_last else _after_comma(text, end)


def _after_space(text: str, position: int) -> int:
    while text[position] in _SPACE:
        position += 1
    return position


def _after_comma(text: str, position: int) -> int:
    """Return the position behind a comma, or that of the bracket that is there instead."""
    position = _after_space(text, position)
    return position + 1 if text[position] == "," else position


_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SIMPLE = rf'(?:{_STRING}|[^\s",:\[\]{{}}]++|[\[{{][^"\[\]{{}}]*+(?:{_STRING}[^"\[\]{{}}]*+){{0,8}}[\]}}])'
"""A value that is no container, or one with few strings and no other container."""

_MANY = 64
"""So many elements are skipped at once."""

_many_elements = re.compile(rf"(?:\s*+{_SIMPLE}\s*+,){{{_MANY}}}", re.DOTALL).match

_member = re.compile(rf'\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"\s*+:\s*+({_SIMPLE}\s*+,)?', re.DOTALL).match
"""A key, and its value with the comma behind it if that is simple. Otherwise the match ends where the value begins."""
