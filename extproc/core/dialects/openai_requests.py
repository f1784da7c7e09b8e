"""APIs whose requests hold text and whose answers do not: embeddings, images, speech, reranking.

Sources: the API references of OpenAI ("Embeddings", "Images", "Audio") and Cohere ("Rerank").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.core.content.document import Document, Path, fields
from extproc.core.dialects.base import Dialect, Leaf, Prompt, prompt
from extproc.core.dialects.openai_chat import messages
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect

_OPAQUE_KEYS = frozenset(
    {"audio", "audio_url", "image", "image_url", "image_bytes", "input_audio", "type", "video", "video_url"}
)
"""Keys that hold no text, in a document to be ranked or in an input of several media."""


class RequestTexts(Dialect):
    """A dialect whose texts are under known keys: strings, or lists and objects of strings."""

    def __init__(self, name: str, *keys: str) -> None:
        """Create the dialect `name` with the keys of its texts, in order."""
        self.name = name
        self._keys = keys

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the texts under the dialect's keys."""
        root = fields(document.root)
        return [prompt("user", leaf) for key in self._keys for leaf in plain_texts(root.get(key), (key,))]

    def streams(self, document: Document, path: str) -> bool:
        """Return False: the answer is not read, so it needs no session."""
        return False


class Embeddings(RequestTexts):
    """Embeddings, which are inspected only if the settings say so."""

    opt_in = Inspect.EMBEDDINGS

    def __init__(self) -> None:
        """Read `input`."""
        super().__init__("openai-embeddings", "input")

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the inputs, or the messages that some servers accept instead."""
        return super().prompts(document, tools=tools) + list(messages(fields(document.root).get("messages")))


def plain_texts(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the strings of an input.

    Raises MalformedBody for token numbers: Aim cannot judge them.
    """
    if isinstance(node, str):
        if node:
            yield Leaf(path, node)
    elif isinstance(node, list):
        for position, item in enumerate(node):
            yield from plain_texts(item, (*path, position))
    elif isinstance(node, dict):
        for key, value in fields(node).items():
            if isinstance(value, str | list | dict) and key not in _OPAQUE_KEYS:
                yield from plain_texts(value, (*path, key))
    elif node is not None:
        raise MalformedBody("token numbers instead of a text")
