"""Ollama's own API: chat, generation and embeddings. Ollama streams lines of JSON unless a request says no.

Source: Ollama's API reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.ollama import OllamaChatAnswer, OllamaGenerateAnswer
from extproc.core.content.document import Document, fields
from extproc.core.content.framing import Framing
from extproc.core.dialects.base import Dialect, endpoint
from extproc.core.dialects.openai_requests import DataDialect
from extproc.core.dialects.rules import COMMON, MODEL, arguments, below, inert, media, text, tokens, tools, unreadable
from extproc.core.dialects.table import Table
from extproc.core.policy import Inspect
from extproc.core.refusal import Refusal

_ROLES = {"assistant": "assistant", "system": "system"}


def _speaker(message: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": _ROLES.get(str(message.get("role")), "user")}


_SAID = (
    text("content", "thinking"),
    arguments("tool_calls[].function.arguments"),
    media("images[]"),
    inert("tool_calls[].function.name", "tool_name"),
)
"""What a message holds: of a request, of an answer, or its part in a line."""


class OllamaDialect(Dialect):
    """A dialect with Ollama's error object."""

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Ollama's error object."""
        return json.dumps({"error": refusal.message}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event, for a gateway that makes events of lines."""
        return b"data: " + self.refuse(refusal) + b"\n\n"


class Ollama(OllamaDialect):
    """Chat and generation; see `extproc.core.dialects.base.Dialect`."""

    name = "ollama"
    request = Table(
        *COMMON,
        MODEL,
        text("messages[]", speaker=_speaker),
        *below("messages[]", _SAID),
        text("prompt", "suffix"),
        text("system", "template", role="system"),
        unreadable("context"),  # an earlier conversation in token numbers
        media("images[]"),
        tools("tools[]", "format.$defs", "format.definitions", "format.items", "format.properties"),
        inert("format", "format.$schema", "format.required[]", "keep_alive", "think", "options.*"),
    )
    answer = event = Table(
        *COMMON,
        *below("message", _SAID),
        text("response", "thinking"),
        tokens("context", "logprobs", everywhere=True),
        inert("done_reason"),
        media("image"),
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block: of the chat, or of the generation."""
        return OllamaGenerateAnswer if endpoint(path).endswith("generate") else OllamaChatAnswer

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the request asks for a stream: it does, unless it says no."""
        return fields(document.root).get("stream") is not False

    def stream_framing(self, path: str) -> Framing:
        """Return the framing of a stream."""
        return Framing.JSON_LINES

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the line is the last one."""
        if document is None:
            return super().is_final(data, document)
        return fields(document.root).get("done") is True


class OllamaEmbed(OllamaDialect, DataDialect):
    """Embeddings, which are inspected only if the settings say so."""

    name = "ollama"
    opt_in = Inspect.EMBEDDINGS
    request = Table(*COMMON, MODEL, text("input", "prompt"), inert("keep_alive", "options.*"))
    answer = event = Table(*COMMON)
