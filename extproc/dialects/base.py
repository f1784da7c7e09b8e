"""What every dialect is made of: texts at their places in a document, and refusals."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from extproc.document import Document, Path, fields
from extproc.refusal import Refusal

TEXT_KEYS = frozenset(
    {
        "content",
        "text",
        "delta",
        "thinking",
        "arguments",
        "refusal",
        "reasoning",
        "reasoning_content",
        "partial_json",
    }
)
"""Keys whose strings are inspected where the shape of a document is unknown."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One inspected text of a document.

    `place` names the running text that it continues in a stream, `index` the number of the choice under which
    Aim knows that text already (None: the session gives it one). `is_json` marks text that a program parses.
    A `fixed` text is inspected and cannot be rewritten. `drop_when_rewritten` is what would still show the old
    text then.
    """

    path: Path
    text: str
    place: Hashable = ()
    index: int | None = None
    is_json: bool = False
    fixed: bool = False
    drop_when_rewritten: Path | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One message of a request as Aim is to see it; `leaf` is its text, None where it has none to put back."""

    message: Mapping[str, Any]
    leaf: Leaf | None


class Dialect(Protocol):
    """One provider API: how to read, rewrite and refuse. Pure; knows JSON, not HTTP."""

    name: str

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the request's messages, one for each text, in order.

        Raises MalformedBody for a document whose texts cannot be told for sure.
        """

    def streams(self, document: Document) -> bool:
        """Tell whether the request asks for an event stream."""

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of a whole answer; raises MalformedBody."""

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event of a stream; raises MalformedBody."""

    def is_submitted_whole(self, document: Document) -> bool:
        """Tell whether Aim understands the event as it came; otherwise its texts are submitted as chunks."""

    def is_final(self, data: str) -> bool:
        """Tell whether an event's data is the mark that ends a stream; it need not be JSON."""

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the JSON body of a refusal."""

    def refuse_stream(self, refusal: Refusal) -> bytes:
        """Return the events that end a running stream with a refusal."""


def unknown_texts(node: Any, path: Path = ()) -> Iterator[Leaf]:
    """Yield the strings under TEXT_KEYS of a document of unknown shape; raises MalformedBody."""
    if isinstance(node, dict):
        for key, value in fields(node).items():
            yield from _below(value, (*path, key), is_text=key in TEXT_KEYS)
    else:
        yield from _below(node, path, is_text=False)


def _below(node: Any, path: Path, *, is_text: bool) -> Iterator[Leaf]:
    if isinstance(node, str):
        if is_text and node:
            yield Leaf(path, node, place=path)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _below(item, (*path, index), is_text=is_text)
    elif isinstance(node, dict):
        yield from unknown_texts(node, path)
