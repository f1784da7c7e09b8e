"""Contents of files, and results of batches: JSON lines, each with an answer of its own.

Sources: OpenAI's API reference, "Batch" and "Retrieve file content"; Anthropic's, "Retrieve Message Batch results".
"""

from __future__ import annotations

from collections.abc import Hashable
from zlib import crc32

from extproc.core.content.document import Document, fields
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_requests import DataDialect, Embeddings, Images
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.dialects.rules import COMMON, below, inert, text
from extproc.core.dialects.table import Table
from extproc.core.policy import Inspect

_SLOTS = 16
"""How many running texts the lines of a file share for each place. A stream can have only some thousand texts."""


class Results(DataDialect):
    """A dialect whose answers are lines that have nothing to do with each other."""

    opt_in = Inspect.FILES
    streams_lines = True
    takes_plain_text = True

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one line. Each is whole, and so are tool arguments."""
        root = fields(document.root)
        name = next((value for key in ("custom_id", "id") if isinstance(value := root.get(key), str)), "")
        slot = crc32(name.encode("utf-8", "surrogatepass")) % _SLOTS
        leaves = self.answers(document, locates=locates)
        for number, leaf in enumerate(leaves):
            place: tuple[Hashable, ...] = (slot, *leaf.path)
            leaf.place, leaf.number, leaf.kind = place, number, Kind.TEXT
            leaf.is_json = leaf.is_json and leaf.is_embedded
        return leaves


class FileContents(Results):
    """The content of a file: the output of a batch, or any other text."""

    name = "openai-chat"
    answers_media = True
    request = Table(*COMMON)
    answer = event = Table(
        *COMMON,
        text("body"),
        inert("method", "error.code", "response.body.usage.*"),
        *below("response.body", OpenAIResponses.answer.own),
        *below("response.body", OpenAIChat.answer.own),
        *below("response.body", Embeddings.answer.own),
        *below("response.body", Images.answer.own),
    )


class AnthropicResults(Results, AnthropicMessages):
    """The results of a batch of messages."""

    request = Table(*COMMON)
    answer = event = Table(*COMMON, *below("result.message", AnthropicMessages.answer.own))
    is_repetitive = False
