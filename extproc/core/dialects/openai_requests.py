"""OpenAI's and Cohere's APIs whose answers are data rather than text: embeddings, images, speech, reranking.

Sources: the API references of OpenAI ("Embeddings", "Images", "Audio") and Cohere ("Rerank").
"""

from __future__ import annotations

from extproc.core.content.document import Document
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.openai_chat import CHAT_MESSAGES
from extproc.core.dialects.rules import COMMON, inert, media, opaque, text
from extproc.core.dialects.table import Table
from extproc.core.policy import Inspect


class DataDialect(Dialect):
    """A dialect whose answers are never streamed text."""

    def streams(self, document: Document, path: str) -> bool:
        """Return False: a session would be opened for nothing."""
        return False


_ENTRIES = ("input", "input[].text", "input[].content", "input[].content[].text")

_PICTURES = (
    media("**.image", "**.image_url", "**.image_bytes", "**.audio", "**.video"),
    media("input[].content[].image_url", "input[].content[].image_url.url"),
)


class Embeddings(DataDialect):
    """Embeddings, which are inspected only if the settings say so."""

    name = "openai-embeddings"
    opt_in = Inspect.EMBEDDINGS
    request = Table(
        *COMMON,
        *_PICTURES,
        *CHAT_MESSAGES,
        text(*_ENTRIES),
        inert("encoding_format", "input_type", "embedding_types[]", "truncate", "truncation", "user", "task"),
    )
    answer = event = Table(
        *COMMON,
        opaque("data[].embedding", "data[].embedding.*", "embeddings.*"),
        inert("error.code", "error.param"),
    )


class Images(DataDialect):
    """Images from a prompt."""

    name = "openai-images"
    answers_media = True
    request = Table(
        *COMMON,
        *_PICTURES,
        text("prompt", "negative_prompt"),
        inert("background", "moderation", "output_format", "quality", "response_format", "size", "style", "user"),
    )
    answer = event = Table(
        *COMMON,
        text("data[].revised_prompt"),
        inert("background", "output_format", "quality", "size"),
    )


class Speech(DataDialect):
    """Speech from a text."""

    name = "openai-speech"
    answers_media = True
    request = Table(
        *COMMON,
        text("input", "instructions"),
        inert("voice", "response_format", "stream_format"),
    )
    answer = event = Table(*COMMON, media("audio", "delta", "data"))


class Rerank(DataDialect):
    """Documents ranked for a query."""

    name = "rerank"
    request = Table(*COMMON, *_PICTURES, text("query", "documents", "documents[].text", "texts"))
    answer = event = Table(*COMMON)
