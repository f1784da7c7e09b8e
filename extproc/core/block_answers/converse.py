"""Answers of Bedrock's Converse."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer, Event, Facts, Frames, number
from extproc.core.content.document import fields

_FINISH = "guardrail_intervened"

_END: dict[str, Any] = {
    "usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
    "metrics": {"latencyMs": 0},
}


class ConverseAnswer(BlockAnswer):
    """An answer of Converse. In a running stream the message is a block of its own."""

    frames = Frames.NAMED

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._has_begun = False
        self._open: int | None = None
        self._blocks = 0

    def follow(self, root: Any) -> None:
        """Take note of an event, whose fields tell what it is: whether the message has begun, and its open block."""
        event = fields(root)
        index = number(event.get("contentBlockIndex"))
        self._has_begun = self._has_begun or "role" in event or index is not None
        if index is not None:
            self._blocks = max(self._blocks, index + 1)
            self._open = index if "delta" in event or "start" in event else None

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        said = {"role": "assistant", "content": [{"text": message}]}
        return {"output": {"message": said}, "stopReason": _FINISH, **_END}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        index = {"contentBlockIndex": self._blocks}
        events: list[Event] = [] if self._has_begun else [("messageStart", {"role": "assistant"})]
        if self._open is not None:
            events.append(("contentBlockStop", {"contentBlockIndex": self._open}))
        return [
            *events,
            ("contentBlockDelta", {**index, "delta": {"text": message}}),
            ("contentBlockStop", index),
            ("messageStop", {"stopReason": _FINISH}),
            ("metadata", _END),
        ]
