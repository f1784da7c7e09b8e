"""Chooses how a request is handled, by method and normalised path, never by content type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

from extproc.core.dialects.base import Dialect
from extproc.core.dialects.choice import Choice
from extproc.core.dialects.endpoints import ALL, ENDPOINTS, NAMES
from extproc.core.policy import Unmatched


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\{id\}", "[^/]+"), re.DOTALL)


_PATTERNS = tuple(
    (each.method, (tuple(map(str.casefold, each.keys)), ALL[each.dialect]), tuple(map(_compiled, each.paths)))
    for each in ENDPOINTS
)

_ROUNDS = 32
"""How often percent-encoding is decoded at most. Only a path made for it needs more than two rounds."""

_ENCODED_PERCENT = re.compile("%(?:25)+")

_PARAMETERS = re.compile(r"[;?#\0]")
"""What ends a segment for some server: a path parameter, a delimiter that was encoded, the end of a C string."""

_EDGES = "".join(map(chr, (*range(0x21), *range(0x7F, 0xA1))))
"""White space and control characters. They are cut at both ends of a segment."""

_SUFFIX = re.compile(rf"(?:\.[a-z0-9]{{0,8}}[{_EDGES}]{{0,8}})+\Z")
"""The format suffix of a path, such as `.json`."""

_LONGEST_SUFFIX = 32


@dataclass(frozen=True, slots=True)
class Route:
    """How a request is handled: by the dialect that knows it, or, if there is none, as `unmatched` says.

    On a path that is not specific to one API there are `choices`, and the body decides; `dialect` is the one
    that takes any request, or else the first.
    """

    dialect: Dialect | None
    unmatched: Unmatched = Unmatched.PASS
    choices: tuple[Choice, ...] = ()


def spellings(path: str) -> tuple[str, ...]:
    """Return the forms under which a path is looked up: first the normalised path, then what some servers read instead.

    In the normalised path query and fragment are cut, percent-encoding is decoded until nothing changes, and
    backslashes become slashes. In each segment everything from a path parameter (`;x=y`) or an encoded delimiter
    (`%3F`, `%23`, `%00`) is cut, and white space and control characters at the ends. Dot segments and repeated slashes
    are resolved, a trailing slash is cut, and letters are lower case. This is more lenient than any upstream, so that a
    path which an upstream accepts as a guarded one is guarded.

    Some servers cut the path at an encoded `?` or `#`, as they would at a plain one, and some ignore a format suffix.
    """
    path = _cut(path)  # a query may hold a key, which must not be cached
    return _recall(path)[0] if len(path) <= _SHORT else _spelled(path)


def _spelled(path: str) -> tuple[str, ...]:
    plain = _decoded(path)
    found = [_resolved(plain), _resolved(_cut(plain))]
    found += [_without_suffix(form) for form in found]
    return tuple(dict.fromkeys(found))


def _cut(path: str) -> str:
    """Return a path without query and fragment."""
    return path.partition("?")[0].partition("#")[0]


def _decoded(path: str) -> str:
    """Return a path with its percent-encoding decoded until nothing changes."""
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


_WILDCARD = re.compile(r"[*?]|\[!?\]?[^\]]*\]")
"""The wildcards of a glob, as `fnmatch` reads them."""

_STANDS_IN = 0xD800
"""The first of the characters that stand for wildcards while a glob is normalised: surrogates, which no path holds."""

_MOST_WILDCARDS = 0x800

_ESCAPED = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})


def normalised_glob(glob: str) -> str:
    """Return a glob of paths in the form of the paths that it is compared with: see `spellings`. Wildcards stay.

    Raises ValueError, with a message for the operator, for a glob that would lose a wildcard and so have another
    meaning, and for one that no path can match.
    """
    if any("\ud800" <= character <= "\udfff" for character in glob):
        raise ValueError("is not Unicode text")
    wildcards = _WILDCARD.findall(glob)
    if len(wildcards) > _MOST_WILDCARDS:
        raise ValueError(f"has more than {_MOST_WILDCARDS} wildcards")
    places = map(chr, range(_STANDS_IN, _STANDS_IN + len(wildcards)))
    by_place = dict(zip(places, wildcards, strict=True))
    waiting = iter(by_place)
    path = _resolved(_decoded(_cut(_WILDCARD.sub(lambda _: next(waiting), glob))))
    if not all(place in path for place in by_place):
        raise ValueError("has a wildcard where requests are cut: behind ; # %3F or %00 or in front of a segment ..")
    if glob.startswith("*"):
        path = path.removeprefix("/")  # it begins with a wildcard, which may stand for the slash too
    return "".join([by_place[each].lower() if each in by_place else each.translate(_ESCAPED) for each in path])


def _without_suffix(path: str) -> str:
    parent, _, last = path.rpartition("/")
    head, tail = last[:-_LONGEST_SUFFIX], last[-_LONGEST_SUFFIX:]
    while (shorter := _SUFFIX.sub("", tail).rstrip(_EDGES)) != tail:
        tail = shorter
    last = (head + tail).rstrip(_EDGES)
    return f"{parent}/{last}" if last else path


def route(
    method: str, path: str, paths: Mapping[str, str], unmatched: Unmatched = Unmatched.PASS, *, is_upgrade: bool = False
) -> Route:
    """Return how a request is handled.

    `paths` maps `[METHOD ]GLOB`, with normalised globs, to the name of a dialect, or to what `unmatched` may be. It
    takes precedence over the built-in table, and its first match wins. An upgraded connection could carry any method,
    so an upgrade also has the route of a POST.
    """
    methods = (method.upper(), "POST") if is_upgrade else (method.upper(),)
    path = _cut(path)  # a query may hold a key, which must not be cached
    forms, built_in = _recall(path) if len(path) <= _SHORT else _look_up(path)
    for key, target in paths.items():
        wanted, pattern = _rule(key)
        # A path passes only if it matches however it is read.
        matches = all if target == Unmatched.PASS else any
        if (not wanted or wanted in methods) and matches(fnmatchcase(form, pattern) for form in forms):
            dialect = NAMES.get(target)
            return Route(dialect) if dialect is not None else Route(None, Unmatched(target))
    choices = next((built_in[each] for each in methods if each in built_in), ())
    if not choices:
        return Route(None, unmatched)
    (first_keys, first), (last_keys, last) = choices[0], choices[-1]
    return Route(first if last_keys else last, unmatched, choices if first_keys else ())


def _rule(key: str) -> tuple[str, str]:
    """Return the method, which may be empty, and the glob of a key of `paths`."""
    if key.startswith(("/", "*")):
        return "", key.lower()
    method, _, pattern = key.partition(" ")
    return method.upper(), pattern.strip().lower()


def _look_up(path: str) -> tuple[tuple[str, ...], Mapping[str, tuple[Choice, ...]]]:
    """Return the spellings of a path, and for each method the choices in the built-in table, up to one without keys.

    A dialect that is always inspected goes before one that the settings switch on, however the path is read.
    """
    forms = _spelled(path)
    found = [each for form in forms for each in _known(form)]
    found.sort(key=lambda each: each[1][1].opt_in is not None)
    choices: dict[str, tuple[Choice, ...]] = {}
    for method, choice in found:
        before = choices.get(method, ())
        if choice not in before and (not before or before[-1][0]):
            choices[method] = (*before, choice)
    return forms, choices


def _known(form: str) -> Iterator[tuple[str, Choice]]:
    for method, choice, patterns in _PATTERNS:
        if any(pattern.fullmatch(form) for pattern in patterns):
            yield method, choice


_recall = lru_cache(maxsize=256)(_look_up)
"""A cache: most clients of an API use the same few paths."""

_SHORT = 512
"""The longest path, in characters, that is cached, because clients choose the paths."""
