"""APIs of which the request alone holds text: embeddings, images, speech, reranking.

Sources: OpenAI's API reference ("Embeddings", "Images", "Audio"), Cohere's ("Rerank").
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
"""The keys of an object that hold no text: of a document to be ranked, or an input of many media."""


class RequestTexts(Dialect):
    """A dialect whose texts are strings, or lists and objects of strings, under known keys."""

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
    """Embeddings, inspected only where the settings say so."""

    opt_in = Inspect.EMBEDDINGS

    def __init__(self) -> None:
        """Read `input`."""
        super().__init__("openai-embeddings", "input")

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the inputs, and the messages that some servers take in their place."""
        return super().prompts(document, tools=tools) + list(messages(fields(document.root).get("messages")))


def plain_texts(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the strings of an input.

    Raises MalformedBody for token numbers: what they say cannot be judged.
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
        raise MalformedBody("tokens in place of a text")
