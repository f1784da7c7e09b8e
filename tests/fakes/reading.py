"""The places that a dialect reads in a document, in a readable form: `messages[0].content[1].text`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from extproc.core.content.document import Document, Edit, Path
from extproc.core.dialects.base import Dialect, Kind, Leaf
from extproc.core.redaction import rewrite


def document(value: Any) -> Document:
    """Return the document of a value or of a JSON text."""
    return Document(value if isinstance(value, str) else json.dumps(value))


def dotted(path: Path) -> str:
    """Return a path in dotted form."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def at(node: Any, path: Path) -> Any:
    """Return the value at a path."""
    for step in path:
        node = node[step]
    return node


def asked(dialect: Dialect, body: Any, *, tools: bool = False) -> list[tuple[str, str]]:
    """Return role and place of each message that is sent for a request; `call:ARGUMENTS` where it has no text."""
    read = document(body)
    found = []
    for prompt in dialect.prompts(read, tools=tools):
        role = str(prompt.message["role"])
        if prompt.leaf is None:
            (call,) = prompt.message["tool_calls"]
            found.append((role, f"call:{call['function']['arguments']}"))
        else:
            assert prompt.message["content"] == prompt.leaf.text != ""
            _check(read, prompt.leaf)
            found.append((role, dotted(prompt.leaf.path)))
    return found


def said(dialect: Dialect, body: Any) -> list[str]:
    """Return the places of an answer's texts."""
    read = document(body)
    return [_checked(read, leaf) for leaf in dialect.answers(read)]


def heard(dialect: Dialect, event: Any) -> list[str]:
    """Return the places of an event's texts, with `=` before possible repeats and `~` before seals."""
    read = document(event)
    mark = {Kind.TEXT: "", Kind.REPEAT: "=", Kind.SEAL: "~"}
    return [mark[leaf.kind] + _checked(read, leaf) for leaf in dialect.deltas(read)]


def fixed(leaves: list[Leaf]) -> list[str]:
    """Return the places of the texts that cannot be rewritten."""
    return [dotted(leaf.path) for leaf in leaves if leaf.fixed]


def rewritten(dialect: Dialect, body: Any, text: str = "[X]") -> Any:
    """Return an answer with all its texts redacted."""
    read = document(body)
    edits: dict[Path, Edit] = {}
    for leaf in dialect.answers(read):
        edits |= rewrite(leaf, json.dumps({"x": text}) if leaf.is_embedded else text)
    return json.loads(read.rewrite(edits))


def _check(read: Document, leaf: Leaf) -> None:
    value = at(read.root, leaf.path)
    assert (json.loads(leaf.text) if leaf.is_embedded else leaf.text) == value


def _checked(read: Document, leaf: Leaf) -> str:
    _check(read, leaf)
    return dotted(leaf.path)


def all_of(node: Any) -> Any:
    """Return a JSON value without its strings and logprobs: the parts that a redaction does not change."""
    if isinstance(node, dict):
        return {key: all_of(value) for key, value in node.items() if key not in ("logprobs", "logprobsResult")}
    if isinstance(node, list):
        return [all_of(value) for value in node]
    return "" if isinstance(node, str) else node


def strings(node: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every string value with its place."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict | list):
        for step, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from strings(value, (*path, step))
