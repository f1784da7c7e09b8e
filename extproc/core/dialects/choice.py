"""Chooses by a request's body among the dialects of a path that is not specific to one API."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect
from extproc.core.errors import MalformedBody

Choice = tuple[tuple[str, ...], Dialect]
"""The keys of which a request of the API has at least one, and the dialect. No keys: any request is one."""

ReadForm = Callable[[Dialect], Document]
"""Returns the body, which is called a form, as a document of a dialect."""

_IGNORED = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
"""White space, byte order marks, and the zeros of UTF-16 and UTF-32, in which some servers take JSON, too."""


def choose(
    choices: Sequence[Choice], body: bytes, values: int, read_form: ReadForm | None = None
) -> tuple[Dialect | None, Document | None]:
    """Return the first dialect whose API has such a request, None if there is none; and the document if it was parsed.

    Keys count in any letter case, because some servers read them so. A body that begins like an object but cannot be
    read with certainty is left to the dialect that takes any request, or else to the first one. Raises BodyTooLarge for
    a document of more than `values` values.

    With `read_form` the body is called a form. If it is no object, a dialect that takes forms is chosen by the names of
    the fields; a form that cannot be read with certainty is left to the first such dialect.
    """
    last_keys, last = choices[-1]
    if body.lstrip(_IGNORED)[:1] != b"{":
        takers = [(keys, dialect) for keys, dialect in choices if dialect.takes_forms]
        if body and read_form is not None and takers:
            return _choose_by_form(takers, read_form)
        return (None if last_keys else last), None
    try:
        document = Document.from_bytes(body, values)
    except MalformedBody:
        return (choices[0][1] if last_keys else last), None
    return _first(choices, document), document


def _choose_by_form(takers: Sequence[Choice], read_form: ReadForm) -> tuple[Dialect | None, Document | None]:
    try:
        document = read_form(takers[0][1])
    except MalformedBody:
        return takers[0][1], None
    return _first(takers, document), document


def _first(choices: Sequence[Choice], document: Document) -> Dialect | None:
    """Return the first dialect that has a key of the document."""
    names = {key.casefold() for key in fields(document.root)}
    return next((dialect for keys, dialect in choices if not keys or not names.isdisjoint(keys)), None)
