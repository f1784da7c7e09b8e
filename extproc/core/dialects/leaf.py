"""Texts at their places in a document."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from extproc.core.content.document import Path
from extproc.core.content.shapes import EncodedText


class Kind(Enum):
    """The kinds of a leaf in a stream."""

    TEXT = auto()  # new text
    REPEAT = auto()  # a running text repeated as a whole
    SEAL = auto()  # a signature of a running text, which a rewrite makes invalid
    TOKENS = auto()  # tokens of a text, which a rewrite makes wrong


@dataclass(slots=True)
class Leaf:
    """One text of a document, or tokens or a signature of texts. Treat it as frozen: a frozen one takes twice as long.

    `text` is what Aim reads. `place` identifies the running text that the leaf continues in a stream (None: none).
    `index` is the choice index of that text for Aim (None: the session chooses one). `unit` identifies the choice or
    part that the text belongs to: its tokens have the same unit, or None if they spell texts of any unit. `is_json`
    marks tool arguments: in a stream `text` is a raw piece of them; else `raw` is their JSON, and `text` the same with
    decoded escapes. With `is_embedded` the value at `path` is that JSON itself. `encoded` tells how a text in base64 is
    written. A `fixed` text is inspected but cannot be rewritten. A rewrite sets the values at `nulled` and
    `nulled_everywhere` to null and the strings at `emptied` to "", because they still show or sign the old text. Those
    everywhere are the tokens that may be of any text of the document. `is_joined` marks texts of several places
    that are one for Aim, each beginning a line; `number` is its position in its event. `parts` are these texts, known
    only if the walk located them.
    """

    path: Path
    text: str
    place: Hashable = None
    index: int | None = None
    kind: Kind = Kind.TEXT
    unit: Hashable = None
    is_json: bool = False
    is_embedded: bool = False
    raw: str = ""
    encoded: EncodedText | None = None
    fixed: bool = False
    is_everywhere: bool = False
    is_joined: bool = False
    number: int = 0
    nulled: tuple[Path, ...] = ()
    nulled_everywhere: tuple[Path, ...] = ()
    emptied: tuple[Path, ...] = ()
    parts: Sequence[Leaf] = ()


class Record(NamedTuple):
    """One request of a batch: its number, and the name that the client gave it."""

    number: int
    name: str


@dataclass(slots=True)
class Prompt:
    """One message of a request in the form that Aim gets. `leaf` is its text, None if no text can be redacted.

    Treat it as frozen, like a leaf.

    A definition of a tool goes to Aim with the request, but is no part of the conversation that an answer goes with.
    `record` is the record of a batch that the message is of; None if it is of none.
    """

    message: Mapping[str, Any]
    leaf: Leaf | None
    is_definition: bool = False
    record: Record | None = None
