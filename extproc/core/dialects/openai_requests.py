"""OpenAI's and Cohere's APIs whose answers are data rather than text: embeddings, images, speech, reranking.

Sources: the API references of OpenAI ("Embeddings", "Images", "Videos", "Audio", "Moderations", "Realtime") and Cohere
("Rerank").
"""

from __future__ import annotations

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.content.document import Document
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.openai_chat import CHAT_MESSAGES
from extproc.core.dialects.rules import COMMON, MODEL, below, inert, media, opaque, text, tools
from extproc.core.dialects.table import Table
from extproc.core.policy import Inspect


class DataDialect(Dialect):
    """A dialect whose answers are never streamed text."""

    def streams(self, document: Document, path: str) -> bool:
        """Return False: a session would be opened for nothing."""
        return False

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return None: the answers are no text."""
        return None


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
        MODEL,
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
    """Images and videos from a prompt. Requests with images or videos are forms."""

    name = "openai-images"
    answers_media = True
    takes_forms = True
    request = Table(
        *COMMON,
        MODEL,
        *_PICTURES,
        text("prompt", "negative_prompt"),
        inert("background", "moderation", "output_format", "quality", "response_format", "size", "style", "user"),
        inert("input_fidelity", "seconds", "n", "output_compression", "partial_images", "stream"),
    )
    answer = event = Table(
        *COMMON,
        text("data[].revised_prompt", "prompt"),
        inert("background", "output_format", "quality", "size", "seconds", "error.code"),
    )


class Speech(DataDialect):
    """Speech from a text."""

    name = "openai-speech"
    answers_media = True
    request = Table(
        *COMMON,
        MODEL,
        text("input", "instructions"),
        inert("voice", "response_format", "stream_format"),
    )
    answer = event = Table(*COMMON, media("audio", "delta", "data"))


class Moderations(DataDialect):
    """Texts that are classified."""

    name = "openai-moderations"
    request = Table(
        *COMMON,
        MODEL,
        text(*_ENTRIES),
        media("input[].image_url", "input[].image_url.url"),
    )
    answer = event = Table(*COMMON, inert("results[].category_applied_input_types.*[]"))


_SESSION = (
    tools("tools[]"),
    inert(
        "audio.input.noise_reduction",
        "audio.input.turn_detection.eagerness",
        "audio.output.voice",
        "include[]",
        "input_audio_format",
        "max_output_tokens",
        "max_response_output_tokens",
        "modalities[]",
        "output_audio_format",
        "output_modalities[]",
        "prompt.version",
        "reasoning.effort",
        "tool_choice",
        "tool_choice.name",
        "tracing",
        "truncation",
        "turn_detection.eagerness",
        "voice",
    ),
)
"""What a realtime session holds."""


class RealtimeSecrets(DataDialect):
    """Secrets with which a browser opens a realtime session, and the instructions of that session."""

    name = "openai-responses"
    request = Table(
        *COMMON,
        MODEL,
        *_SESSION,
        *below("session", _SESSION),
        text("instructions", "session.instructions", role="system"),
        inert("expires_after.anchor"),
    )
    answer = event = Table(
        *COMMON,
        *_SESSION,
        *below("session", _SESSION),
        text("instructions", "session.instructions"),
        opaque("value", "client_secret.value"),
    )


class Rerank(DataDialect):
    """Documents ranked for a query."""

    name = "rerank"
    request = Table(*COMMON, MODEL, *_PICTURES, text("query", "documents", "documents[].text", "texts"))
    answer = event = Table(*COMMON)
