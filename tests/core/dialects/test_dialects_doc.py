"""docs/dialects.md matches the code: each row is tested with a marker at its place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extproc.core.content.document import Document
from extproc.core.dialects.base import Dialect, Leaf
from extproc.core.dialects.paths import NAMES
from extproc.core.redaction import RedactionError, edits
from tests.fakes.reading import strings

PAGE = Path(__file__).parents[3] / "docs/dialects.md"
MARKER = "Zanzibar"
_STEP = re.compile(r"\.?(?P<key>[\w*]+)?(?:\[(?P<element>[^\]]*)\]|\{(?P<object>[^}]*)\})?")


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    dialect: str
    leg: str
    place: str
    inspected: str
    redaction: str

    def __str__(self) -> str:
        return f"{self.dialect} {self.leg} {self.place}"


def rows() -> list[Row]:
    found, section = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("|") and not line.startswith(("| in |", "|---")):
            leg, place, inspected, redaction = (cell.strip() for cell in line.strip("|").split("|"))
            found.append(Row(section, leg, place.strip("`"), inspected, redaction))
    return found


def put(root: Any, place: str, value: Any) -> Any:
    """Return `root` with `value` at a place; create the objects and arrays on the way."""
    if not place:
        return value
    match = _STEP.match(place)
    assert match is not None
    assert match.end() > 0, place
    rest = place[match.end() :]
    key, element, fields = match["key"], match["element"], match["object"]
    if key is not None:
        root = root if isinstance(root, dict) else {}
        name = "any" if key == "*" else key
        inner = place[match.start("key") + len(key) : match.end()] + rest
        return {**root, name: put(root.get(name), inner, value)}
    if element is not None:
        first = root[0] if isinstance(root, list) else None
        return [put(first | _fields(element) if isinstance(first, dict) else _fields(element) or first, rest, value)]
    return put({**(root or {}), **_fields(fields or "")}, rest, value)


def _fields(text: str) -> dict[str, Any]:
    pairs = (pair.split("=") for pair in text.split(",") if pair)
    return {name: [] if name in ("output", "content") else value for name, value in pairs}


def texts(dialect: Dialect, row: Row, document: Document, *, tools: bool) -> list[tuple[str, Leaf | None]]:
    """Return the texts that Aim gets, each with its leaf."""
    if row.leg == "request":
        prompts = dialect.prompts(document, tools=tools)
        return [(json.dumps(prompt.message), prompt.leaf) for prompt in prompts]
    leaves = dialect.answers(document) if row.leg == "answer" else dialect.deltas(document)
    return [(leaf.text, leaf) for leaf in leaves]


def redacted(document: Document, leaf: Leaf | None) -> str:
    """Return the document after a redaction of the marker."""
    text = leaf.text.replace(MARKER, "[X]") if leaf is not None else ""
    return document.rewrite(edits([(leaf, text)]))


@pytest.mark.parametrize("row", rows(), ids=str)
def test_code_does_what_the_row_says(row: Row) -> None:
    dialect = NAMES[row.dialect]
    document = Document(json.dumps(put(None, row.place, MARKER)))
    assert [text for _, text in strings(document.root)].count(MARKER) == 1
    plain = [leaf for text, leaf in texts(dialect, row, document, tools=False) if MARKER in text]
    with_tools = [leaf for text, leaf in texts(dialect, row, document, tools=True) if MARKER in text]
    assert (len(plain), len(with_tools)) == {"yes": (1, 1), "tools": (0, 1), "no": (0, 0)}[row.inspected]
    if row.inspected == "no":
        assert row.redaction == "—"
        return
    (leaf,) = with_tools
    if row.redaction == "refused":
        with pytest.raises(RedactionError):
            redacted(document, leaf)
        return
    manner, *others = row.redaction.split("; ")
    assert manner == "rewritten"
    assert json.loads(redacted(document, leaf)) == put(None, row.place, "[X]")
    for other in others:
        place, how = re.fullmatch(r"`(.+)` (null|emptied|gone)", other).groups()  # type: ignore[union-attr]
        vouching = put(put(None, row.place, MARKER), place, "vouches")
        document = Document(json.dumps(vouching))
        (leaf,) = (leaf for text, leaf in texts(dialect, row, document, tools=False) if MARKER in text)
        after = json.loads(redacted(document, leaf))
        assert "vouches" not in json.dumps(after)
        if how != "gone":
            assert after == put(put(None, row.place, "[X]"), place, None if how == "null" else "")


def test_each_dialect_and_nothing_else_has_a_section() -> None:
    sections = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert sections == ["Paths", "Answers", "All of them", *NAMES]
    assert {row.dialect for row in rows()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_dialect_that_reads_answers_documents_them(name: str) -> None:
    inspected = {row.leg for row in rows() if row.dialect == name and row.inspected == "yes"}
    assert inspected == ({"request", "answer", "event"} if NAMES[name].reads_answers else {"request"})


def test_each_row_is_there_once() -> None:
    assert len({str(row) for row in rows()}) == len(rows())
