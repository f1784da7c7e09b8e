"""Answers of Anthropic's Messages and Text Completions, and of Anthropic's models on Bedrock."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer, Event, Facts, Frames, name, number
from extproc.core.content.document import fields

_FINISH = "refusal"


class MessageAnswer(BlockAnswer):
    """An answer of Messages. In a running stream the message is a block of its own."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._has_begun = False
        self._open: int | None = None
        self._blocks = 0
        self._output_tokens = 0

    def follow(self, root: Any) -> None:
        """Take note of an event: whether the message has begun, and which of its blocks is open."""
        event = fields(root)
        kind, index = event.get("type"), number(event.get("index"))
        if kind == "message_start":
            self._has_begun = True
        elif kind == "message_delta":
            self._output_tokens = number(fields(event.get("usage")).get("output_tokens")) or self._output_tokens
        elif kind == "content_block_stop":
            self._open = None
        elif kind == "content_block_start" and index is not None:
            self._has_begun = True
            self._open = index
            self._blocks = max(self._blocks, index + 1)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        return {**self._message(), "content": [{"type": "text", "text": message}], "stop_reason": _FINISH}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        index = self._blocks
        events: list[dict[str, Any]] = []
        if not self._has_begun:
            events.append({"type": "message_start", "message": self._message()})
        if self._open is not None:
            events.append({"type": "content_block_stop", "index": self._open})
        events += [
            {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": message}},
            {"type": "content_block_stop", "index": index},
            {
                "type": "message_delta",
                "delta": {"stop_reason": _FINISH, "stop_sequence": None},
                "usage": {"output_tokens": self._output_tokens},
            },
            {"type": "message_stop"},
        ]
        return [(event["type"], event) for event in events]

    def _message(self) -> dict[str, Any]:
        return {
            "id": f"msg_{self.facts.call_id}",
            "type": "message",
            "role": "assistant",
            "model": self.facts.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }


class BedrockMessageAnswer(MessageAnswer):
    """The same in Bedrock's frames."""

    frames = Frames.CHUNKS


class TextCompletionAnswer(BlockAnswer):
    """An answer of the legacy Text Completions."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._id = f"compl_{facts.call_id}"
        self._model = facts.model

    def follow(self, root: Any) -> None:
        """Take note of the id of an event."""
        self._id = name(fields(root).get("id"), self._id)
        self._model = name(fields(root).get("model"), self._model)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        return self._completion(message, _FINISH)

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        return [("completion", self._completion(message)), ("completion", self._completion("", _FINISH))]

    def _completion(self, text: str, finish: str | None = None) -> dict[str, Any]:
        about = {"type": "completion", "id": self._id, "model": self._model}
        return {**about, "completion": text, "stop_reason": finish, "stop": None}
