"""Forms as documents: fields by their names, texts that are rewritten, and media that stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document, Path
from extproc.core.content.form import FormDocument
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import Framing
from extproc.core.errors import BodyTooLarge, MalformedBody
from tests.fakes.forms import PNG, form, part


def parse(text: str, framing: Framing) -> Document:
    if framing is Framing.WHOLE:
        return Document(text)
    return FramedDocument(text, MAX_VALUES, framing, lambda unit: Document(unit.data or ""))


def read(*parts: bytes, values: int = MAX_VALUES) -> FormDocument:
    return FormDocument(form(*parts), "xYz-1", values, parse)


def file(name: str, content: bytes, filename: str = "a.bin", *headers: str) -> bytes:
    return part(name, content, *headers, more=f'; filename="{filename}"')


@pytest.mark.parametrize(
    ("parts", "root"),
    [
        ([], {}),
        ([part("model", b"m"), part("prompt", b"Ask Tom")], {"model": "m", "prompt": "Ask Tom"}),
        ([part("a", b"")], {"a": None}),
        ([part("", b"x")], {"": ["x"]}),
        ([part("a", b"1"), part("b", b"2"), part("a", b"3")], {"a": ["1", "3"], "b": "2"}),
        ([part("a[]", b"1")], {"a": ["1"]}),
        ([part("a[]", b"1"), part("a[]", b"2")], {"a": ["1", "2"]}),
        ([part("a[b]", b"1"), part("a[c][d]", b"2")], {"a": {"b": "1", "c": {"d": "2"}}}),
        ([part("a[b][]", b"1"), part("a[b][]", b"2")], {"a": {"b": ["1", "2"]}}),
        ([part("a[][b]", b"1"), part("a[][c]", b"2")], {"a": {"": {"b": "1", "c": "2"}}}),
        ([part("a[b", b"1"), part("[c]", b"2"), part("d]", b"3")], {"a[b": "1", "[c]": "2", "d]": "3"}),
        ([part("a", b'{"b": [1]}', "Content-Type: application/json")], {"a": {"b": [1]}}),
        ([part("a", b" \n", "Content-Type: application/json")], {"a": " \n"}),
        ([file("f", PNG)], {"f": {"filename": None, "content": None}}),
        ([file("f", PNG, "Ask Tom.png")], {"f": {"filename": "Ask Tom.png", "content": None}}),
        ([file("f", b"", "")], {"f": {"filename": None, "content": None}}),
        ([file("f", b"text")], {"f": {"filename": None, "content": "text"}}),
        ([file("f", b'{"a":1}\n\n{"b":2}', "a.jsonl")], {"f": {"filename": None, "content": [{"a": 1}, {"b": 2}]}}),
        (
            [file("f[]", PNG), file("f[]", b"x")],
            {"f": [{"filename": None, "content": None}, {"filename": None, "content": "x"}]},
        ),
    ],
)
def test_fields_are_found_by_their_names(parts: list[bytes], root: Any) -> None:
    document = read(*parts)
    assert without_blank_lines(document.root) == root
    assert document.rewrite({}).encode("utf-8", "surrogateescape") == form(*parts)
    assert document.size > len(form(*parts))
    document.forget()
    assert document.root is None
    assert without_blank_lines(document.read_again().root) == root


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'{"a":"\u0042ob","a":1}', '{"a":"Bob","a":1}'),
        (r' [ "\u0042ob",]', ' [ "Bob",]'),
        (r'[["\u0042ob"]]', '[["Bob"]]'),
        ('\ufeff"\\u0042ob"\n', '\ufeff"Bob"\n'),
        ('"\\u0042ob" \r\n{}', '"Bob" \r\n{}'),
        (r"C:\u0042ob", None),
        (r'"\u0042ob", he said', None),
        (r"[1] \u0042ob", None),
        ('{"a": ,}', None),
    ],
)
def test_escapes_of_what_begins_like_json_are_decoded(text: str, said: str | None) -> None:
    for parts in ([part("f", text.encode())], [file("f", text.encode(), "a.txt")]):
        root = read(*parts).root["f"]
        assert (root if isinstance(root, str) else root["content"]) == (said or text)


def without_blank_lines(root: Any) -> Any:
    content = root.get("f", {}).get("content") if isinstance(root.get("f"), dict) else None
    if isinstance(content, list):
        root["f"]["content"] = [each for each in content if each is not None]
    return root


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a[b]"],
        ["a[b]", "a"],
        ["a", "a[]"],
        ["a[]", "a"],
        ["a[]", "a[b]"],
        ["a[b]", "a[]"],
        ["a", "a", "a[b]"],
        ["a[b]", "a[b][c]"],
        ["a[b][c]", "a[b]"],
        ["a" + "[b]" * 16],
    ],
)
@pytest.mark.parametrize("content", [b"x", b'{"b": {}}', b'["b"]'])
def test_names_that_do_not_fit_together_are_malformed(names: list[str], content: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(*(part(name, content, "Content-Type: application/json") for name in names[:-1]), part(names[-1]))


def test_field_beside_the_content_of_a_file_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        read(file("f", b"text"), part("f[content]"))


@pytest.mark.parametrize(
    ("path", "text", "raw"),
    [
        (("prompt",), "né\n", part("prompt", "né\n".encode())),
        (("list", 1), "new", part("list", b"new")),
        (("deep", "x"), "new", part("deep[x]", b"new")),
        (("json", "a", 0), 'n"w', part("json", b'{ "a": ["n\\"w"] }', "Content-Type: application/json")),
        (("file", "content", 1, "b"), "new", file("file", b'{"a": "1"}\r\n{"b":"new"}', "a.jsonl")),
        (("text", "content"), "new", file("text", b"new", "Ask Tom.txt")),
        (("json",), "new", part("json", b'"new"', "Content-Type: application/json")),
    ],
)
def test_text_is_rewritten_at_its_place(path: Path, text: str, raw: bytes) -> None:
    parts = [
        part("prompt", "Ask é".encode()),
        part("list", b"1"),
        file("media", PNG),
        part("list", b"2"),
        part("deep[x]", b"x"),
        part("json", b'{ "a": ["old"] }', "Content-Type: application/json"),
        file("file", b'{"a": "1"}\r\n{"b":"2"}', "a.jsonl"),
        file("text", b"old", "Ask Tom.txt"),
    ]
    document = read(*parts)
    document.forget()
    rewritten = document.rewrite({path: text})
    number = next(n for n, each in enumerate(parts) if each.split(b"\r\n\r\n")[0] == raw.split(b"\r\n\r\n")[0])
    number += path == ("list", 1) and 2
    assert rewritten.encode("utf-8", "surrogateescape") == form(*parts[:number], raw, *parts[number + 1 :])
    again = document.read_again(rewritten)
    node: Any = again.root
    for step in path:
        node = node[step]
    assert node == text


@pytest.mark.parametrize("path", [(), ("f",), ("f", "filename"), ("missing",), ("l",)])
def test_names_cannot_be_rewritten(path: Path) -> None:
    with pytest.raises(MalformedBody):
        read(file("f", b"x", "Ask Tom"), part("l[]")).rewrite({path: "new"})


def test_text_with_the_boundary_cannot_be_written() -> None:
    with pytest.raises(MalformedBody):
        read(part("a")).rewrite({("a",): "x--xYz-1"})


def test_arguments_have_their_spelling() -> None:
    document = read(
        part("a", b'{ "x": {"y" : 1} }', "Content-Type: application/json"),
        part("b", b"[ 1]", "Content-Type: text/json"),
    )
    assert document.spelling([("a", "x"), ("b",)]) == {("a", "x"): '{"y" : 1}', ("b",): "[ 1]"}


@pytest.mark.parametrize(
    "raw",
    [
        part("a", b"{", "Content-Type: application/json"),
        part("a", b'{"a": 1, "a": 2}', "Content-Type: application/json"),
        file("a", b"{}\nx", "a.jsonl"),
    ],
)
def test_broken_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(raw)


@pytest.mark.parametrize(
    "parts",
    [
        [part("a", json.dumps(["x"] * 500).encode(), "Content-Type: application/json")],
        [part(f"a{n}", json.dumps(["x"] * 50).encode(), "Content-Type: application/json") for n in range(10)],
        [file("a", b"{}\n" * 120, "a.jsonl")],
        [part("a") for _ in range(120)],
    ],
)
def test_values_of_all_parts_are_counted(parts: list[bytes]) -> None:
    assert read(*parts, values=5000).root
    with pytest.raises(BodyTooLarge):
        read(*parts, values=400)


NAMES = st.lists(st.sampled_from(["a", "b", "[a]", "[]", "[b]", "[", "é"]), min_size=1, max_size=4).map("".join)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)


@given(st.lists(st.tuples(NAMES, TEXTS), max_size=5), st.integers(0, 4), TEXTS)
@settings(max_examples=300)
def test_each_text_has_one_place(fields: list[tuple[str, str]], which: int, text: str) -> None:
    parts = [part(name, content.encode()) for name, content in fields]
    try:
        document = read(*parts)
    except MalformedBody:
        return
    places = dict(leaves(document.root, ()))
    assert sorted(places.values()) == sorted(content for _, content in fields if content)
    if places:
        path = sorted(places, key=repr)[which % len(places)]
        again = document.read_again(document.rewrite({path: text}))
        assert dict(leaves(again.root, ())) == {k: v for k, v in {**places, path: text}.items() if v}


def leaves(node: Any, path: Path) -> list[tuple[Path, str]]:
    if isinstance(node, str):
        return [(path, node)]
    steps: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [leaf for step, value in steps for leaf in leaves(value, (*path, step))]
