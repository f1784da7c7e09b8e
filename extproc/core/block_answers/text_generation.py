"""Answers of the native APIs of servers that generate text: TGI, llama.cpp, SGLang."""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import DONE, MOST_KEPT, BlockAnswer, Choices, Event, Facts, Pieces, name, number
from extproc.core.content.document import fields, items

_FINISH = "content_filter"


class TextGenerationAnswer(BlockAnswer):
    """An answer of TGI, whose last event repeats the text. Its reasons to finish are a closed list, so it has none."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._index = 0
        self._text = Pieces()

    @property
    def kept(self) -> int:
        """The bytes of the text."""
        return self._text.kept

    def follow(self, root: Any) -> None:
        """Take note of an event: its number, and the text of its token."""
        event = fields(root)
        token = fields(event.get("token"))
        self._index = number(event.get("index")) or self._index
        if token.get("special") is not True:
            self._text.add(token.get("text"))

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        return {"generated_text": message, "details": None}

    def rest(self, message: str) -> list[Event]:
        """Return the event that ends the stream."""
        token = {"id": 0, "text": message, "logprob": 0.0, "special": False}
        return [("", {"index": self._index + 1, "token": token, **self.whole(self._text.text + message)})]


class LlamaCppAnswer(BlockAnswer):
    """An answer of llama.cpp. In a running stream it ends the text of every prompt that has not ended."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._texts = Choices()

    def follow(self, root: Any) -> None:
        """Take note of an event: which prompt it answers, and whether its text has ended."""
        event = fields(root)
        self._texts.see(event.get("index"), has_ended=event.get("stop") is True)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        return self._said(0, message, stop=True)

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        return [("", self._said(index, text, stop=not text)) for index in self._texts.open for text in (message, "")]

    def _said(self, index: int, text: str, *, stop: bool) -> dict[str, Any]:
        said = {"index": index, "content": text, "stop": stop}
        return {**said, "model": self.facts.model, "stop_type": _FINISH} if stop else said


class SGLangAnswer(BlockAnswer):
    """An answer of SGLang. Each event repeats the text so far, unless the server sends pieces."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._id = facts.call_id
        self._texts = Choices()
        self._said: dict[int, str] = {}
        self._has_indices = False
        self._kept = 0

    @property
    def kept(self) -> int:
        """The bytes of the texts so far."""
        return self._kept

    def follow(self, root: Any) -> None:
        """Take note of an event: which prompt it answers, and all of its text if the event has that."""
        event, text = fields(root), fields(root).get("text")
        about = fields(event.get("meta_info"))
        self._id = name(about.get("id"), self._id)
        self._has_indices = self._has_indices or "index" in event
        index = number(event.get("index")) or 0
        self._texts.see(index, has_ended=about.get("finish_reason") is not None)
        if index in self._texts and isinstance(text, str):
            given, count = len(items(event.get("output_ids"))), number(about.get("completion_tokens"))
            so_far = "" if count is not None and 0 < given < count else text
            self._kept += len(so_far) - len(self._said.pop(index, ""))
            if self._kept <= MOST_KEPT:
                self._said[index] = so_far
            else:
                self._kept -= len(so_far)

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole answer."""
        return {"text": message, "meta_info": {"id": self._id, "finish_reason": {"type": _FINISH}}}

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        events: list[Event] = []
        for index in self._texts.open:
            said = self.whole(self._said.get(index, "") + message)
            events.append(("", {**said, "index": index} if self._has_indices else said))
        return [*events, ("", DONE)]
