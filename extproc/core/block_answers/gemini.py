"""Answers of Gemini's generateContent, of Code Assist and of the Interactions API."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer, Choices, Event, Facts, name, number
from extproc.core.content.document import fields, items


class GeminiAnswer(BlockAnswer):
    """An answer of generateContent. In a running stream it ends every candidate that has not ended."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._id = facts.call_id
        self._model = facts.model
        self._candidates = Choices()

    def follow(self, root: Any) -> None:
        """Take note of an answer of the stream: its id, and which candidates have begun and ended."""
        answer = fields(root)
        self._id = name(answer.get("responseId"), self._id)
        self._model = name(answer.get("modelVersion"), self._model)
        for candidate in items(answer.get("candidates")):
            finish = fields(candidate).get("finishReason")
            self._candidates.see(fields(candidate).get("index"), has_ended=finish is not None)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer, or the last one of a stream."""
        content = {"parts": [{"text": message}], "role": "model"}
        return {
            "candidates": [
                {"content": content, "finishReason": "SAFETY", "index": index} for index in self._candidates.open
            ],
            "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0},
            "modelVersion": self._model,
            "responseId": self._id,
        }

    def rest(self, message: str) -> list[Event]:
        """Return the answer that ends the stream."""
        return [("", self.whole(message))]


class CodeAssistAnswer(GeminiAnswer):
    """The same in one more object."""

    def follow(self, root: Any) -> None:
        """Take note of an answer of the stream."""
        super().follow(fields(root).get("response"))

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer, or the last one of a stream."""
        return {"response": super().whole(message), "traceId": self.facts.call_id}


class InteractionAnswer(BlockAnswer):
    """An interaction. In a running stream the message is a step of its own."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._has_begun = False
        self._id = f"v1_{facts.call_id}"
        self._open: int | None = None
        self._steps = 0

    def follow(self, root: Any) -> None:
        """Take note of an event: the id of the interaction, and which of its steps is open."""
        event = fields(root)
        index = number(event.get("index"))
        interaction = fields(event.get("interaction"))
        if interaction:
            self._has_begun = True
            self._id = name(interaction.get("id"), self._id)
        if index is None:
            return
        self._has_begun = True
        self._steps = max(self._steps, index + 1)
        self._open = None if event.get("event_type") == "step.stop" else index

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole interaction."""
        step = {"type": "model_output", "content": [{"type": "text", "text": message}]}
        return {**self._interaction("completed"), "steps": [step]}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        index = self._steps
        events: list[dict[str, Any]] = []
        last = self._interaction("completed")
        if not self._has_begun:
            events.append({"interaction": self._interaction("in_progress"), "event_type": "interaction.created"})
            last = self.whole(message)
        if self._open is not None:
            events.append({"index": self._open, "event_type": "step.stop"})
        events += [
            {"index": index, "step": {"type": "model_output"}, "event_type": "step.start"},
            {"index": index, "delta": {"type": "text", "text": message}, "event_type": "step.delta"},
            {"index": index, "event_type": "step.stop"},
            {"interaction": last, "event_type": "interaction.completed"},
        ]
        return [(event["event_type"], event) for event in events]

    def _interaction(self, status: str) -> dict[str, Any]:
        about = {"id": self._id, "object": "interaction", "model": self.facts.model, "status": status}
        return {**about, "created": self.facts.created_at, "updated": self.facts.created_at}
