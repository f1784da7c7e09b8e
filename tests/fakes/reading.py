"""What Aim gets of a document, and what the document becomes when Aim redacts it.

In the documents of these tests each text that Aim must get has the word `hi`, and nothing else has it. A redaction
replaces that word, so the redacted document is the document with the word replaced, whatever was around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from extproc.core.content.document import Document, Path
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.leaf import Kind, Leaf, Prompt
from extproc.core.redaction import RedactionError, edits

MASK = "[X]"

_WORD = re.compile(r"\bhi\b")

_MARKS = {Kind.TEXT: "", Kind.REPEAT: "=", Kind.SEAL: "~", Kind.TOKENS: "#"}


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


def strings(node: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every string value with its place."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict | list):
        for step, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from strings(value, (*path, step))


def all_of(node: Any) -> Any:
    """Return a JSON value without its strings and logprobs: the parts that a redaction does not change."""
    if isinstance(node, dict):
        return {key: all_of(value) for key, value in node.items() if key not in ("logprobs", "logprobsResult")}
    if isinstance(node, list):
        return [all_of(value) for value in node]
    return "" if isinstance(node, str) else node


# -- what Aim gets -------------------------------------------------------------------------------------------------


def prompts(dialect: Dialect, body: Any, *, tools: bool = False) -> list[Prompt]:
    """Return the messages of a request, and check that reading without places finds the same."""
    found = dialect.prompts(document(body), tools=tools, locates=True)
    without = dialect.prompts(document(body), tools=tools)
    assert [prompt.message for prompt in found] == [prompt.message for prompt in without]
    return found


def asked(dialect: Dialect, body: Any, *, tools: bool = False) -> list[tuple[str, str]]:
    """Return role and text of each message of a request; the text is "" where a message has only calls."""
    found = prompts(dialect, body, tools=tools)
    assert all(prompt.leaf is None or prompt.message["content"] == prompt.leaf.text for prompt in found)
    return [(str(prompt.message["role"]), prompt.message["content"] or "") for prompt in found]


def answers(dialect: Dialect, body: Any) -> list[Leaf]:
    """Return the texts of an answer, and check that reading without places finds the same ones."""
    found, again = (
        [leaf for leaf in dialect.answers(document(body), locates=locates) if leaf.kind is not Kind.TOKENS]
        for locates in (True, False)
    )
    assert [leaf.text for leaf in found] == [leaf.text for leaf in again]
    return found


def said(dialect: Dialect, body: Any) -> list[str]:
    """Return the texts of an answer: the named ones, then all others in one."""
    return [leaf.text for leaf in answers(dialect, body)]


def heard(dialect: Dialect, event: Any) -> list[str]:
    """Return the texts of an event, with `=` before possible repeats, `~` before seals, and `#` for tokens."""
    found = dialect.deltas(document(event), locates=True)
    assert [leaf.text for leaf in found] == [leaf.text for leaf in dialect.deltas(document(event))]
    return [_MARKS[leaf.kind] + leaf.text for leaf in found]


def places(dialect: Dialect, *events: Any) -> list[Any]:
    """Return the running texts that events continue."""
    return [leaf.place for event in events for leaf in dialect.deltas(document(event))]


def fixed(leaves: Iterable[Leaf | None]) -> list[str]:
    """Return the texts that cannot be rewritten."""
    return [leaf.text for leaf in leaves if leaf is not None and leaf.fixed]


# -- what the document becomes -------------------------------------------------------------------------------------


def masked(value: Any) -> Any:
    """Return a JSON value, or a JSON text, with the word masked in each string."""
    if isinstance(value, str):
        return _WORD.sub(MASK, value)
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def redacted_request(dialect: Dialect, body: Any, *, tools: bool = False) -> Any:
    """Return what a request becomes; raise RedactionError if a text cannot be changed."""
    return _redacted(body, [prompt.leaf for prompt in prompts(dialect, body, tools=tools)])


def redacted_answer(dialect: Dialect, body: Any) -> Any:
    """Return what an answer becomes; raise RedactionError if a text cannot be changed."""
    return _redacted(body, answers(dialect, body))


def redacted_event(dialect: Dialect, event: Any) -> Any:
    """Return what an event becomes; raise RedactionError if a text cannot be changed."""
    return _redacted(event, dialect.deltas(document(event), locates=True))


def _redacted(body: Any, leaves: Iterable[Leaf | None]) -> Any:
    read = document(body)
    changed = [(leaf, masked(leaf.text)) for leaf in leaves if leaf is not None and masked(leaf.text) != leaf.text]
    return json.loads(read.rewrite(edits(changed) if changed else {}))


def is_redactable(dialect: Dialect, body: Any) -> bool:
    """Return whether the redaction of a request can be put back."""
    try:
        return bool(redacted_request(dialect, body) == masked(body))
    except RedactionError:
        return False
