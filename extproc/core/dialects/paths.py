"""Chooses how a request is handled, by method and normalised path, never by content type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.gemini import Gemini
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.dialects.openai_requests import Embeddings, Images, Rerank, Speech
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.policy import Unmatched

GENERIC = Generic()
"""The dialect that reads JSON on a path that no dialect knows."""

_DIALECTS: tuple[Dialect, ...] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    AnthropicMessages(),
    Gemini(),
    Embeddings(),
    Images(),
    Speech(),
    Rerank(),
    GENERIC,
)

NAMES: Mapping[str, Dialect] = {dialect.name: dialect for dialect in _DIALECTS}

DEFAULT: Dialect = _DIALECTS[0]
"""The dialect that shapes refusals on a path that no dialect knows."""

_TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("POST", "openai-chat", ("*/chat/completions",)),
    ("POST", "openai-completions", ("*/completions",)),
    (
        "POST",
        "openai-responses",
        (
            "*/responses",
            "*/responses/compact",
            "*/responses/input_tokens",
            "*/responses/{id}/cancel",
            "*/conversations",
            "*/conversations/{id}/items",
        ),
    ),
    (
        "POST",
        "anthropic-messages",
        (
            "*/v1/messages",
            "*/v1/messages/count_tokens",
            "*/publishers/anthropic/models/*:rawpredict",
            "*/publishers/anthropic/models/*:streamrawpredict",
        ),
    ),
    ("POST", "gemini", ("*:generatecontent", "*:streamgeneratecontent")),
    ("POST", "openai-embeddings", ("*/embeddings",)),
    ("POST", "openai-images", ("*/images/generations",)),
    ("POST", "openai-speech", ("*/audio/speech",)),
    ("POST", "rerank", ("*/rerank",)),
    # Stored and background answers are answers of the dialect that made them.
    ("GET", "openai-chat", ("*/chat/completions/{id}", "*/chat/completions/{id}/messages")),
    (
        "GET",
        "openai-responses",
        (
            "*/responses/{id}",
            "*/responses/{id}/input_items",
            "*/conversations/{id}/items",
            "*/conversations/{id}/items/{id}",
        ),
    ),
)
"""Method, dialect, and the normalised paths on which the dialect reads. `*` is any prefix, `{id}` one segment.

The first match wins."""


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\{id\}", "[^/]+"), re.DOTALL)


_PATTERNS = tuple((method, NAMES[name], tuple(map(_compiled, patterns))) for method, name, patterns in _TABLE)

_ROUNDS = 32
"""How often percent-encoding is decoded at most. Only a path made for it needs more than two rounds."""

_ENCODED_PERCENT = re.compile("%(?:25)+")

_QUERY = re.compile("[?#]")

_PARAMETERS = re.compile(r"[;?#\0]")
"""What ends a segment for some server: a path parameter, a delimiter that was encoded, the end of a C string."""

_EDGES = "".join(map(chr, (*range(0x21), *range(0x7F, 0xA1))))
"""White space and control characters. They are cut at both ends of a segment."""

_SUFFIX = re.compile(rf"(?:\.[a-z0-9]{{0,8}}[{_EDGES}]{{0,8}})+\Z")
"""The format suffix of a path, such as `.json`."""

_LONGEST_SUFFIX = 32


@dataclass(frozen=True, slots=True)
class Route:
    """How a request is handled: by the dialect that knows it, or, if there is none, as `unmatched` says."""

    dialect: Dialect | None
    unmatched: Unmatched = Unmatched.PASS


def spellings(path: str) -> tuple[str, ...]:
    """Return the forms under which a path is looked up: first the normalised path, then what some servers read instead.

    In the normalised path query and fragment are cut, percent-encoding is decoded until nothing changes, and
    backslashes become slashes. In each segment everything from a path parameter (`;x=y`) or an encoded delimiter
    (`%3F`, `%23`, `%00`) is cut, and white space and control characters at the ends. Dot segments and repeated slashes
    are resolved, a trailing slash is cut, and letters are lower case. This is more lenient than any upstream, so that a
    path which an upstream accepts as a guarded one is guarded.

    Some servers cut the path at an encoded `?` or `#`, as they would at a plain one, and some ignore a format suffix.
    """
    decoded = _decoded(path)
    found = [_resolved(decoded), _resolved(_QUERY.split(decoded, maxsplit=1)[0])]
    found += [_without_suffix(form) for form in found]
    return tuple(dict.fromkeys(found))


def _decoded(path: str) -> str:
    path = _QUERY.split(path, maxsplit=1)[0]
    for _ in range(_ROUNDS):
        before = path
        path = unquote(_ENCODED_PERCENT.sub("%25", path), errors="replace")
        if path == before:
            break
    return path.replace("\\", "/")


def _resolved(path: str) -> str:
    segments: list[str] = []
    for raw in path.split("/"):
        segment = _PARAMETERS.split(raw.strip(_EDGES), maxsplit=1)[0].strip(_EDGES)
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments).lower()


def _without_suffix(path: str) -> str:
    parent, _, last = path.rpartition("/")
    shorter = (last[:-_LONGEST_SUFFIX] + _SUFFIX.sub("", last[-_LONGEST_SUFFIX:])).rstrip(_EDGES)
    return f"{parent}/{shorter}" if shorter else path


def route(
    method: str, path: str, paths: Mapping[str, str], unmatched: Unmatched = Unmatched.PASS, *, is_upgrade: bool = False
) -> Route:
    """Return how a request is handled.

    `paths` maps `[METHOD ]GLOB` to the name of a dialect, or to what `unmatched` may be. It takes precedence over the
    built-in table, and its first match wins. An upgraded connection could carry any method, so an upgrade also has the
    route of a POST.
    """
    methods = (method.upper(), "POST") if is_upgrade else (method.upper(),)
    path = _QUERY.split(path, maxsplit=1)[0]  # a query may hold a key, which must not be cached
    forms, built_in = _recall(path) if len(path) <= _SHORT else _look_up(path)
    for key, target in paths.items():
        wanted, pattern = _rule(key)
        # A path passes only if it matches however it is read.
        matches = all if target == Unmatched.PASS else any
        if (not wanted or wanted in methods) and matches(fnmatchcase(form, pattern) for form in forms):
            dialect = NAMES.get(target)
            return Route(dialect) if dialect is not None else Route(None, Unmatched(target))
    found = next((built_in[each] for each in methods if each in built_in), None)
    return Route(found, unmatched)


def _rule(key: str) -> tuple[str, str]:
    """Return the method, which may be empty, and the glob of a key of `paths`."""
    if key.startswith(("/", "*")):
        return "", key.lower()
    method, _, pattern = key.partition(" ")
    return method.upper(), pattern.strip().lower()


def _look_up(path: str) -> tuple[tuple[str, ...], Mapping[str, Dialect]]:
    """Return the spellings of a path, and for each method its dialect in the built-in table.

    A dialect that is always inspected goes before one that the settings switch on, however the path is read.
    """
    forms = spellings(path)
    found = sorted((each for form in forms for each in _known(form)), key=lambda each: each[1].opt_in is not None)
    return forms, dict(reversed(found))


def _known(form: str) -> Iterator[tuple[str, Dialect]]:
    for method, dialect, patterns in _PATTERNS:
        if any(pattern.fullmatch(form) for pattern in patterns):
            yield method, dialect


_recall = lru_cache(maxsize=256)(_look_up)
"""A cache: most clients of an API use the same few paths."""

_SHORT = 512
"""The longest path, in characters, that is cached, because clients choose the paths."""
