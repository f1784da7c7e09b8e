"""Who is asking: user, key alias and conversation, read from the sources that the operator trusts.

A source is `header:NAME`, `metadata:NAMESPACE/path/to/value`, `attribute:NAME` or `static:VALUE`. A header is what
the client sent unless Envoy strips it first; dynamic metadata (a verified JWT's claims, say), attributes and
static values cannot be forged by a client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, assert_never

from extproc.core.events import HeadersReceived
from extproc.core.values import value
from extproc.core.vocabulary import Headers

MAX_VALUE = 512
"""Longest identity value that is passed on, in characters; the rest is cut."""

Kind = Literal["header", "metadata", "attribute", "static"]


@value
class Source:
    """One place to read a value from."""

    kind: Kind
    name: str

    @classmethod
    def parse(cls, spec: str) -> Source:
        """Read a source as it is written in the settings.

        Raises ValueError, with a sentence for the operator, for anything else.
        """
        kind, colon, name = spec.partition(":")
        if not colon or not name:
            raise ValueError("a source is header:NAME, metadata:NAMESPACE/path, attribute:NAME or static:VALUE")
        match kind:
            case "header":
                return cls("header", name.lower())
            case "metadata":
                if "/" not in name.strip("/"):
                    raise ValueError("a metadata source is metadata:NAMESPACE/path")
                return cls("metadata", name)
            case "attribute":
                return cls("attribute", name)
            case "static":
                return cls("static", name)
            case _:
                raise ValueError("a source starts with header:, metadata:, attribute: or static:")

    def read(self, request: HeadersReceived) -> str | None:
        """Return the value for this request, or None; numbers are written out, other types do not count."""
        match self.kind:
            case "static":
                return self.name
            case "header":
                found = next((value for name, value in request.headers if name == self.name and value), None)
                return None if found is None else _decoded(found)
            case "attribute":
                return _text(find_attribute(request.attributes, self.name))
            case "metadata":
                node: Any = request.metadata
                for step in self.name.split("/"):
                    if not isinstance(node, Mapping):
                        return None
                    node = node.get(step)
                return _text(node)
            case _:
                assert_never(self.kind)


@value
class Identity:
    """What Aim is told about the caller."""

    user_email: str | None = None
    key_alias: str | None = None
    session_id: str | None = None


NOBODY = Identity()


def find_attribute(attributes: Mapping[str, Any], name: str) -> Any:
    """Return Envoy's attribute `name`, whichever extension's namespace it came under, or None."""
    for values in attributes.values():
        if isinstance(values, Mapping) and name in values:
            return values[name]
    return None


def own_headers(headers: Headers) -> tuple[str, ...]:
    """Return the names of the headers that are between a client, us and Aim: the upstream must not see them."""
    return tuple(dict.fromkeys(name for name, _ in headers if name.startswith(("x-aim-", "x-cato-"))))


def first_value(sources: Iterable[Source], request: HeadersReceived) -> str | None:
    """Return what the first source with a value yields, fit for an HTTP header, or None."""
    for source in sources:
        value = source.read(request)
        if value:
            cleaned = "".join(character for character in value if character.isprintable())[:MAX_VALUE].strip()
            if cleaned:
                return cleaned
    return None


def _decoded(value: str) -> str:
    """Return a header value, which comes as latin-1, as the UTF-8 that it most often is."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
