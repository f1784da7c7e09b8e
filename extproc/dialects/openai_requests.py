"""APIs of which the request alone holds text: embeddings, images, speech, reranking.

Sources: OpenAI's API reference ("Embeddings", "Images", "Audio"), Cohere's ("Rerank").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extproc.dialects.base import Dialect, Prompt, prompt
from extproc.dialects.openai_chat import messages
from extproc.dialects.openai_completions import plain_texts
from extproc.document import Document, fields

if TYPE_CHECKING:
    from extproc.settings import Inspect


class RequestTexts(Dialect):
    """A dialect whose texts are strings, or lists of strings, under known keys."""

    def __init__(self, name: str, *keys: str) -> None:
        """Name the dialect and the keys of its texts, in order."""
        self.name = name
        self._keys = keys

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the texts under the dialect's keys."""
        root = fields(document.root)
        return [prompt("user", leaf) for key in self._keys for leaf in plain_texts(root.get(key), (key,))]

    def streams(self, document: Document, path: str) -> bool:
        """An answer that is not read needs no session."""
        return False


class Embeddings(RequestTexts):
    """Embeddings, looked at only where the settings say so."""

    def __init__(self) -> None:
        """Read `input`."""
        super().__init__("openai-embeddings", "input")

    def is_inspected(self, inspect: Inspect) -> bool:
        """Follow `inspect.embeddings`."""
        return inspect.embeddings

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the inputs, and the messages that some servers take in their place."""
        return super().prompts(document, tools=tools) + list(messages(fields(document.root).get("messages")))
