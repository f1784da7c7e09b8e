"""Answers of OpenAI's Chat Completions and Completions, and of the APIs that copy them."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import DONE, BlockAnswer, Choices, Event, Facts, name, number
from extproc.core.content.document import fields, items

_FINISH = "content_filter"

_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class ChatAnswer(BlockAnswer):
    """An answer of Chat Completions. In a running stream it ends every choice that has not ended."""

    prefix = "chatcmpl"
    answer_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._id = f"{self.prefix}-{facts.call_id}"
        self._created = facts.created
        self._model = facts.model
        self._choices = Choices()

    def follow(self, root: Any) -> None:
        """Take note of a chunk: its id, and which choices have begun and ended."""
        chunk = fields(root)
        self._id = name(chunk.get("id"), self._id)
        self._created = number(chunk.get("created")) or self._created
        self._model = name(chunk.get("model"), self._model)
        for choice in items(chunk.get("choices")):
            self._choices.see(fields(choice).get("index"), has_ended=fields(choice).get("finish_reason") is not None)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        choice = {"index": 0, **self._said(message), "logprobs": None, "finish_reason": _FINISH}
        return {**self._base(self.answer_object), "choices": [choice], "usage": _USAGE}

    def rest(self, message: str) -> list[Event]:
        """Return the chunks that end the stream."""
        events: list[Event] = []
        for index in self._choices.open:
            events.append(self._chunk(index, self._piece(index, message)))
            events.append(self._chunk(index, self._last(), _FINISH))
        return [*events, ("", DONE)]

    def _base(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, index: int, said: dict[str, Any], finish: str | None = None) -> Event:
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        return "", {**self._base(self.chunk_object), "choices": [choice]}

    def _said(self, message: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": message, "refusal": None}}

    def _piece(self, index: int, message: str) -> dict[str, Any]:
        role = {} if index in self._choices else {"role": "assistant"}
        return {"delta": {**role, "content": message}}

    def _last(self) -> dict[str, Any]:
        return {"delta": {}}


class CompletionAnswer(ChatAnswer):
    """An answer of the legacy Completions."""

    prefix = "cmpl"
    answer_object = chunk_object = "text_completion"

    def _said(self, message: str) -> dict[str, Any]:
        return {"text": message}

    def _piece(self, index: int, message: str) -> dict[str, Any]:
        return {"text": message}

    def _last(self) -> dict[str, Any]:
        return {"text": ""}
