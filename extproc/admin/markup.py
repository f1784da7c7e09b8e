"""HTML as values: what is not markup by its type is text, and is escaped."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"meta", "link", "br"})


class Markup(str):
    """HTML that may stand as it is."""

    __slots__ = ()


Content = str | None
Attribute = str | int | float | bool | None


def element(name: str, /, *children: Content, **attributes: Attribute) -> Markup:
    """Return an element with `children`, of which those that are no Markup are escaped.

    In the name of an attribute `_` stands for `-`, and one at the end for nothing; True is an attribute without a
    value, None and False are none.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Content) -> Markup:
    """Return `children` side by side; None is nothing."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children if child))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
