"""A JSON text, read once and edited in place.

Everything that an edit does not name survives byte for byte: unknown fields, the order of keys, the spelling of
numbers, white space. The text is parsed by the standard library; only when something is rewritten is it scanned a
second time, along the paths that the edits name, for where their values begin and end.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]  # undocumented, and there since 2.6
from typing import Any

from extproc.core.errors import MalformedBody

Path = tuple[str | int, ...]
"""Keys and indices from the root to a value."""


MAX_DEPTH = 128
"""Arrays and objects inside each other, at most: every reader of a document may recurse."""


MAX_CONTAINERS = 1_000_000
"""Arrays and objects in all: each costs some hundred bytes, and may be spelt in two."""


class Raw(str):
    """JSON that an edit puts in as it is spelt."""

    __slots__ = ()


Edit = str | None
"""What takes a value's place: a string, `null` for None, or any JSON as `Raw`."""


class RepeatedKeys(dict[str, Any]):
    """An object that names a key more than once: which of the values counts, each reader decides for itself."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else RepeatedKeys(fields)


_SPACE = " \t\n\r"

_decoder = json.JSONDecoder(object_pairs_hook=_object)
_skipper = json.JSONDecoder()


class Document:
    """A parsed JSON text: `text` as it came, `root` as values."""

    __slots__ = ("root", "text")

    def __init__(self, text: str) -> None:
        """Parse `text`.

        Raises MalformedBody unless it is one JSON value of reasonable depth.
        """
        self.text = text
        # Counting brackets is cheap, and most documents have not even as many as may be inside each other.
        brackets = text.count("{") + text.count("[")
        if brackets > MAX_CONTAINERS:
            raise MalformedBody("too many arrays and objects")
        try:
            # Its `decode` looks for space around the value by expressions; there hardly ever is any.
            self.root: Any
            start = 0 if text.startswith("{") else len(text) - len(text.lstrip(_SPACE))
            self.root, end = _decoder.raw_decode(text, start)
            if end != len(text) and text[end:].strip(_SPACE):
                raise ValueError("more than one value")
        except (ValueError, RecursionError) as error:
            raise MalformedBody("not JSON") from error
        if brackets > MAX_DEPTH and is_deeper(self.root, MAX_DEPTH):
            raise MalformedBody("nested too deeply")

    @classmethod
    def from_bytes(cls, data: bytes) -> Document:
        """Parse UTF-8 bytes.

        Raises MalformedBody for what is not UTF-8 JSON.
        """
        try:
            return cls(data.decode())
        except UnicodeDecodeError as error:
            raise MalformedBody("not UTF-8") from error

    def forget(self) -> None:
        """Free the values, of which many documents at once would hold too much; `rewrite` needs the text alone."""
        self.root = None

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the text with the value at each path replaced.

        Raises KeyError for a path that is not there.
        """
        if () in edits:
            return _spelling(edits[()])
        wanted: dict[str | int, Any] = {}
        for path, value in edits.items():
            node = wanted
            for step in path[:-1]:
                node = node.setdefault(step, {})
            node[path[-1]] = _spelling(value)
        pieces: list[str] = []
        position = found = 0
        if self.text.lstrip(_SPACE)[:1] in ("{", "["):
            for start, end, replacement in _spans(self.text, _skip_space(self.text, 0), wanted):
                pieces += (self.text[position:start], replacement)
                position = end
                found += 1
        if found != len(edits):
            raise KeyError("an edit names a place that the document lacks")
        pieces.append(self.text[position:])
        return "".join(pieces)


def _spelling(value: Edit) -> str:
    # Escaped to ASCII: a lone surrogate, which JSON can spell and UTF-8 cannot, stays spellable.
    return value if isinstance(value, Raw) else json.dumps(value)


def is_deeper(root: Any, limit: int) -> bool:
    """Tell whether a JSON value has more than `limit` arrays and objects inside each other."""
    level = [root]
    for _ in range(limit + 1):
        containers = [node for node in level if isinstance(node, dict | list)]
        if not containers:
            return False
        level = [child for node in containers for child in (node.values() if isinstance(node, dict) else node)]
    return True


_PLAIN_KEYS = frozenset(
    {
        "content",
        "contents",
        "documents",
        "input",
        "instructions",
        "messages",
        "parts",
        "prompt",
        "query",
        "role",
        "suffix",
        "system",
        "text",
    }
)


def refuse_disguise(node: Any) -> None:
    """Refuse keys that only a reader who ignores letter case takes for those that hold a request's texts.

    Such readers exist (Go's standard library is one), and would read what was not judged. Raises MalformedBody.
    """
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += [item for item in node if isinstance(item, list | dict)]
        elif isinstance(node, dict):
            for key, value in node.items():
                if key in _PLAIN_KEYS:
                    if isinstance(value, list) or key != "input":  # a tool's input names its keys as it likes
                        waiting.append(value)
                elif key.casefold() in _PLAIN_KEYS:
                    raise MalformedBody("a key in another letter case")


def fields(node: Any) -> Mapping[str, Any]:
    """Return `node` if it is an object, else an empty one.

    Raises MalformedBody for an object that repeats a key: what we would judge and what its reader would read could
    be two different things.
    """
    if type(node) is dict:
        return node
    if type(node) is RepeatedKeys:
        raise MalformedBody("a key is repeated")
    return {}


def items(node: Any) -> list[Any]:
    """Return `node` if it is an array, else an empty one."""
    return node if type(node) is list else []


def _skip_space(text: str, position: int) -> int:
    while text[position] in _SPACE:
        position += 1
    return position


def _spans(text: str, position: int, wanted: Mapping[str | int, Any]) -> Generator[tuple[int, int, str], None, int]:
    """Yield (start, end, replacement) of the wanted values in the container at `position`, in order.

    The generator returns the position behind the container. The text is known to be JSON.
    """
    is_object = text[position] == "{"
    position = _skip_space(text, position + 1)
    index = 0
    while text[position] not in "}]":
        key: str | int = index
        if is_object:
            key, position = scanstring(text, position + 1, True)
            position = _skip_space(text, _skip_space(text, position) + 1)  # the colon
        target = wanted.get(key)
        if isinstance(target, dict) and text[position] in "{[":
            position = yield from _spans(text, position, target)
        else:
            start = position
            _, position = _skipper.raw_decode(text, position)
            if isinstance(target, str):
                yield start, position, target
        index += 1
        position = _skip_space(text, position)
        if text[position] == ",":
            position = _skip_space(text, position + 1)
    return position + 1
