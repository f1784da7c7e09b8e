"""The dialects, and the table that picks one by method and normalised path; never by content type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from urllib.parse import unquote

from extproc.dialects.base import Dialect, Leaf, Prompt
from extproc.dialects.openai_chat import OpenAIChat

__all__ = ["DEFAULT", "NAMES", "Dialect", "Leaf", "Prompt", "normalise", "pick"]

_TABLE: tuple[tuple[str, Dialect], ...] = (("*/chat/completions", OpenAIChat()),)
"""Glob of the normalised path -> dialect; the first that matches wins."""

DEFAULT: Dialect = _TABLE[0][1]
"""Gives refusals their shape where no dialect knows the path."""

NAMES: Mapping[str, Dialect] = {dialect.name: dialect for _, dialect in _TABLE}


def normalise(path: str) -> str:
    """Return the path as the guards see it, whatever its spelling.

    Query and fragment cut, percent-decoded once, backslashes as slashes, path parameters (`;x=y`) and white space
    at the end of a segment cut, dot segments and repeated slashes resolved, no trailing slash, lower case. More
    lenient than any one upstream is: what some upstream may take for a guarded path is guarded.
    """
    path = unquote(re.split(r"[?#]", path, maxsplit=1)[0], errors="replace").replace("\\", "/")
    segments: list[str] = []
    for raw in path.split("/"):
        segment = raw.split(";", 1)[0].strip("\0\t\n\v\f\r ")
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments).lower()


def pick(method: str, path: str, paths: Mapping[str, str]) -> Dialect | None:
    """Return the dialect of a request, or None; `paths` (glob -> name) goes before the built-in table."""
    if method.upper() != "POST":
        return None
    normal = normalise(path)
    for pattern, name in paths.items():
        if fnmatchcase(normal, pattern.lower()):
            return NAMES[name]
    return next((dialect for pattern, dialect in _TABLE if fnmatchcase(normal, pattern)), None)
