"""Definitions of tools, functions and schemas: what their author wrote for the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.found import Found
from extproc.core.dialects.joined import NOWHERE, Joined
from extproc.core.dialects.table import UNNAMED

_DEFINED = frozenset({"description", "title", "enum", "default", "examples", "const"})
"""Keys below which the model reads all strings as text, whatever they look like. Others are names if they look so."""

_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keys of objects whose own keys are names of their author, so that `title` there is a property of that name."""


_ALONE = 256
"""The most tools that have a message each. Behind them 256 share one."""


def read_own_definitions(tools: Any, path: Path, found: Found) -> None:
    """Read the definitions of a request: a message for each tool."""
    texts = Joined(locates=found.locates)
    for index, where, tool in _each(tools, path):
        if index % _ALONE == 0 or index < _ALONE:
            found.add_definition(texts)
            texts = Joined(locates=found.locates)
        read_definition(tool, where, texts)
    found.add_definition(texts)


def read_definitions(tools: Any, path: Path, found: Found, *, is_answer: bool) -> None:
    """Read definitions that an answer or event repeats: they are unnamed texts."""
    for _, where, tool in _each(tools, path):
        if is_answer and found.joined is None:
            read_definition(tool, where, found.rest)
        else:
            apart = Joined(locates=True)
            read_definition(tool, where, apart)
            for leaf in apart.parts:
                found.add(leaf, UNNAMED, {})


def _each(tools: Any, path: Path) -> Iterator[tuple[int, Path, Any]]:
    """Yield the index, path and value of each definition; a value that is no list is one."""
    if isinstance(tools, list):
        yield from ((index, (*path, index), tool) for index, tool in enumerate(tools))
    else:
        yield 0, path, tools


def read_definition(tool: Any, path: Path, into: Joined) -> None:
    """Append the texts of the definition at `path`. All of one that is only a string are texts."""
    *around, step = path
    _read(tool, into.outermost(tuple(around)), step, into, is_text=type(tool) is str, is_map=False)


def _read(node: Any, around: int, step: str | int, into: Joined, *, is_text: bool, is_map: bool) -> None:
    """Append the texts of the value at a key or an index of the place `around` it."""
    if isinstance(node, str):
        if node and (is_text or not looks_inert(node)):
            into.add_text(node, around, step)
        return
    if not isinstance(node, dict | list):
        return
    at = into.places.within(around, step) if into.locates else NOWHERE
    if isinstance(node, dict):
        for key, value in node.items():
            if key and not looks_inert(key):
                into.add_text(key, at, key, fixed=True)
            if value is not None:
                below = is_text or (not is_map and key in _DEFINED)
                _read(value, at, key, into, is_text=below, is_map=not is_map and key in _MAPS)
    elif is_text and set(map(type, node)) == {str}:
        into.add_strings(node, at, range(len(node)))
    else:
        for index, value in enumerate(node):
            _read(value, at, index, into, is_text=is_text, is_map=False)
