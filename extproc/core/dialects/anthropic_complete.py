"""Anthropic's legacy Text Completions API. Source: Anthropic's API reference, "Text Completions"."""

from __future__ import annotations

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.messages import TextCompletionAnswer
from extproc.core.content.document import Document, fields
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.rules import COMMON, MODEL, inert, text
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal


class AnthropicComplete(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. Its refusals are those of Messages."""

    name = "anthropic-complete"
    request = Table(*COMMON, MODEL, text("prompt"), inert("anthropic_version"))
    answer = event = Table(*COMMON, text("completion"), inert("stop", "error.type"))

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return TextCompletionAnswer

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event says why the text ends."""
        if document is None:
            return super().is_final(data, document)
        return isinstance(fields(document.root).get("stop_reason"), str)

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the API's error object."""
        return _MESSAGES.refuse(refusal)

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event."""
        return _MESSAGES.refuse_stream(refusal, sequence)


_MESSAGES = AnthropicMessages()
