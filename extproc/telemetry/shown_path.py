"""The form in which a path may be shown: words that an API would use, and `{id}` for everything else.

A client chooses the path, so it may hold an id, a name, an e-mail address, a secret or markup. Only harmless parts of
it are shown, and few of them: names from the built-in table of endpoints, versions, and short lower-case words.
"""

from __future__ import annotations

import re

from extproc.core.dialects.endpoints import ENDPOINTS

_ID = "{id}"
_REST = "/*"

_MOST_SEGMENTS = 10
_MOST_CHARACTERS = 120
_MOST_SPLITS = 64  # empty segments included

_WORD_CHARACTERS = 32

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})

_BUILT_IN = frozenset(
    name
    for endpoint in ENDPOINTS
    for pattern in endpoint.paths
    for name in re.split("[/:*]", pattern)
    if name and name != _ID
)

_COMMON = frozenset(
    {
        ".well-known",
        "authorize",
        "batch",
        "call",
        "count",
        "create",
        "default",
        "delete",
        "download",
        "export",
        "favicon.ico",
        "health",
        "import",
        "index.html",
        "list",
        "login",
        "logout",
        "metrics",
        "openapi.json",
        "query",
        "robots.txt",
        "search",
        "status",
        "stream",
        "token",
        "update",
        "upload",
        "validate",
    }
)

_KNOWN = _BUILT_IN | _COMMON

_VERSION = re.compile(r"v[0-9]{1,2}(?:(?:alpha|beta)[0-9]{0,2})?")

_WORD = re.compile(
    r"(?![a-f]{7,}\Z)"  # hexadecimal digits that happen to be letters
    r"(?!.*[bcdfghjklmnpqrstvwxz]{5})"  # letters at random
    r"[a-z]{1,16}(?:[-_][a-z]{1,16}){0,2}"
)

_NAMED = re.compile(
    r".*[^s]s|user|account|customer|member|person|people|profile|tenant|org|organization|team|group|company|employee|patient"
    r"|contact|home|mail|email|name|by|me|u|id"
)
"""A word behind which a path names one of several things or a person: `/users/jane`, `/files/report`."""


def shown_method(method: str) -> str:
    """Return `method` if it is a common one, else `other`."""
    return method if method in _METHODS else "other"


def shown_path(path: str) -> str:
    """Return the form of `path` without its query: at most 120 characters, and `*` for what is left out behind them."""
    plain = path.partition("?")[0].partition("#")[0]
    shown = before = ""
    for number, segment in enumerate(filter(None, plain.split("/", _MOST_SPLITS))):
        before = _shown(segment, is_name=_NAMED.fullmatch(before) is not None)
        if number == _MOST_SEGMENTS or len(shown) + len(before) + len("/") + len(_REST) > _MOST_CHARACTERS:
            return shown + _REST
        shown += "/" + before
    return shown or "/"


def _shown(segment: str, *, is_name: bool) -> str:
    name, colon, verb = segment.rpartition(":")
    if not colon:
        return _shown_word(segment, is_name=is_name)
    known = verb.lower() if len(verb) <= _WORD_CHARACTERS else ""
    return f"{_shown_word(name, is_name=is_name)}:{known}" if name and known in _BUILT_IN else _ID


def _shown_word(word: str, *, is_name: bool) -> str:
    if len(word) > _WORD_CHARACTERS:
        return _ID
    folded = word.lower()
    if folded in _KNOWN or _VERSION.fullmatch(word):
        return folded
    return _ID if is_name or not _WORD.fullmatch(word) else word
