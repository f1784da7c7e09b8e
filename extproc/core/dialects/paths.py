"""Chooses the dialect of a request by method and normalised path, never by content type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.gemini import Gemini
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.dialects.openai_requests import Embeddings, Images, Rerank, Speech
from extproc.core.dialects.openai_responses import OpenAIResponses

_TABLE: tuple[tuple[Dialect, tuple[str, ...]], ...] = (
    (OpenAIChat(), ("*/chat/completions",)),
    (OpenAICompletions(), ("*/completions",)),
    (
        OpenAIResponses(),
        (
            "*/responses",
            "*/responses/compact",
            "*/responses/input_tokens",
            "*/conversations",
            "*/conversations/*/items",
        ),
    ),
    (
        AnthropicMessages(),
        (
            "*/v1/messages",
            "*/v1/messages/count_tokens",
            "*/publishers/anthropic/models/*:rawpredict",
            "*/publishers/anthropic/models/*:streamrawpredict",
        ),
    ),
    (Gemini(), ("*:generatecontent", "*:streamgeneratecontent")),
    (Embeddings(), ("*/embeddings",)),
    (Images(), ("*/images/generations",)),
    (Speech(), ("*/audio/speech",)),
    (Rerank(), ("*/rerank",)),
)
"""Each dialect with the globs of its normalised paths. The first match wins."""

DEFAULT: Dialect = _TABLE[0][0]
"""The dialect that shapes refusals on a path that no dialect knows."""

NAMES: Mapping[str, Dialect] = {dialect.name: dialect for dialect, _ in _TABLE}


def normalise(path: str) -> str:
    """Return the same form for all spellings of a path.

    Query and fragment are cut, percent-encoding is decoded once, backslashes become slashes, path parameters (`;x=y`)
    and white space at the end of a segment are cut, dot segments and repeated slashes are resolved, a trailing slash
    is cut, and letters are lower case. This is more lenient than any upstream, so that a path which an upstream
    accepts as a guarded one is guarded.
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
    """Return the dialect of a request, or None. `paths` (glob -> name) takes precedence over the built-in table."""
    if method.upper() != "POST":
        return None
    path = re.split(r"[?#]", path, maxsplit=1)[0]  # a query may hold a key, which must not be cached
    normal, built_in = _recall(path) if len(path) <= _SHORT else _look_up(path)
    for pattern, name in paths.items():
        if fnmatchcase(normal, pattern.lower()):
            return NAMES[name]
    return built_in


def _look_up(path: str) -> tuple[str, Dialect | None]:
    """Return the normalised path, and its dialect in the built-in table."""
    normal = normalise(path)
    found = (dialect for dialect, patterns in _TABLE if any(fnmatchcase(normal, pattern) for pattern in patterns))
    return normal, next(found, None)


_recall = lru_cache(maxsize=256)(_look_up)
"""A cache: most clients of an API use the same few paths."""

_SHORT = 512
"""The longest path, in characters, that is cached, because clients choose the paths."""
