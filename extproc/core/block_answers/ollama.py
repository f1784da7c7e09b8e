"""Answers of Ollama's chat and generation."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer, Event, Facts, name
from extproc.core.content.document import fields


class OllamaChatAnswer(BlockAnswer):
    """An answer of the chat."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._model = facts.model

    def follow(self, root: Any) -> None:
        """Take note of the model of a line."""
        self._model = name(fields(root).get("model"), self._model)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        return self._line(message, done=True)

    def rest(self, message: str) -> list[Event]:
        """Return the lines that end the stream."""
        return [("", self._line(message, done=False)), ("", self._line("", done=True))]

    def _line(self, text: str, *, done: bool) -> dict[str, Any]:
        line = {"model": self._model, "created_at": self.facts.created_at, **self._said(text), "done": done}
        return {**line, "done_reason": "content_filter"} if done else line

    def _said(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}


class OllamaGenerateAnswer(OllamaChatAnswer):
    """An answer of the generation."""

    def _said(self, text: str) -> dict[str, Any]:
        return {"response": text}
