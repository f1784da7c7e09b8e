"""Definitions of tools, functions and schemas: what their author wrote for the model."""

from __future__ import annotations

from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.leaf import Leaf

_DEFINED = frozenset({"description", "title", "enum", "default", "examples", "const"})
"""Keys whose strings the model reads as text, whatever they look like. Other strings are names if they look so."""


def definition(node: Any, path: Path, *, is_defined: bool) -> list[Leaf]:
    """Return the texts of a definition. With `is_defined` all its strings are texts."""
    leaves: list[Leaf] = []
    _collect(node, path, leaves, is_defined=is_defined)
    return leaves


def _collect(node: Any, path: Path, into: list[Leaf], *, is_defined: bool) -> None:
    if isinstance(node, str):
        if node and (is_defined or not looks_inert(node)):
            into.append(Leaf(path, node))
    elif isinstance(node, dict):
        for key, value in node.items():
            if key and not looks_inert(key):
                into.append(Leaf((*path, key), key, fixed=True))
            is_text = is_defined or (key in _DEFINED and not isinstance(value, dict))
            _collect(value, (*path, key), into, is_defined=is_text)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _collect(value, (*path, index), into, is_defined=is_defined)


def gather_definition(node: Any, into: list[str], *, is_defined: bool) -> None:
    """Append the same texts to `into`, for a fraction of the time."""
    if isinstance(node, str):
        if node and (is_defined or not looks_inert(node)):
            into.append(node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key and not looks_inert(key):
                into.append(key)
            if value is not None:
                gather_definition(value, into, is_defined=is_defined or (key in _DEFINED and type(value) is not dict))
    elif isinstance(node, list):
        if is_defined and set(map(type, node)) == {str}:
            into += filter(None, node)
        else:
            for value in node:
                gather_definition(value, into, is_defined=is_defined)
