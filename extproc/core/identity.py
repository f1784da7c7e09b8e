"""The caller's identity: user, key alias and conversation, read from the sources that the operator trusts.

A source is `header:NAME`, `metadata:NAMESPACE/path/to/value`, `attribute:NAME` or `static:VALUE`. A client can set any
header that Envoy does not remove first. It cannot forge dynamic metadata (such as a verified JWT's claims), attributes
and static values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from extproc.core.events import HeadersReceived
from extproc.core.vocabulary import Headers

MAX_VALUE = 512
"""The maximum length of an identity value, in characters; the rest is cut off."""

_HEADER_NAME = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token, as HTTP has it, or one of the names with a colon that Envoy gives to the method, path and authority."""

Kind = Literal["header", "metadata", "attribute", "static"]


@dataclass(frozen=True, slots=True)
class Source:
    """One place from which a value is read."""

    kind: Kind
    name: str

    @classmethod
    def parse(cls, spec: str) -> Source:
        """Parse a source as the settings spell it.

        Raises ValueError, with a message for the operator, if `spec` is not a source.
        """
        kind, colon, name = spec.partition(":")
        if not colon or not name:
            raise ValueError("a source is header:NAME, metadata:NAMESPACE/path, attribute:NAME or static:VALUE")
        match kind:
            case "header":
                if not _HEADER_NAME.fullmatch(name):
                    raise ValueError("a header source is header:NAME; the name has a character that no header name has")
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
        """Return the value for this request, or None. Numbers become text; values of other types are ignored."""
        match self.kind:
            case "static":
                return self.name
            case "header":
                wanted = self.name
                for name, value in request.headers:
                    if name == wanted and value:
                        return _decoded(value)
                return None
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


@dataclass(frozen=True, slots=True)
class Identity:
    """The information about the caller that Aim gets."""

    user_email: str | None = None
    key_alias: str | None = None
    session_id: str | None = None


NOBODY = Identity()


def find_attribute(attributes: Mapping[str, Any], name: str) -> Any:
    """Return Envoy's attribute `name`, or None. Any extension's namespace may contain it."""
    for values in attributes.values():
        if isinstance(values, Mapping) and name in values:
            return values[name]
    return None


def own_headers(headers: Headers) -> tuple[str, ...]:
    """Return the names of the `x-aim-*` and `x-cato-*` headers, which the upstream must not see."""
    return tuple(dict.fromkeys([name for name, _ in headers if name.startswith(("x-aim-", "x-cato-"))]))


def first_value(sources: Iterable[Source], request: HeadersReceived) -> str | None:
    """Return the value of the first source that has one, made valid for an HTTP header; None if there is none."""
    for source in sources:
        value = source.read(request)
        if value:
            cleaned = "".join(character for character in value if character.isprintable())[:MAX_VALUE].strip()
            if cleaned:
                return cleaned
    return None


def _decoded(value: str) -> str:
    """Decode a header value, given as latin-1, as UTF-8 if possible."""
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
