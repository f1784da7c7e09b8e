"""OpenAI's legacy Completions API. Source: OpenAI's API reference, "Completions"."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.chat import ChatAnswer, CompletionAnswer
from extproc.core.dialects.base import Dialect, Running, endpoint
from extproc.core.dialects.leaf import Leaf
from extproc.core.dialects.openai_chat import CHAT_MESSAGES, FACTS, OPTIONS, SAID, choice_place
from extproc.core.dialects.rules import COMMON, MODEL, below, text
from extproc.core.dialects.table import Table

_GIVEN = Table(
    *COMMON,
    *FACTS,
    text("choices[].text"),
    *below("choices[]", SAID),
    *below("choices[].message", SAID),
    *below("choices[].delta", SAID),
)
"""Mistral's completions of code have the answers and chunks of chat."""


class OpenAICompletions(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. Some servers accept chat messages on its path, too."""

    name = "openai-completions"
    request = Table(*COMMON, MODEL, text("prompt", "suffix", "input"), *CHAT_MESSAGES, *OPTIONS)
    answer = event = _GIVEN

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block. Mistral's completions of code have the answers of chat."""
        return ChatAnswer if endpoint(path).endswith("/fim/completions") else CompletionAnswer

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text. A choice without an index is choice 0."""
        return choice_place(root, leaf)
