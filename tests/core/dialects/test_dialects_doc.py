"""docs/dialects.md matches the code: its tables are generated, and each rule in them is tried at its place."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from extproc.core.content.document import Document
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.found import Mode
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, Holds, Rule
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.errors import MalformedBody
from extproc.core.redaction import edits
from tools.dialects_reference import DIALECTS, NAMES_SECTION, TARGET, effective, tables, with_tables

MARKER = "Zanzibar"
SENTENCE = f"Meet me in {MARKER} at noon"
FITTING = {
    Holds.INERT: "gpt-4o_mini.2024-07-18",
    Holds.OPAQUE: b64encode(b"sealed" * 100).decode(),
    Holds.SEAL: b64encode(b"sealed" * 100).decode(),
    Holds.URL: "https://example.com/a?b=c",
    Holds.MEDIA: b64encode(b"\x89PNG" + bytes(100)).decode(),
    Holds.TOKENS: ["Zan", "zibar"],
}
"""A value that looks like what the place holds, so that it is no text."""

MODES = {"requests": Mode.REQUEST, "answers": Mode.ANSWER, "events": Mode.EVENT}

TABLES = [(dialect, title, table) for dialect in DIALECTS.values() for title, table in tables(dialect).items()]
each_table = pytest.mark.parametrize(
    ("dialect", "title", "table"), TABLES, ids=[f"{dialect.name}-{title}" for dialect, title, _ in TABLES]
)


def put(root: Any, pattern: str, value: Any) -> Any:
    """Return `root` with `value` at a place of the pattern; create the objects and lists on the way."""
    key, _, rest = pattern.partition(".")
    if key == "**":
        return put(root, f"made_up.{rest}", value)
    name = key.removesuffix("[]").replace("*", "anything")
    root = root if isinstance(root, dict) else {}
    before = root.get(name)
    if not key.endswith("[]"):
        return {**root, name: put(before, rest, value) if rest else value}
    first = before[0] if isinstance(before, list) and before else None
    return {**root, name: [put(first, rest, value) if rest else value]}


def modes(title: str) -> list[Mode]:
    """Return what a table reads: it may be the table of several kinds of documents."""
    return [mode for name, mode in MODES.items() if name in title]


def texts(table: Table, mode: Mode, root: Any, *, tools: bool = True) -> list[Leaf]:
    """Return the texts that Aim gets."""
    reading = Walk(table, mode, wants_tools=tools, locates=True).run(Document(json.dumps(root)))
    prompts = (*reading.definitions, *reading.prompts)
    leaves = [prompt.leaf for prompt in prompts if prompt.leaf is not None] + reading.leaves
    return [leaf for leaf in leaves if leaf.kind is not Kind.TOKENS and leaf.kind is not Kind.SEAL]


def rules(table: Table) -> Iterator[tuple[str, Rule]]:
    yield from effective(table.rules).items()


def test_the_tables_are_those_of_the_code() -> None:
    page = TARGET.read_text()
    assert with_tables(page) == page, "run `make docs`"


def test_each_dialect_and_nothing_else_has_a_section() -> None:
    made = re.findall(r"^<!-- made by `make docs`: (.+) -->$", TARGET.read_text(), re.MULTILINE)
    assert made[0] == NAMES_SECTION
    assert sorted(made[1:]) == sorted(DIALECTS)
    assert all(f"\n## {name}\n" in TARGET.read_text() for name in DIALECTS)


def test_a_new_dialect_gets_a_section() -> None:
    without = TARGET.read_text().replace("## generic\n", "## another\n")
    assert "\n## generic\n\n<!-- made by `make docs`: generic -->\n" in with_tables(without)


@each_table
def test_every_table_has_the_common_names(dialect: Dialect, title: str, table: Table) -> None:
    assert table.rules[: len(COMMON)] == COMMON


@each_table
def test_a_sentence_is_read_at_every_place(dialect: Dialect, title: str, table: Table) -> None:
    for mode in modes(title):
        for pattern, rule in rules(table):
            value = {"description": SENTENCE} if rule.kind is Holds.TOOLS else SENTENCE
            root = put(None, pattern, value)
            if rule.kind is Holds.UNREADABLE:
                with pytest.raises(MalformedBody):
                    texts(table, mode, root)
                continue
            (leaf,) = texts(table, mode, root)
            assert leaf.text == SENTENCE, pattern
            assert leaf.fixed is rule.fixed, pattern
            if not leaf.fixed:
                change = edits([(leaf, leaf.text.replace(MARKER, "[PLACE]"))])
                redacted = json.loads(Document(json.dumps(root)).rewrite(change))
                assert redacted == json.loads(json.dumps(root).replace(MARKER, "[PLACE]")), pattern


@each_table
def test_what_looks_as_its_place_requires_is_not_read(dialect: Dialect, title: str, table: Table) -> None:
    for mode in modes(title):
        for pattern, rule in rules(table):
            if rule.kind in FITTING:
                assert texts(table, mode, put(None, pattern, FITTING[rule.kind])) == [], pattern
            elif rule.kind is Holds.TOOLS and mode is Mode.REQUEST:
                assert texts(table, mode, put(None, pattern, {"description": SENTENCE}), tools=False) == [], pattern


@each_table
def test_arguments_are_read_as_objects_and_as_strings(dialect: Dialect, title: str, table: Table) -> None:
    for pattern, rule in rules(table):
        if rule.kind is Holds.ARGUMENTS:
            for value in ({"to": SENTENCE}, json.dumps({"to": SENTENCE})):
                root = put(None, pattern, value)
                (leaf,) = texts(table, modes(title)[0], root)
                assert leaf.text == json.dumps({"to": SENTENCE}), pattern


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_tokens_become_null_with_a_text_of_their_choice(dialect: Dialect) -> None:
    for pattern, near in _tokens(dialect, dialect.answer):
        root = put(put(None, near, SENTENCE), pattern, FITTING[Holds.TOKENS])
        document = Document(json.dumps(root))
        (leaf,) = dialect.answers(document)
        redacted = json.loads(document.rewrite(edits([(leaf, "[PLACE]")])))
        assert redacted == put(put(None, near, "[PLACE]"), pattern, None), pattern
    for pattern, near in _tokens(dialect, dialect.event):
        event = {"type": "response.output_text.done"} if "." not in pattern else None
        root = put(put(event, near, SENTENCE), pattern, FITTING[Holds.TOKENS])
        leaves = dialect.deltas(Document(json.dumps(root)))
        text = next(leaf for leaf in leaves if leaf.text == SENTENCE)
        tokens = next(leaf for leaf in leaves if leaf.kind is Kind.TOKENS)
        assert tokens.unit in (None, text.unit), pattern


def _tokens(dialect: Dialect, table: Table) -> Iterator[tuple[str, str]]:
    """Yield each pattern of tokens with that of a text of the same choice or part."""
    own = ((pattern, rule) for pattern, rule in rules(table) if rule.kind is Holds.TEXT and rule.speaker is None)
    named = [pattern for pattern, rule in own if not rule.fixed]
    named.sort(key=lambda each: each.count("."))
    for pattern, rule in rules(table):
        if rule.kind is Holds.TOKENS:
            parent = pattern.rpartition(".")[0]
            while not (near := [each for each in named if each.startswith(f"{parent}.") or not parent]):
                parent = parent.rpartition(".")[0]
            yield pattern, near[0]
