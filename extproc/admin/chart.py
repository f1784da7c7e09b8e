"""Bar charts as inline SVG: a picture for the eye, a sentence and a table for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extproc.admin.markup import Markup, element, join

_PITCH, _WIDTH = 10, 7.4
_HEIGHT = 100


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of bar: its name, the class that colours it, a value for each column, and the sum of it in words."""

    name: str
    kind: str
    values: Sequence[float]
    sum: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The upright axis: its upper end, and how its half and its end are written."""

    top: float
    middle_label: str
    top_label: str


def chart(
    title: str,
    summary: str,
    columns: Sequence[str],
    series: Sequence[Series],
    scale: Scale,
    table: Sequence[Sequence[str]],
    *,
    stacked: bool,
) -> Markup:
    """Return a figure with a bar for each of `columns`, `series` on top of each other or one before the other.

    `summary` says in a sentence what is to be seen; `table` has a row of written values for each column.
    """
    bars: list[Markup] = []
    for position in range(len(columns)):
        floor = 0.0
        for each in series:
            value = each.values[position]
            if value <= 0:
                continue
            height = min(value / scale.top * _HEIGHT, _HEIGHT - floor if stacked else _HEIGHT)
            bars.append(
                element(
                    "rect",
                    class_=each.kind,
                    x=f"{position * _PITCH + (_PITCH - _WIDTH) / 2:g}",
                    y=f"{_HEIGHT - floor - height:.2f}",
                    width=f"{_WIDTH:g}",
                    height=f"{height:.2f}",
                )
            )
            floor += height if stacked else 0
    wide = len(columns) * _PITCH
    lines = [
        element("line", class_="grid", x1=0, x2=wide, y1=y, y2=y, vector_effect="non-scaling-stroke")
        for y in (0, _HEIGHT / 2, _HEIGHT)
    ]
    picture = element(
        "svg",
        *lines,
        *bars,
        viewBox=f"0 0 {wide} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}. {summary}",
    )
    legend = [
        element("li", element("span", class_=f"swatch {each.kind}"), f"{each.name} ", element("b", each.sum))
        for each in series
    ]
    return element(
        "figure",
        element("figcaption", element("h3", title), element("ul", *legend, class_="legend")),
        element(
            "div",
            element(
                "div",
                element("span", scale.top_label),
                element("span", scale.middle_label),
                element("span", "0"),
                class_="upright",
                aria_hidden="true",
            ),
            picture,
            element(
                "div",
                element("span", columns[0]),
                element("span", columns[len(columns) // 2]),
                element("span", columns[-1]),
                class_="level",
                aria_hidden="true",
            ),
            class_="plot",
        ),
        element("details", element("summary", "As a table"), _table(title, columns, series, table)),
    )


def _table(title: str, columns: Sequence[str], series: Sequence[Series], table: Sequence[Sequence[str]]) -> Markup:
    head = element(
        "tr", element("th", "minute", scope="col"), *(element("th", each.name, scope="col") for each in series)
    )
    rows = [
        element("tr", element("th", column, scope="row"), *(element("td", cell, class_="number") for cell in cells))
        for column, cells in zip(columns, table, strict=True)
    ]
    return element(
        "table",
        element("caption", f"{title}, minute by minute (UTC)"),
        element("thead", head),
        element("tbody", join(*rows)),
    )
