"""The headers of a form (RFC 7578) and of its parts (RFC 2046, RFC 2183), in the one reading that all servers share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from extproc.core.content.shapes import looks_inert
from extproc.core.errors import MalformedBody

_MOST_HEADERS = 16

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]").fullmatch
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*").fullmatch
_VALUE = re.compile(r"([^;\s\"]+)[ \t]*(.*)", re.DOTALL).fullmatch
_PARAMETER = re.compile(r';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\[^"])*"|[^\s";]*)[ \t]*', re.DOTALL).match
"""A parameter. No quotation mark stands behind a backslash: some servers read it as the end, others do not."""

_EXTENDED = re.compile(r"utf-8'[A-Za-z0-9-]*'(.*)", re.IGNORECASE | re.DOTALL).fullmatch


def boundary_of(content_type: str) -> str:
    """Return the boundary that a content-type header names; raise MalformedBody if there is none."""
    boundary = parsed(content_type)[1].get("boundary", "")
    if not _BOUNDARY(boundary):
        raise MalformedBody("a form without a valid boundary")
    return boundary


def headers_of(block: bytes) -> Mapping[str, str]:
    """Return the headers of a part, by name in lower case."""
    headers: dict[str, str] = {}
    try:
        lines = block.decode().split("\r\n") if block else []
    except UnicodeDecodeError as error:
        raise MalformedBody("the headers of a part are not UTF-8") from error
    for line in lines:
        found = _HEADER(line)
        name, value = (found[1].lower(), found[2]) if found is not None else ("", "")
        if not name or name in headers or len(headers) == _MOST_HEADERS:
            raise MalformedBody("the headers of a part are broken")
        if name not in ("content-disposition", "content-type") and value and not looks_inert(value):
            raise MalformedBody("a header of a part may be a text")
        headers[name] = value
    return headers


def disposition_of(value: str) -> tuple[str, str | None]:
    """Return the names of the field and of the file, None if the part is no file."""
    kind, parameters = parsed(value)
    name = parameters.pop("name", None)
    if kind != "form-data" or name is None or "\\" in name:
        raise MalformedBody("a part without a clear name")
    names = [parameters.pop("filename", None), _extended(parameters.pop("filename*", None))]
    check_inert(parameters.values())
    known = dict.fromkeys(each for each in names if each is not None)
    return name, "\n".join(known) if known else None


def _extended(value: str | None) -> str | None:
    """Return a name in the form of RFC 8187."""
    if value is None:
        return None
    found = _EXTENDED(value)
    try:
        return unquote(found[1], errors="strict") if found is not None else _unclear()
    except UnicodeDecodeError:
        return _unclear()


def _unclear() -> str:
    raise MalformedBody("the name of a file is broken")


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
        if each is None or each[1].lower() in parameters:
            raise MalformedBody("the parameters of a header are broken")
        text = each[2]
        parameters[each[1].lower()] = text[1:-1] if text.startswith('"') else text
        position = each.end()
    return found[1].lower(), parameters


def check_inert(values: Iterable[str]) -> None:
    """Raise MalformedBody unless all values look inert: they are not read."""
    if not all(map(looks_inert, values)):
        raise MalformedBody("a parameter of a header may be a text")
