"""OpenAI's transcriptions and translations of audio.

Source: OpenAI's API reference, "Audio". A request is a form with the audio in a file. An answer is JSON, a plain text,
subtitles, or an event stream. vLLM streams chunks in the shape of chat.
"""

from __future__ import annotations

from typing import Any

from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect, PlainTexts, Running, asks_in_form, running, short_name
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, MODEL, inert, media, text, tokens
from extproc.core.dialects.table import Table

_WHOLE = "transcript.text.done"
_PIECES = ("transcript.text.delta", _WHOLE)
_SAID = (("delta",), ("text",))


class OpenAITranscriptions(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-transcriptions"
    takes_forms = True
    plain_texts = PlainTexts.ANSWERS
    is_repetitive = True
    request = Table(
        *COMMON,
        MODEL,
        text("prompt"),
        media("file", "known_speaker_references[]"),
        inert(
            "chunking_strategy",
            "include[]",
            "response_format",
            "stream",
            "temperature",
            "timestamp_granularities[]",
            "max_completion_tokens",
            "seed",
            "top_p",
        ),
    )
    answer = Table(
        *COMMON,
        text("text"),
        tokens("logprobs", "words", "segments[].tokens", "segments[].words", everywhere=True),
        inert("task", "segments[].speaker", "segments[].temperature", "error.code", "error.param"),
    )
    event = Table(
        *COMMON,
        text("delta", "text", "choices[].delta.content"),
        tokens("logprobs", everywhere=True),
        inert("speaker", "error.code", "error.param"),
    )

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the request asks for an event stream. Fields of a form are strings."""
        return super().streams(document, path) or asks_in_form(document)

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: the transcript, or another text of the event. Segments are one text, too."""
        kind = fields(root).get("type")
        is_said = leaf.path in _SAID and kind in _PIECES
        return ("transcript",) if is_said else (short_name(kind), *running(root, leaf.path))

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text, or the whole transcript again."""
        is_whole = leaf.path == ("text",) and fields(root).get("type") == _WHOLE
        return Kind.REPEAT if is_whole else Kind.TEXT
