"""The parts that the page is laid out with: sections, facts and tables."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.admin.markup import Content, Markup, element


def section(name: str, title: str, *content: Content) -> Markup:
    """Return a section under the heading `title`; `name` is the fragment that leads to it."""
    return element("section", element("h2", title, id=name), *content, aria_labelledby=name)


def facts(listed: Sequence[tuple[str, Content]]) -> Markup:
    """Return names with their values."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in listed), class_="facts"
    )


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Content]], empty: str) -> Markup:
    """Return a table whose rows begin with what they are about, or, without rows, the sentence `empty`."""
    if not rows:
        return element("p", empty, class_="empty")
    # The roles are written out because a phone's layout takes the elements' own away.
    head = element("tr", *(element("th", name, scope="col", role="columnheader") for name in columns), role="row")
    body = [
        element(
            "tr",
            *(
                element(
                    "td", element("span", name, class_="name", aria_hidden="true"), element("span", cell), role="cell"
                )
                if position
                else element("th", cell, scope="row", role="rowheader")
                for position, (name, cell) in enumerate(zip(columns, row, strict=True))
            ),
            role="row",
        )
        for row in rows
    ]
    return element(
        "table",
        element("caption", caption),
        element("thead", head, role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        role="table",
        class_="stack",
    )
