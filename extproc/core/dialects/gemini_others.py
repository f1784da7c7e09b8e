"""Google's APIs around Gemini: Code Assist, embeddings and token counts, and Vertex AI's predictions.

Sources: Google's API references of the Gemini API ("Embeddings", "Counting tokens") and of Vertex AI ("predict",
"rawPredict"); Code Assist is what Gemini's command line calls, and wraps each document of Gemini in one more object.
"""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.gemini import CodeAssistAnswer
from extproc.core.content.document import fields
from extproc.core.dialects.base import Running
from extproc.core.dialects.gemini import Gemini
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.google_error import google_error
from extproc.core.dialects.leaf import Leaf
from extproc.core.dialects.openai_requests import DataDialect
from extproc.core.dialects.rules import COMMON, below, inert, media, text
from extproc.core.dialects.table import Table
from extproc.core.policy import Inspect
from extproc.core.refusal import Refusal


class CodeAssist(Gemini):
    """Gemini's documents under `request` and `response`."""

    unit_depth = 3
    request = Table(
        *COMMON,
        *below("request", Gemini.request.own),
        inert("project", "request.session_id"),
        two_spellings=True,
    )
    answer = event = Table(*COMMON, *below("response", Gemini.answer.own), inert("traceId"), two_spellings=True)

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return CodeAssistAnswer

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text of the document under `response`."""
        if leaf.path[:1] != ("response",) or len(leaf.path) == 1:
            return super().place(root, leaf)
        inside = Leaf(leaf.path[1:], leaf.text)
        return ("response", *super().place(fields(root)["response"], inside))


class GeminiCountTokens(DataDialect, Gemini):
    """Token counts: those of a prompt, or of the texts of embeddings."""

    request = Table(
        *COMMON,
        *Gemini.request.own,
        text("content", "content.parts[].text", "requests[].content", "requests[].content.parts[].text"),
        media("content.parts[].inlineData.data", "requests[].content.parts[].inlineData.data"),
        inert(
            "taskType",
            "requests[].taskType",
            "embedContentConfig.taskType",
            "content.role",
            "requests[].content.role",
            "content.parts[].inlineData.mimeType",
            "requests[].content.parts[].inlineData.mimeType",
        ),
        *below("generateContentRequest", Gemini.request.own),
        two_spellings=True,
    )
    answer = event = Table(*COMMON, inert("promptTokensDetails[].modality", "usageMetadata.*[].modality"))


class GeminiEmbeddings(GeminiCountTokens):
    """Embeddings, which are inspected only if the settings say so."""

    opt_in = Inspect.EMBEDDINGS


class VertexPredict(Generic):
    """Bodies of models of other makers, and of the user's own, on Vertex AI. Refusals are Google's."""

    request = answer = event = Table(*COMMON, *Generic.request.own, media("**.bytesBase64Encoded"))

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Google's error object."""
        return google_error(refusal)

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event."""
        return b"data: " + self.refuse(refusal) + b"\n\n"
