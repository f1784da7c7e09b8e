"""What every dialect is made of: texts at their places in a document, and refusals in the dialect's shape."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from enum import Enum, auto
from typing import Any

from extproc.core.content.document import Document, Path, fields, items
from extproc.core.policy import Inspect
from extproc.core.refusal import Refusal
from extproc.core.values import value

TEXT_KEYS = frozenset(
    {"content", "text", "delta", "thinking", "arguments", "refusal", "reasoning", "reasoning_content", "partial_json"}
)
"""Keys whose strings are inspected where the shape of a document is unknown."""

MAX_CHOICE = 1023
"""Largest choice index that is used as Aim's; the session numbers other texts from the next one on."""


class Kind(Enum):
    """What a leaf is to a stream."""

    TEXT = auto()  # text that has not been said before
    REPEAT = auto()  # a running text once more, as a whole
    SEAL = auto()  # a signature over a running text: void once that was rewritten


@value
class Leaf:
    """One inspected text of a document.

    `place` names the running text that it continues in a stream; None: it continues nothing. `index` is the number
    of the choice under which Aim knows that text already (None: the session gives it one). `is_json` marks text that
    a program parses; under `is_embedded` the value at `path` is that JSON itself, and `text` its spelling. A `fixed`
    text is inspected and cannot be rewritten. A rewrite makes the value at `nulled` null, and the strings at
    `emptied` empty: what would still show or vouch for the old text.
    """

    path: Path
    text: str
    place: Hashable = None
    index: int | None = None
    kind: Kind = Kind.TEXT
    is_json: bool = False
    is_embedded: bool = False
    fixed: bool = False
    nulled: Path | None = None
    emptied: tuple[Path, ...] = ()


@value
class Prompt:
    """One message of a request as Aim is to see it; `leaf` is its text, None where it has none to put back."""

    message: Mapping[str, Any]
    leaf: Leaf | None


class Dialect(ABC):
    """One provider API: how to read, rewrite and refuse. Pure; knows JSON, not HTTP.

    The defaults are those of an API in OpenAI's manner whose answers hold nothing to inspect. Every method that
    reads a document raises MalformedBody where its texts cannot be told for sure.
    """

    name: str
    reads_answers = False
    is_repetitive = False
    """Whether a stream says its texts again, or signs them."""
    clients_skip_comments = True
    """Whether the API's clients take a comment in a stream for what it is."""
    opt_in: Inspect | None = None
    """The setting without which requests of this dialect are not inspected; None if they always are."""

    @abstractmethod
    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the request's messages, one for each text, in order; tool definitions too with `tools`."""

    def streams(self, document: Document, path: str) -> bool:
        """Tell whether the request, sent to `path`, asks for an event stream."""
        return fields(document.root).get("stream") is True

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of a whole answer."""
        return []

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event of a stream."""
        return []

    def is_submitted_whole(self, document: Document) -> bool:
        """Tell whether Aim understands the event as it came; otherwise its texts are submitted as chunks."""
        return False

    def is_final(self, data: str, document: Document | None) -> bool:
        """Tell whether an event is the one that ends a stream; `document` is None as long as it was not parsed."""
        return document is None and data.strip() == "[DONE]"

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the JSON body of a refusal."""
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.code}
        return json.dumps({"error": error}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the events that end a running stream, the first of them number `sequence`, with a refusal."""
        return b"data: " + self.refuse(refusal) + b"\n\ndata: [DONE]\n\n"


def unknown_texts(node: Any, path: Path = (), keys: frozenset[str] = TEXT_KEYS) -> Iterator[Leaf]:
    """Yield the strings under `keys`, at any depth, of a document whose shape is unknown."""
    if isinstance(node, dict):
        for key, value in fields(node).items():
            yield from _below(value, (*path, key), keys, is_text=key in keys)
    else:
        yield from _below(node, path, keys, is_text=not path)  # a document that is nothing but a text


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
    """Yield `node` if it is a text, its items if it is a list, and what `unknown_texts` finds below."""
    yield from _below(node, path, keys, is_text=True)


def named(value: Any, names: frozenset[str]) -> bool:
    """Tell whether `value` is one of `names`; a client may put anything where a name belongs."""
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
    """Yield an object, such as a tool's input, as one text; nothing if it is empty.

    Its numbers and keys count too. Raises MalformedBody for a key that is repeated anywhere in it.
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
    """Return a tool's result; Aim's schema takes role tool only with the id of the call."""
    if isinstance(call_id, str) and call_id:
        return prompt("tool", leaf, tool_call_id=call_id)
    return prompt("user", leaf)


def tool_call(call_id: Any, name: Any, arguments: str) -> Prompt:
    """Return an earlier tool call, for Aim to see; a redaction in it cannot be put back."""
    call = {
        "id": call_id if isinstance(call_id, str) else "call",
        "type": "function",
        "function": {"name": name if isinstance(name, str) else "tool", "arguments": arguments},
    }
    return Prompt({"role": "assistant", "content": None, "tool_calls": [call]}, None)


def definitions(root: Mapping[str, Any], *keys: str) -> list[Prompt]:
    """Return tool definitions and response schemas, every string of them."""
    return [prompt("system", leaf) for key in keys for leaf in all_strings(root.get(key), (key,))]
