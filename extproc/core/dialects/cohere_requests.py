"""Cohere's APIs whose answers are data: embeddings and reranking; and those of Hugging Face's servers.

Sources: Cohere's API reference, "Embed" and "Rerank", and the API of Text Embeddings Inference (TEI).
"""

from __future__ import annotations

import json

from extproc.core.dialects.cohere_chat import CohereDialect
from extproc.core.dialects.openai_requests import DataDialect, Rerank
from extproc.core.dialects.rules import COMMON, MODEL, inert, media, opaque, text
from extproc.core.dialects.table import Table
from extproc.core.policy import Inspect
from extproc.core.refusal import Refusal

_KINDS = {502: "backend", 503: "overloaded"}


def huggingface_error(refusal: Refusal) -> bytes:
    """Return the error object of Hugging Face's servers."""
    return json.dumps({"error": refusal.message, "error_type": _KINDS.get(refusal.status, "validation")}).encode()


class CohereEmbed(CohereDialect, DataDialect):
    """Embeddings, which are inspected only if the settings say so."""

    name = "cohere-embed"
    opt_in = Inspect.EMBEDDINGS
    request = Table(
        *COMMON,
        MODEL,
        text("texts", "inputs", "inputs[].content", "inputs[].content[].text"),
        media("images[]", "inputs[].content[].image_url", "inputs[].content[].image_url.url"),
        inert("input_type", "embedding_types[]", "truncate", "truncation_direction", "prompt_name"),
    )
    answer = event = Table(
        *COMMON,
        opaque("embeddings.*", "embeddings.*[]"),
        inert("response_type", "meta.api_version.version"),
    )


class HuggingFaceDialect(DataDialect):
    """A dialect with the error object of Hugging Face's servers."""

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the servers' error object."""
        return huggingface_error(refusal)


class HuggingFaceEmbed(HuggingFaceDialect, CohereEmbed):
    """Embeddings of TEI."""


class CohereRerank(CohereDialect, Rerank):
    """Reranking of Cohere's version 2."""


class HuggingFaceRerank(HuggingFaceDialect, Rerank):
    """Reranking of TEI."""
