"""Writes YAML with comments that give the reasons for values: the output format of `extproc render`.

A tree consists of dicts, lists, strings, numbers and booleans. `because` attaches a reason to a key of a dict. The
key still equals the plain string, so a tree with reasons equals the same tree without.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

Tree = dict[str, Any]

_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@-]*")


class _Key(str):
    __slots__ = ("reason",)

    reason: str

    def __new__(cls, name: str, reason: str) -> _Key:
        key = super().__new__(cls, name)
        key.reason = reason
        return key


def because(reason: str, /, **values: Any) -> Tree:
    """Return `values`; the first has `reason` as its comment.

    The comment is wrapped; lines that start with a space are printed unchanged.
    """
    first, *others = values
    return {_Key(first, reason): values[first], **{name: values[name] for name in others}}


def dump(tree: Tree, *, header: str = "") -> str:
    """Return `tree` as a YAML document under the comment `header`; a repeated reason is printed once."""
    lines = [*_comment(header, 0), *_Writer().mapping(tree, 0)]
    return "".join(f"{line}\n" for line in lines)


def dump_all(trees: Iterable[Tree], *, header: str = "") -> str:
    """Return `trees` as the documents of one YAML stream under the comment `header`, each reason printed once."""
    writer = _Writer()
    documents = [[*writer.mapping(tree, 0)] for tree in trees]
    lines = [*_comment(header, 0), *(line for document in documents for line in ("---", *document))]
    return "".join(f"{line}\n" for line in lines)


class _Writer:
    def __init__(self) -> None:
        self._given: set[str] = set()

    def mapping(self, tree: Tree, depth: int) -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(key, _Key) and key.reason not in self._given:
                self._given.add(key.reason)
                yield from _comment(key.reason, depth)
            if isinstance(value, dict) and value:
                yield f"{_scalar(key)}:"
                yield from (f"  {line}" for line in self.mapping(value, depth + 1))
            elif isinstance(value, list) and value:
                yield f"{_scalar(key)}:"
                yield from (f"  {line}" for line in self.sequence(value, depth + 1))
            else:
                yield f"{_scalar(key)}: {_scalar(value)}"

    def sequence(self, items: list[Any], depth: int) -> Iterator[str]:
        for item in items:
            if not isinstance(item, dict) or not item:
                yield f"- {_scalar(item)}"
                continue
            start = "- "
            for line in self.mapping(item, depth + 1):
                if line.startswith("#") and start == "- ":
                    yield line
                else:
                    yield start + line
                    start = "  "


def _comment(text: str, depth: int) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith(" "):
            yield f"# {line}"
        else:
            yield from (f"# {part}" for part in textwrap.wrap(line, _WIDTH - 2 * depth - 2, break_on_hyphens=False))


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return str(value)
    # JSON's scalars and empty collections are valid YAML.
    return json.dumps(value)
