"""Contents of files, and results of batches: JSON lines, each with an answer of its own.

Sources: OpenAI's API reference, "Batch" and "Retrieve file content"; Anthropic's, "Retrieve Message Batch results".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any
from zlib import crc32

from extproc.core.content.document import Document, Path, fields, without
from extproc.core.content.framing import Framing
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect, PlainTexts
from extproc.core.dialects.call_arguments import take_spellings
from extproc.core.dialects.found import Mode
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.dialects.openai_requests import DataDialect, Embeddings
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.dialects.rules import COMMON, inert, text
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.policy import Inspect

_SLOTS = 16
"""How many running texts the lines of a file share for each place. A stream can have only some thousand texts."""


class Results(DataDialect):
    """A dialect whose answers are lines that have nothing to do with each other. Its table says what is around them."""

    opt_in = Inspect.FILES
    streams_in = Framing.JSON_LINES
    plain_texts = PlainTexts.EVERYWHERE

    @abstractmethod
    def entry(self, root: Any) -> tuple[Path, Dialect] | None:
        """Return the place of a line's answer, and the dialect that reads it; None if the line has none."""
        ...

    def answers(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one line: those around its answer, and those of the answer."""
        root = document.root
        found = self.entry(root)
        if found is None:
            return super().answers(document, locates=locates)
        path, dialect = found
        around = Walk(self.answer, Mode.ANSWER, locates=locates)
        inside = Walk(dialect.answer, Mode.ANSWER, locates=locates)
        leaves = [
            *around.find(without(root, [path]), ()).leaves,
            *inside.find(reduce(getitem, path, root), path).leaves,
        ]
        if inside.has_embedded:
            take_spellings(document, leaves, [])
        for leaf in leaves:
            leaf.is_everywhere = leaf.kind is Kind.TOKENS  # of any text of the line
        return self._with_tokens(leaves)

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one line. Each is whole, and so are tool arguments."""
        root = fields(document.root)
        name = next((value for key in ("custom_id", "id") if isinstance(value := root.get(key), str)), "")
        slot = crc32(name.encode("utf-8", "surrogatepass")) % _SLOTS
        leaves = self.answers(document, locates=locates)
        for number, leaf in enumerate(leaves):
            leaf.place, leaf.number = (slot, *leaf.path), number
            leaf.is_json = leaf.is_json and leaf.is_embedded
        return leaves


_GENERIC = Generic()
_BY_OBJECT: Mapping[str, Dialect] = {
    "chat.completion": OpenAIChat(),
    "text_completion": OpenAICompletions(),
    "response": OpenAIResponses(),
    "list": Embeddings(),
}
"""The APIs of the answers that a file may hold, by what an answer calls itself."""


class FileContents(Results):
    """The content of a file: the output of a batch, or any other text."""

    name = "openai-chat"
    answers_media = True
    request = Table(*COMMON)
    answer = event = Table(*COMMON, text("body", "response.body"), inert("method", "error.code"))

    def entry(self, root: Any) -> tuple[Path, Dialect] | None:
        """Return the place of a line's answer, and the dialect that reads it; None if the line has none."""
        body = fields(fields(root).get("response")).get("body")
        if not isinstance(body, dict):
            return None
        kind = body.get("object")
        return ("response", "body"), _BY_OBJECT.get(kind, _GENERIC) if isinstance(kind, str) else _GENERIC


class AnthropicResults(Results, AnthropicMessages):
    """The results of a batch of messages."""

    request = Table(*COMMON)
    answer = event = Table(*COMMON, text("result.message"))
    is_repetitive = False
    _message = AnthropicMessages()

    def entry(self, root: Any) -> tuple[Path, Dialect] | None:
        """Return the place of a line's message; None if the line has none."""
        is_there = isinstance(fields(fields(root).get("result")).get("message"), dict)
        return (("result", "message"), self._message) if is_there else None
