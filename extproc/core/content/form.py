"""A form as a document: its fields by their names.

    name="prompt"                            {"prompt": "text"}
    name="include[]", or a repeated name     {"include": ["text", ...]}
    name="expires_after[anchor]"             {"expires_after": {"anchor": "text"}}
    name="file"; filename="a.jsonl"          {"file": {"filename": null, "content": [{...}, ...]}}

A field of JSON has the parsed value. Media have no value (null), and neither has a name of a file that looks inert.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from extproc.core.content.census import has_more_values
from extproc.core.content.document import Document, Edit, Path, PlainText
from extproc.core.content.framing import Framing
from extproc.core.content.lenient_text import with_escapes_decoded
from extproc.core.content.multipart import FormDecoder, FormPart
from extproc.core.content.shapes import looks_inert
from extproc.core.errors import BodyTooLarge, MalformedBody

_PART_BYTES = 512
"""The memory that a part takes in addition to its bytes and its text."""

_PART_VALUES = 4
"""The values that each part, and each line in one, counts for, because a document costs more than a value."""

_DEEPEST = 16
"""The most steps of a field's name."""

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)").fullmatch
_STEP = re.compile(r"\[([^\[\]]*)\]")

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r]*+(?:\n|\Z)'
_begins_like_json = re.compile(rf"[\ufeff \t\r\n]*(?:\{{|\[\s*[\"{{\[]|{_STRING})", re.DOTALL).match
"""Return whether a text may be JSON for a lenient reader: an object, a list, or a string alone in its line."""

Parse = Callable[[str, Framing], Document]
"""Returns the document of a part's text, which is JSON or lines of JSON."""


class FormDocument(Document):
    """The parts of a form as one document."""

    __slots__ = ("_boundary", "_branches", "_inner", "_parse", "_parts", "_places")

    def __init__(self, body: bytes, boundary: str, values: int, parse: Parse) -> None:
        """Read a form.

        Raises MalformedBody for a form that cannot be read with certainty, and BodyTooLarge for one with more than
        `values` values.
        """
        decoder = FormDecoder(boundary, len(body) + 1)
        self._boundary, self._parse = boundary, parse
        self._parts: list[FormPart] = [*decoder.feed(body), *decoder.finish()]
        self.text = ""
        self._start = 0
        documents = [part.data for part in self._parts if part.data and _may_be_json(part)]
        lines = sum(text.count("\n") + text.count("\r") for text in documents)
        if has_more_values(",".join(documents), values - _PART_VALUES * (len(self._parts) + lines)):
            raise BodyTooLarge("too many values")
        self._inner: list[Document | None] = [self._read(part) for part in self._parts]
        self._places: dict[Path, int] = {}
        self._branches: set[Path] = set()
        self.root = self._fields()

    def _read(self, part: FormPart) -> Document | None:
        if not part.data:
            return None
        if not part.data.strip():
            return PlainText(part.data)
        if part.framing is not Framing.UNKNOWN:
            return with_escapes_decoded(self._parse(part.data, part.framing))
        # Servers take JSON in files of any name.
        for framing in (Framing.JSON_LINES, Framing.WHOLE) if _may_be_json(part) else ():
            with suppress(MalformedBody):
                return with_escapes_decoded(self._parse(part.data, framing))
        text = PlainText(part.data)
        return with_escapes_decoded(text) if _begins_like_json(part.data) else text

    def _fields(self) -> dict[str, Any]:
        root: dict[str, Any] = {}
        counts = Counter(part.name for part in self._parts)
        for number, (part, document) in enumerate(zip(self._parts, self._inner, strict=True)):
            if not part.start:
                continue  # the end
            value = document.root if document is not None else None
            if part.filename is not None:
                value = {"filename": None if looks_inert(part.filename) else part.filename or None, "content": value}
            path = self._put(root, part.name, value, is_repeated=counts[part.name] > 1)
            self._places[path if part.filename is None else (*path, "content")] = number
        return root

    def read_again(self, text: str | None = None) -> FormDocument:
        """Return the form with its parsed values; or another form, whose bytes `text` has, as `rewrite` returns it."""
        body = b"".join(part.raw for part in self._parts) if text is None else text.encode("utf-8", "surrogateescape")
        return FormDocument(body, self._boundary, 2**63, self._parse)

    @property
    def size(self) -> int:
        """The memory that the form takes, in bytes: each part keeps its bytes and its text."""
        inner = sum(document.size for document in self._inner if document is not None)
        return inner + sum(2 * len(part.raw) + _PART_BYTES for part in self._parts)

    def forget(self) -> None:
        """Free the parsed values."""
        self.root = None
        for document in self._inner:
            if document is not None:
                document.forget()

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the form with the value at each path replaced. Bytes that are not UTF-8 become lone surrogates.

        Raises MalformedBody for names, which cannot be replaced, and for a text that a part cannot have.
        """
        inside: dict[int, dict[Path, Edit]] = {}
        for path, value in edits.items():
            number, size = self._find(path)
            inside.setdefault(number, {})[path[size:]] = value
        pieces = []
        for number, (part, document) in enumerate(zip(self._parts, self._inner, strict=True)):
            changed = document is not None and number in inside
            pieces.append(part.with_data(document.rewrite(inside[number])) if document and changed else part.raw)
        return b"".join(pieces).decode("utf-8", "surrogateescape")

    def spelling(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Return the text of the value at each path."""
        inside: dict[int, list[Path]] = {}
        found: dict[Path, str] = {}
        for path in paths:
            number, size = self._find(path)
            document = self._inner[number]
            assert document is not None
            if len(path) == size:
                found[path] = document.text
            else:
                inside.setdefault(number, []).append(path)
        for number, within in inside.items():
            document = self._inner[number]
            assert document is not None
            size = self._find(within[0])[1]
            spelt = document.spelling([path[size:] for path in within])
            found |= {path: spelt[path[size:]] for path in within}
        return found

    def _find(self, path: Path) -> tuple[int, int]:
        """Return the number of the part that has the value at `path`, and the steps that lead to the part."""
        for size in range(len(path) + 1):
            number = self._places.get(path[:size])
            if number is not None:
                return number, size
        raise MalformedBody("a name in a form cannot be changed")

    def _put(self, root: dict[str, Any], name: str, value: Any, *, is_repeated: bool) -> Path:
        """Add the value of a field; return its path."""
        *steps, last = _steps(name)
        if is_list := not last and bool(steps):
            last = steps.pop()
        node: Any = root
        for size, step in enumerate(steps, 1):
            node = self._branch(node, (*steps[: size - 1], step), {})
        path = (*steps, last)
        if is_list or is_repeated:
            values = self._branch(node, path, [])
            values.append(value)
            return (*path, len(values) - 1)
        if last in node:
            raise MalformedBody("a field is an object and a value")
        node[last] = value
        return path

    def _branch(self, node: dict[str, Any], path: tuple[str, ...], empty: Any) -> Any:
        """Return the object or list at `path`, a field of `node`, which is made from names and not a part's value."""
        key = path[-1]
        if path not in self._branches:
            if key in node:
                raise MalformedBody("a field is an object and a value")
            self._branches.add(path)
            node[key] = empty
        if type(node[key]) is not type(empty):
            raise MalformedBody("a field is an object and a list")
        return node[key]


def _may_be_json(part: FormPart) -> bool:
    """Return whether a part is JSON, or a file that begins like an object."""
    if part.framing is not Framing.UNKNOWN:
        return True
    return part.filename is not None and (part.data or "").lstrip("\ufeff \t\r\n").startswith("{")


def _steps(name: str) -> list[str]:
    """Return the keys that a field's name names. The last is empty for an entry of a list."""
    found = _NAME(name)
    steps = [found[1], *_STEP.findall(found[2])] if found is not None else [name]
    if len(steps) > _DEEPEST:
        raise MalformedBody("a field's name has too many steps")
    return steps
