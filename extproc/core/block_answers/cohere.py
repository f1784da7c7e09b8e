"""Answers of Cohere's Chat, versions 2 and 1."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer, Event, Facts, Pieces, name, number
from extproc.core.content.document import fields

_USAGE = {"tokens": {"input_tokens": 0, "output_tokens": 0}}

_FINISH = {"finish_reason": "ERROR", "usage": _USAGE}


class CohereAnswer(BlockAnswer):
    """An answer of version 2. In a running stream the message is a content of its own."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._has_begun = False
        self._id = facts.call_id
        self._contents = 0
        self._open: dict[str, int] = {}

    def follow(self, root: Any) -> None:
        """Take note of an event: whether the message has begun, and which of its parts are open."""
        event = fields(root)
        index = number(event.get("index"))
        kind, _, stage = name(event.get("type"), "").rpartition("-")
        if kind == "message":
            self._has_begun = True
            self._id = name(event.get("id"), self._id)
        elif kind in _PARTS and index is not None:
            self._has_begun = True
            if kind == "content":
                self._contents = max(self._contents, index + 1)
            if stage == "start":
                self._open[kind] = index
            elif stage == "end":
                self._open.pop(kind, None)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        said = {"role": "assistant", "content": [{"type": "text", "text": message}]}
        return {"id": self._id, "message": said, **_FINISH}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        index = {"index": self._contents}
        said: dict[str, Any] = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        events: list[dict[str, Any]] = []
        if not self._has_begun:
            events.append({"type": "message-start", "id": self._id, "delta": {"message": said}})
        events += [{"type": f"{kind}-end", "index": self._open[kind]} for kind in _PARTS if kind in self._open]
        events += [
            {"type": "content-start", **index, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            {"type": "content-delta", **index, "delta": {"message": {"content": {"text": message}}}},
            {"type": "content-end", **index},
            {"type": "message-end", "id": self._id, "delta": _FINISH},
        ]
        return [(event["type"], event) for event in events]


_PARTS = ("citation", "tool-call", "content")
"""What an event begins and ends, in the order in which open ones end: citations lie in a content."""


class CohereAnswerV1(BlockAnswer):
    """An answer of version 1, whose last event repeats the text."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._has_begun = False
        self._id = facts.call_id
        self._text = Pieces()

    @property
    def kept(self) -> int:
        """The bytes of the text."""
        return self._text.kept

    def follow(self, root: Any) -> None:
        """Take note of an event: the id of the answer, and its text."""
        event = fields(root)
        self._has_begun = True
        self._id = name(event.get("generation_id"), self._id)
        if event.get("event_type") == "text-generation":
            self._text.add(event.get("text"))

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        about = {"response_id": self.facts.call_id, "generation_id": self._id}
        return {**about, "text": message, "finish_reason": "ERROR_TOXIC", "meta": _USAGE}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        start = {"is_finished": False, "event_type": "stream-start", "generation_id": self._id}
        end = {"is_finished": True, "event_type": "stream-end", "finish_reason": "ERROR_TOXIC"}
        return [
            *([] if self._has_begun else [("", start)]),
            ("", {"is_finished": False, "event_type": "text-generation", "text": message}),
            ("", {**end, "response": self.whole(self._text.text + message)}),
        ]
