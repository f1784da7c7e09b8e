"""The headers of a form (RFC 7578) and of its parts (RFC 2046, RFC 2183), in the one reading that all servers share.

Servers disagree on where a quoted value ends and on bytes that are not UTF-8. Both are read in names of files alone,
which are texts: all their readings are inspected, and none of them may change what the part is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import NamedTuple
from urllib.parse import unquote

from extproc.core.content.declared_text import is_plain_charset
from extproc.core.content.shapes import looks_inert
from extproc.core.errors import MalformedBody

_MOST_HEADERS = 16

_READ = frozenset({"content-disposition", "content-type"})

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]").fullmatch
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*").fullmatch
_VALUE = re.compile(r"([^;\s\"]+)[ \t]*(.*)", re.DOTALL).fullmatch
_PARAMETER = re.compile(r';[ \t]*([!#$%&\'+.^_`|~0-9A-Za-z-]+\*?)=("(?:[^"\\]|\\.)*"|[^\s";]*)[ \t]*', re.DOTALL).match
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_EXTENDED = re.compile(r"utf-8'[A-Za-z0-9-]*'(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_CONTENT_ID = re.compile(r"<[A-Za-z0-9._:/+=%@-]{1,256}>").fullmatch

_UNCLEAR_NAME = re.compile("[;\\\\\ud800-\udfff]").search
"""Match a semicolon or a backslash, which some servers do not keep, and a byte that is not UTF-8."""

_is_file = re.compile(r"[^;\s]").match
"""Match the name of a file that is not empty for any server, also if it ends at a semicolon."""

_NOT_UTF_8 = re.compile("[\ud800-\udfff]").search

_HIDDEN_NAME = re.compile(r"""(?:^|[;"])\s*(?:file)?name[*0-9]*\s*=|\\$""", re.IGNORECASE).search
"""Match a value that holds parameters, or that goes on, for servers that find another end of it."""


class Disposition(NamedTuple):
    """What a part says it is. `filename` has all readings of the name of the file, one a line; None if it has none."""

    name: str
    filename: str | None
    is_file: bool
    """Whether it is a file for all servers, some of which do not read `filename*`."""


def boundary_of(content_type: str) -> str:
    """Return the boundary that a content-type header names.

    Raises MalformedBody if there is none, and for other parameters that could change how the form is read.
    """
    parameters = parsed(content_type)[1]
    boundary = parameters.pop("boundary", "")
    if not _BOUNDARY(boundary):
        raise MalformedBody("a form without a valid boundary")
    check_charset(parameters.pop("charset", ""))
    check_inert(parameters.values())
    return boundary


def headers_of(block: bytes) -> Mapping[str, str]:
    """Return the headers of a part, by name in lower case."""
    headers: dict[str, str] = {}
    lines = block.decode("utf-8", "surrogateescape").split("\r\n") if block else []
    for line in lines:
        found = _HEADER(line)
        name, value = (found[1].lower(), found[2]) if found is not None else ("", "")
        if not name or name in headers or len(headers) == _MOST_HEADERS:
            raise MalformedBody("the headers of a part are broken")
        if name not in _READ and value and not (looks_inert(value) or (name == "content-id" and _CONTENT_ID(value))):
            raise MalformedBody("a header of a part may be a text")
        headers[name] = value
    return headers


def disposition_of(value: str) -> Disposition:
    """Return what a part says it is; raise MalformedBody if servers could read it in different ways."""
    kind, parameters = parsed(value)
    if kind != "form-data" or any(map(_HIDDEN_NAME, parameters.values())):
        raise MalformedBody("a part whose headers are unclear")
    # Where servers find another end of an escaped value, they may not find the name behind it.
    is_late = any('"' in parameters[key] for key in takewhile("name".__ne__, parameters))
    name = parameters.pop("name", None)
    if name is None or is_late or _UNCLEAR_NAME(name):
        raise MalformedBody("a part without a clear name")
    plain = parameters.pop("filename", None)
    names = [*_readings(plain), *_extended(parameters.pop("filename*", None))]
    check_inert(parameters.values())
    return Disposition(name, "\n".join(dict.fromkeys(names)) if names else None, _is_file(plain or "") is not None)


def _readings(value: str | None) -> list[str]:
    """Return the name of a file as servers read it.

    A backslash is part of the name, or removed. Bytes that are not UTF-8 are lost, or the name is Latin-1.
    """
    if value is None:
        return []
    texts = [value.replace('\\"', '"'), _PAIR.sub(r"\1", value)]
    if not _NOT_UTF_8(value):
        return texts
    data = [text.encode("utf-8", "surrogateescape") for text in texts]
    return [each.decode(*how) for how in (("utf-8", "replace"), ("latin-1",)) for each in data]


def _extended(value: str | None) -> list[str]:
    """Return a name in the form of RFC 8187."""
    if value is None:
        return []
    found = _EXTENDED(value)
    if found is None or _NOT_UTF_8(value):
        raise MalformedBody("the name of a file is broken")
    try:
        return [unquote(found[1], errors="strict")]
    except UnicodeDecodeError as error:
        raise MalformedBody("the name of a file is not UTF-8") from error


def parsed(value: str) -> tuple[str, dict[str, str]]:
    """Return the value of a header in lower case, and its parameters; raise MalformedBody if they are broken."""
    if not value:
        return "", {}
    found = _VALUE(value)
    if found is None:
        raise MalformedBody("a header is broken")
    parameters: dict[str, str] = {}
    position = 0
    rest = found[2]
    while position < len(rest):
        each = _PARAMETER(rest, position)
        name, text = (each[1].lower(), each[2]) if each is not None else ("", "")
        # Some servers read `name*0`, `name*` and single quotation marks, too.
        is_extended = name.endswith("*")
        is_quoted = text.startswith('"')
        if each is None or name in parameters or (is_extended and name != "filename*"):
            raise MalformedBody("the parameters of a header are broken")
        if "'" in text and not is_extended and not is_quoted:
            raise MalformedBody("a parameter of a header has an unclear end")
        parameters[name] = text[1:-1] if is_quoted else text
        position = each.end()
    return found[1].lower(), parameters


def check_inert(values: Iterable[str]) -> None:
    """Raise MalformedBody unless all values look inert: they are not read."""
    if not all(map(looks_inert, values)):
        raise MalformedBody("a parameter of a header may be a text")


def check_charset(name: str) -> None:
    """Raise MalformedBody unless ASCII is the same in the charset, and UTF-8 read in it keeps all words of ASCII."""
    if not is_plain_charset(name.strip().lower()):
        raise MalformedBody("a charset that is not read")
