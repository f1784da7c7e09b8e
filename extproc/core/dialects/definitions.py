"""Definitions of tools, functions and schemas: what their author wrote for the model."""

from __future__ import annotations

from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.joined import At, Joined

_DEFINED = frozenset({"description", "title", "enum", "default", "examples", "const"})
"""Keys below which the model reads all strings as text, whatever they look like. Others are names if they look so."""

_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keys of objects whose own keys are names of their author, so that `title` there is a property of that name."""


def read_definition(tool: Any, path: Path, into: Joined) -> None:
    """Append the texts of the definition at `path`. All of one that is only a string are texts."""
    _read(tool, (None, path), into, is_text=type(tool) is str, is_map=False)


def _read(node: Any, at: At, into: Joined, *, is_text: bool, is_map: bool) -> None:
    if isinstance(node, str):
        if node and (is_text or not looks_inert(node)):
            if into.locates:
                into.mark(at)
            into.texts.append(node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key and not looks_inert(key):
                if into.locates:
                    into.mark((at, key, None))
                into.texts.append(key)
            if value is not None:
                below = is_text or (not is_map and key in _DEFINED)
                _read(value, (at, key), into, is_text=below, is_map=not is_map and key in _MAPS)
    elif isinstance(node, list):
        if is_text and set(map(type, node)) == {str}:
            into.add_strings(node, at, range(len(node)))
        else:
            for index, value in enumerate(node):
                _read(value, (at, index), into, is_text=is_text, is_map=False)
