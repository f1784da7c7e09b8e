"""Documents: for any JSON, spelling and edits, the edited places hold the new texts and all else is unchanged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.core.content.document import Document, Path
from extproc.core.errors import MalformedBody

SPACES = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n", "  \n\t"])
NUMBERS = ["0", "-0", "1.0", "1e5", "1E+5", "-1.50e-3", "12345678901234567890123", "0.1000"]
SCALARS = st.sampled_from([*NUMBERS, "true", "false", "null"])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=5)  # lone surrogates too
KEYS = st.sampled_from(["a", "content", "", "]", '"', "\\"]) | TEXTS


@dataclass
class Member:
    """A value in its container, with the white space around it and the spelling of its key."""

    step: str | int
    head: str
    value: Container | str
    tail: str


@dataclass
class Container:
    """An array or an object; `blank` is the white space in an empty one."""

    ends: str
    members: list[Member]
    blank: str


Node = Container | str


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """Spell a string with the necessary escapes, and some unnecessary ones."""
    pieces = []
    for character in text:
        plain = json.dumps(character)[1:-1]
        choices = [plain]
        if plain == character or (character > "\x7f" and not "\ud800" <= character <= "\udfff"):
            choices.append(character)
        if character <= "\uffff":
            choices += [f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"]
        pieces.append(draw(st.sampled_from(choices)))
    return '"' + "".join(pieces) + '"'


@st.composite
def nodes(draw: st.DrawFn, depth: int = 3) -> Node:
    kind = draw(st.sampled_from(["scalar", "string", "[]", "{}", "{}"] if depth else ["scalar", "string"]))
    if kind == "scalar":
        return draw(SCALARS)
    if kind == "string":
        return draw(TEXTS.flatmap(spelled))
    members = []
    if kind == "[]":
        members = [
            Member(position, draw(SPACES), draw(nodes(depth - 1)), draw(SPACES))
            for position in range(draw(st.integers(0, 3)))
        ]
    else:
        for key in draw(st.lists(KEYS, max_size=3, unique=True)):
            head = draw(SPACES) + draw(spelled(key)) + draw(SPACES) + ":" + draw(SPACES)
            members.append(Member(key, head, draw(nodes(depth - 1)), draw(SPACES)))
    return Container(kind, members, draw(SPACES))


def render(node: Node, edits: Mapping[Path, str | None], path: Path = ()) -> str:
    if path in edits:
        return json.dumps(edits[path])
    if isinstance(node, str):
        return node
    inner = ",".join(
        member.head + render(member.value, edits, (*path, member.step)) + member.tail for member in node.members
    )
    return node.ends[0] + (inner or node.blank) + node.ends[1]


def paths(node: Node, path: Path = ()) -> Iterator[Path]:
    if isinstance(node, Container):
        for member in node.members:
            yield (*path, member.step)
            yield from paths(member.value, (*path, member.step))


def assign(root: Any, path: Path, value: str | None) -> None:
    for step in path[:-1]:
        root = root[step]
    root[path[-1]] = value


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[Path, str | None], str]:
    """Draw a text, edits that do not overlap, and the expected result."""
    tree = draw(nodes())
    edits: dict[Path, str | None] = {}
    for path in draw(st.permutations(list(paths(tree)))) if isinstance(tree, Container) else []:
        if draw(st.booleans()) and not any(path[: len(old)] == old or old[: len(path)] == path for old in edits):
            edits[path] = draw(TEXTS | st.none())
    before, behind = draw(SPACES), draw(SPACES)
    return before + render(tree, {}) + behind, edits, before + render(tree, edits) + behind


@given(cases())
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_any_edits_change_only_their_places(case: tuple[str, dict[Path, str | None], str]) -> None:
    text, edits, expected = case
    document = Document(text)
    before = copy.deepcopy(document.root)
    rewritten = document.rewrite(edits)
    assert rewritten == expected
    assert document.root == before
    for path, value in edits.items():
        assign(before, path, value)
    assert Document(rewritten).root == before
    # The result can be encoded as UTF-8, and parses to the same value.
    assert Document.from_bytes(rewritten.encode()).root == before


@given(cases(), st.lists(st.text(max_size=2) | st.integers(-1, 4), min_size=1, max_size=3).map(tuple))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_missing_place_raises_a_key_error(case: tuple[str, dict[Path, str | None], str], path: Path) -> None:
    text, _, _ = case
    document = Document(text)
    node = document.root
    for step in path:
        is_there = step in node if isinstance(node, dict) else isinstance(node, list) and step in range(len(node))
        if not is_there:
            break
        node = node[step]
    else:
        changed = Document(document.rewrite({path: "x"})).root
        for step in path:
            changed = changed[step]
        assert changed == "x"
        return
    try:
        document.rewrite({path: "x"})
    except KeyError:
        return
    raise AssertionError("an edit of a missing place passed")


def parse(text: str) -> Any:
    """Parse with the standard library; raise ValueError for a repeated key and for text that is no JSON."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("repeated")
        return dict(pairs)

    return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=unique)


@given(st.binary(max_size=30) | st.lists(st.sampled_from(list('[]{}",:\\u0 1e-.nt\n\ufeff')), max_size=20).map("".join))
@settings(max_examples=150)
def test_any_bytes_are_json_or_malformed(data: bytes | str) -> None:
    """Text that the standard library refuses, or only accepts in other encodings, raises only MalformedBody."""
    raw = data.encode() if isinstance(data, str) else data
    try:
        document = Document.from_bytes(raw)
    except MalformedBody:
        try:
            parse(raw.decode())
        except ValueError:
            return
        raise AssertionError("JSON was refused") from None
    assert document.root == parse(raw.decode())
    assert document.rewrite({}).encode() == raw
