"""What the object around a value, or its media type, says of it: that it is text, and in which charset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from extproc.core.errors import MalformedBody
from extproc.core.vocabulary import Headers

_TYPE_KEYS = ("mimeType", "mime_type", "mediaType", "media_type", "contentType", "content_type")
"""Keys that tell the type of the media beside them."""

_NAME_KEYS = ("filename", "fileName", "file_name", "document_name", "documentName")
"""Keys that tell the name of the file beside them."""

_TELLING = frozenset({*_TYPE_KEYS, *_NAME_KEYS, "format"})
"""All keys that tell something of the media beside them."""

_MAX_TYPE = 128
"""The most characters of a media type that are read. Registered ones are shorter."""

_APPLICATION = "application/"

_TEXT_TYPE = re.compile(
    r"text/|message/|image/svg|application/(?:x-|vnd\.)?"
    r"(?:json5?|json-?lines|jsonl|ndjson|json-seq|xml|xml-dtd|xhtml|yaml|toml|csv|sql|rtf|sgml|markdown|x?html"
    r"|javascript|ecmascript|typescript|graphql|dart|lua|perl|php|httpd-php|powershell|python|ruby|scala"
    r"|sh|csh|bash|shellscript|tex|latex|texinfo|subrip|www-form-urlencoded|[a-z0-9]+-code)$",
    re.IGNORECASE,
).match

_is_text_format = re.compile(
    r"adoc|asm|awk|bash|bat|c|cc|cfg|clj|cmd|cnf|conf|cpp|cs|css|csv|cxx|dart|diff|dockerfile|elm|eml|env|erl|"
    r"ex|exs|f90|fs|geojson|go|gql|gradle|graphql|groovy|h|hcl|hh|hpp|hs|htm|html|ics|ini|ipynb|java|jl|js|json|"
    r"json5|jsonl|jsx|kt|kts|latex|less|lisp|log|lua|m|markdown|md|mdx|mjs|ml|ndjson|patch|php|pl|pm|properties|"
    r"proto|ps1|py|pyi|r|rb|rs|rst|rtf|sass|scala|scss|sh|sql|srt|svg|swift|tex|text|tf|toml|ts|tsv|tsx|txt|vb|"
    r"vcf|vtt|vue|xhtml|xml|yaml|yml|zig|zsh",
    re.IGNORECASE,
).fullmatch
"""The extensions of files that are text, and the names of formats."""

_CHARSETS = re.compile(r";[ \t]*charset[ \t]*=[ \t]*[\"']?([^\"';,\s]*)", re.IGNORECASE)
_CHARSET = _CHARSETS.search

_PLAIN = frozenset(
    {
        "",
        "ascii",
        "cp1252",
        "iso-8859-1",
        "iso8859-1",
        "latin-1",
        "latin1",
        "us-ascii",
        "utf-8",
        "utf8",
        "windows-1252",
    }
)
"""Charsets of texts that are recognised by their bytes."""

_WIDE = frozenset({"utf-16", "utf16", "utf-16be", "utf-16le", "utf16be", "utf16le"})


def is_text_type(media_type: str) -> bool:
    """Return whether a media type, which may have parameters, is that of a text."""
    # Only its beginning counts, because there may be many of them.
    kind = media_type[:_MAX_TYPE].partition(";")[0].strip()
    before, _, suffix = kind.rpartition("+")
    if before[: len(_APPLICATION)].lower() == _APPLICATION:
        kind = _APPLICATION + suffix  # `application/ld+json`
    return _TEXT_TYPE(kind) is not None


def declares_text(node: Mapping[str, Any]) -> bool:
    """Return whether an object says that the media in it are text.

    It says so by their type (`"mimeType": "text/csv"`), by their format (`"format": "md"`) or by the name of their file
    (`"filename": "a.txt"`).
    """
    if _TELLING.isdisjoint(node):
        return False  # as most objects
    if any(isinstance(kind, str) and is_text_type(kind) for kind in map(node.get, _TYPE_KEYS)):
        return True
    form = node.get("format")
    if isinstance(form, str) and _is_text_format(form):
        return True
    names = map(node.get, _NAME_KEYS)
    return any(isinstance(name, str) and _is_text_format(name[-_MAX_TYPE:].rpartition(".")[2]) for name in names)


def is_plain_charset(name: str) -> bool:
    """Return whether a charset, or none (""), is a superset of ASCII that is recognised by its bytes."""
    return name in _PLAIN


def check_charsets(headers: Headers) -> None:
    """Raise MalformedBody if the headers say that a body is in a charset in which other words stand there, as UTF-7."""
    for name, value in headers:
        if name == "content-type" and not all(is_plain_charset(each.lower()) for each in _CHARSETS.findall(value)):
            raise MalformedBody("a charset that is not read")


def declares_wide(media_type: str) -> bool:
    """Return whether a media type says that its text is UTF-16; raise MalformedBody for a charset that is not read."""
    found = _CHARSET(media_type)
    charset = found[1].lower() if found is not None else ""
    if not is_plain_charset(charset) and charset not in _WIDE:
        raise MalformedBody("a charset that is not read")
    return charset in _WIDE


def wide_media(node: Mapping[str, Any]) -> bool:
    """Return whether an object says that the media in it are UTF-16; raise like `declares_wide`."""
    if _TELLING.isdisjoint(node):
        return False
    kinds = [kind for kind in map(node.get, _TYPE_KEYS) if isinstance(kind, str)]
    return True in {declares_wide(kind[:_MAX_TYPE]) for kind in kinds}
