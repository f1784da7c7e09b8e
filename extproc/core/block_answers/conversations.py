"""Answers of Mistral's Conversations."""

from __future__ import annotations

import re
from typing import Any

from extproc.core.block_answers.base import BlockAnswer, Event, Facts, name, number
from extproc.core.content.document import fields

_OF_PATH = re.compile(r"/conversations/([\w.-]{1,128})", re.ASCII)

_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class ConversationAnswer(BlockAnswer):
    """An answer in a conversation. In a running stream the message is an output of its own."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        found = _OF_PATH.search(facts.path)
        self._id = found[1] if found is not None else f"conv_{facts.call_id}"
        self._has_begun = False
        self._outputs = 0

    def follow(self, root: Any) -> None:
        """Take note of an event: the id of the conversation, and the number of its outputs."""
        event = fields(root)
        self._has_begun = True
        self._id = name(event.get("conversation_id"), self._id)
        index = number(event.get("output_index"))
        if index is not None:
            self._outputs = max(self._outputs, index + 1)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        output = {"object": "entry", "type": "message.output", "created_at": self.facts.created_at}
        about = {"object": "conversation.response", "conversation_id": self._id}
        return {**about, "outputs": [{**output, **self._said(message)}], "usage": _USAGE}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        at = {"created_at": self.facts.created_at}
        place = {"output_index": self._outputs, "content_index": 0}
        events: list[dict[str, Any]] = []
        if not self._has_begun:
            events.append({"type": "conversation.response.started", **at, "conversation_id": self._id})
        events += [
            {"type": "message.output.delta", **at, **place, **self._said(message)},
            {"type": "conversation.response.done", **at, "usage": _USAGE},
        ]
        return [(event["type"], event) for event in events]

    def _said(self, message: str) -> dict[str, Any]:
        about = {"id": f"msg_{self.facts.call_id}", "role": "assistant", "model": self.facts.model}
        return {**about, "content": message}
