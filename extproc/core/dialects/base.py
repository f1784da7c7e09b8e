"""The parts of every dialect: texts at their places in a document, and refusals in the dialect's shape."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from extproc.core.content.document import Document, Path, fields, items
from extproc.core.policy import Inspect
from extproc.core.refusal import Refusal

TEXT_KEYS = frozenset(
    {"content", "text", "delta", "thinking", "arguments", "refusal", "reasoning", "reasoning_content", "partial_json"}
)
"""Keys whose strings are inspected if the shape of a document is unknown."""

MAX_CHOICE = 1023
"""The largest choice index that is submitted to Aim unchanged. Other texts get indices above it."""


class Kind(Enum):
    """The kinds of a leaf in a stream."""

    TEXT = auto()  # new text
    REPEAT = auto()  # a running text repeated as a whole
    SEAL = auto()  # a signature of a running text, which a rewrite makes invalid
    TOKENS = auto()  # another spelling of texts, such as logprobs: null once one of them is rewritten


@dataclass(frozen=True, slots=True)
class Leaf:
    """One inspected text of a document.

    `place` identifies the running text that the leaf continues in a stream (None: none). `index` is the choice index
    of that text for Aim (None: the session chooses one). `is_json` marks text that a program parses. With
    `is_embedded` the value at `path` is that JSON itself, and `text` its spelling. A `fixed` text is inspected but
    cannot be rewritten. A rewrite sets the values at `nulled` to null and the strings at `emptied` to "", because they
    still show or sign the old text.

    `unit` identifies the choice or part that a text belongs to. In a stream, a leaf of kind `TOKENS` spells the texts
    of its unit, or any text if its unit is None; its own `text` is empty. A text without a unit belongs to every unit.
    """

    path: Path
    text: str
    place: Hashable = None
    index: int | None = None
    kind: Kind = Kind.TEXT
    is_json: bool = False
    is_embedded: bool = False
    fixed: bool = False
    nulled: tuple[Path, ...] = ()
    emptied: tuple[Path, ...] = ()
    unit: Hashable = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One message of a request in the form that Aim gets. `leaf` is its text, None if no text can be redacted."""

    message: Mapping[str, Any]
    leaf: Leaf | None


class Dialect(ABC):
    """One provider API: how to read, rewrite and refuse. It knows JSON, but not HTTP.

    The defaults are those of an API like OpenAI's whose answers are not inspected. Every method that reads a document
    raises MalformedBody if it cannot determine the texts with certainty.
    """

    name: str
    reads_answers = False
    is_repetitive = False
    """Whether a stream repeats its texts, or signs them."""
    clients_skip_comments = True
    """Whether the API's clients skip comments in a stream."""
    opt_in: Inspect | None = None
    """The setting that switches the inspection of this dialect on; None if it is always on."""

    @abstractmethod
    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the request's messages, one for each text, in order; with `tools`, also tool definitions."""

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the request, sent to `path`, asks for an event stream."""
        return fields(document.root).get("stream") is True

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of a whole answer."""
        return []

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event of a stream."""
        return []

    def is_submitted_whole(self, document: Document) -> bool:
        """Return whether Aim understands the unchanged event; if not, its texts are submitted as chunks."""
        return False

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether an event ends the stream. `document` is None if the event was not parsed."""
        return document is None and data.strip() == "[DONE]"

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the JSON body of a refusal."""
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.code}
        return json.dumps({"error": error}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the events that end a running stream with a refusal. `sequence` is the number of the first."""
        return b"data: " + self.refuse(refusal) + b"\n\ndata: [DONE]\n\n"


def unknown_texts(node: Any, path: Path = (), keys: frozenset[str] = TEXT_KEYS) -> Iterator[Leaf]:
    """Yield the strings under `keys`, at any depth, of a document of unknown shape."""
    if isinstance(node, dict):
        for key, value in fields(node).items():
            yield from _below(value, (*path, key), keys, is_text=key in keys)
    else:
        yield from _below(node, path, keys, is_text=not path)  # the whole document may be one text


def _below(node: Any, path: Path, keys: frozenset[str], *, is_text: bool) -> Iterator[Leaf]:
    if isinstance(node, str):
        if is_text and node:
            yield Leaf(path, node, place=path)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _below(item, (*path, index), keys, is_text=is_text)
    elif isinstance(node, dict):
        yield from unknown_texts(node, path, keys)


def texts_below(node: Any, path: Path, keys: frozenset[str] = TEXT_KEYS) -> Iterator[Leaf]:
    """Yield `node` if it is a text, its items if it is a list, and what `unknown_texts` finds below it."""
    yield from _below(node, path, keys, is_text=True)


def named(value: Any, names: frozenset[str]) -> bool:
    """Return whether `value` is one of `names`. It may be of any type."""
    return isinstance(value, str) and value in names


def all_strings(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield every string value below `node`."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node, place=path)
    elif isinstance(node, dict):
        for key, value in fields(node).items():
            yield from all_strings(value, (*path, key))
    else:
        for index, value in enumerate(items(node)):
            yield from all_strings(value, (*path, index))


def embedded(node: Any, path: Path, *, fixed: bool = False) -> Iterator[Leaf]:
    """Yield an object, such as a tool's input, as one text. An empty object yields nothing.

    The text includes its numbers and keys. Raises MalformedBody for a key that is repeated anywhere in it.
    """
    if isinstance(node, dict | list | str) and node:
        yield Leaf(path, spelling(node), is_json=True, is_embedded=True, fixed=fixed)


def spelling(node: Any) -> str:
    """Return an earlier call's input as JSON.

    Raises MalformedBody for an object that repeats a key.
    """
    list(all_strings(node, ()))
    return json.dumps(node, ensure_ascii=False)


def prompt(role: str, leaf: Leaf, **more: Any) -> Prompt:
    """Return a message of `role` with the leaf's text as its content."""
    return Prompt({"role": role, "content": leaf.text, **more}, leaf)


def tool_result(call_id: Any, leaf: Leaf) -> Prompt:
    """Return the message of a tool's result. Aim's schema accepts role tool only with the id of the call."""
    if isinstance(call_id, str) and call_id:
        return prompt("tool", leaf, tool_call_id=call_id)
    return prompt("user", leaf)


def tool_call(call_id: Any, name: Any, arguments: str) -> Prompt:
    """Return the message of an earlier tool call. A redaction in it cannot be applied."""
    call = {
        "id": call_id if isinstance(call_id, str) else "call",
        "type": "function",
        "function": {"name": name if isinstance(name, str) else "tool", "arguments": arguments},
    }
    return Prompt({"role": "assistant", "content": None, "tool_calls": [call]}, None)


def definitions(root: Mapping[str, Any], *keys: str) -> list[Prompt]:
    """Return every string of tool definitions and response schemas."""
    return [prompt("system", leaf) for key in keys for leaf in all_strings(root.get(key), (key,))]
