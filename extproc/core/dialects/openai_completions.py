"""OpenAI's legacy Completions API. Source: OpenAI's API reference, "Completions"."""

from __future__ import annotations

from dataclasses import replace

from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect, Leaf, Prompt, prompt, unknown_texts
from extproc.core.dialects.openai_chat import choice_index
from extproc.core.dialects.openai_requests import plain_texts


class OpenAICompletions(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-completions"
    reads_answers = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the prompts, and the suffix that follows an insertion."""
        root = fields(document.root)
        return [prompt("user", leaf) for key in ("prompt", "suffix") for leaf in plain_texts(root.get(key), (key,))]

    def answers(self, document: Document) -> list[Leaf]:
        """Return every choice's text."""
        return self._texts(document, is_stream=False)

    def deltas(self, document: Document) -> list[Leaf]:
        """Return every choice's piece of text."""
        return self._texts(document, is_stream=True)

    @staticmethod
    def _texts(document: Document, *, is_stream: bool) -> list[Leaf]:
        choices = fields(document.root).get("choices")
        if not isinstance(choices, list):
            return list(unknown_texts(document.root))
        leaves: list[Leaf] = []
        for position, node in enumerate(choices):
            choice = fields(node)
            path = ("choices", position)
            index = choice_index(node) if is_stream else position
            logprobs = ((*path, "logprobs"),) if choice.get("logprobs") is not None else ()
            # Other servers have more texts than `text`, such as their reasoning.
            said = unknown_texts({key: choice[key] for key in choice if key != "logprobs"}, path)
            leaves += [replace(leaf, place=(index, *leaf.path[len(path) :]), nulled=logprobs) for leaf in said]
        return leaves
