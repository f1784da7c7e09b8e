"""Answers of OpenAI's Responses API.

The last event of a stream repeats the whole response. So the items that the client has are kept, as JSON; of an item
that has not ended, its parts and the texts that run. Beyond `MOST_KEPT` bytes none are kept, and the last event has the
refusal alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

from extproc.core.block_answers.base import MOST_KEPT, BlockAnswer, Event, Facts, Pieces, name, number
from extproc.core.content.document import fields, items

_TEXTS: Mapping[str, tuple[str, str]] = {
    "response.output_text": ("content", "text"),
    "response.refusal": ("content", "refusal"),
    "response.reasoning_text": ("content", "text"),
    "response.reasoning_summary_text": ("summary", "text"),
    "response.function_call_arguments": ("", "arguments"),
    "response.mcp_call_arguments": ("", "arguments"),
    "response.custom_tool_call_input": ("", "input"),
    "response.code_interpreter_call_code": ("", "code"),
}
"""A text's events without their last word -> the list in which its part is, if it is in one, and its key."""

_PARTS: Mapping[str, str] = {"response.content_part": "content", "response.reasoning_summary_part": "summary"}
"""A part's events without their last word -> the list in which it is."""

_EVENTS: Mapping[str, str] = {where: kind for kind, where in _PARTS.items()}

_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}

_ITEM_BYTES, _PART_BYTES = 640, 320
"""The memory that an item and a part or text take in addition to what is kept of them."""

Place = tuple[str, int]
"""The list of an item in which a part is, and its position there; `("", 0)` is the item itself."""


@dataclass(slots=True)
class _Text:
    """A running text: the name of its events, its key, and its pieces."""

    kind: str
    key: str
    pieces: Pieces = field(default_factory=Pieces)
    is_done: bool = False


@dataclass(slots=True)
class _Item:
    """An item as it began or ended, in JSON, and what has come of it since."""

    json: str
    is_done: bool = False
    parts: dict[Place, str] = field(default_factory=dict)
    """the parts, in JSON"""
    done: set[Place] = field(default_factory=set)
    """the parts that have ended"""
    texts: dict[Place, _Text] = field(default_factory=dict)
    kept: int = 0
    """the bytes that are kept of it"""


class ResponseAnswer(BlockAnswer):
    """A response. Its message is a refusal; in a running stream it is an item of its own."""

    def __init__(self, facts: Facts) -> None:
        """Begin with a stream of which nothing was released."""
        super().__init__(facts)
        self._id = f"resp_{facts.call_id}"
        self._created = facts.created
        self._model = facts.model
        self._has_begun = False
        self._response = ""
        self._items: dict[int, _Item] | None = {}  # None: they are too many bytes
        self._count = 0
        self._sequence = 0
        self._kept = 0

    @property
    def kept(self) -> int:
        """The bytes of the response and of its items."""
        return self._kept

    # -- what the client has ---------------------------------------------------------------------------------------

    def follow(self, root: Any) -> None:
        """Take note of an event: the response, its items, and what of them is open."""
        event = fields(root)
        self._has_begun = self._has_begun or bool(event)
        self._sequence = max(self._sequence, (number(event.get("sequence_number")) or 0) + 1)
        if type(event.get("response")) is dict:
            self._keep_response(event["response"])
        index = number(event.get("output_index"))
        if index is None:
            return
        self._count = max(self._count, index + 1)
        if self._items is None:
            return
        kind, _, stage = name(event.get("type"), "").rpartition(".")
        if kind == "response.output_item":
            self._keep_item(index, fields(event.get("item")), is_done=stage == "done")
        elif (item := self._items.get(index)) is not None and not item.is_done:
            before = item.kept
            _keep(item, event, kind, stage)
            self._charge(item.kept - before)

    def _keep_response(self, response: Mapping[str, Any]) -> None:
        self._id = name(response.get("id"), self._id)
        self._created = number(response.get("created_at")) or self._created
        self._model = name(response.get("model"), self._model)
        kept = json.dumps({key: value for key, value in response.items() if key != "output"})
        if len(kept) <= MOST_KEPT:
            self._kept += len(kept) - len(self._response)
            self._response = kept

    def _keep_item(self, index: int, item: Mapping[str, Any], *, is_done: bool) -> None:
        assert self._items is not None
        kept = json.dumps(item)
        before = self._items.pop(index, None)
        self._items[index] = _Item(kept, is_done, kept=getsizeof(kept) + _ITEM_BYTES)
        self._charge(self._items[index].kept - (before.kept if before is not None else 0))

    def _charge(self, size: int) -> None:
        """Count bytes of items; forget all items if they are too many."""
        self._kept += size
        if self._kept > 2 * MOST_KEPT:
            self._items = None
            self._kept = len(self._response)

    # -- the answer ------------------------------------------------------------------------------------------------

    def whole(self, message: str) -> dict[str, Any]:
        """Return a whole response."""
        return self._finished([self._item([_part(message)], "completed")])

    def rest(self, message: str) -> list[Event]:
        """Return the events that end the stream."""
        finished = {index: json.loads(item.json) for index, item in sorted((self._items or {}).items())}
        events: list[dict[str, Any]] = []
        if not self._has_begun:
            begun = {**self._finished([]), "status": "in_progress", "usage": None}
            events += [{"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")]
        for index, item in (self._items or {}).items():
            if not item.is_done:
                events += _closing(index, item, finished[index])
        added = self._item([_part(message)], "completed")
        place = {"item_id": added["id"], "output_index": self._count, "content_index": 0}
        item_place = {"output_index": self._count}
        events += [
            {"type": "response.output_item.added", **item_place, "item": self._item([], "in_progress")},
            {"type": "response.content_part.added", **place, "part": _part("")},
            {"type": "response.refusal.delta", **place, "delta": message},
            {"type": "response.refusal.done", **place, "refusal": message},
            {"type": "response.content_part.done", **place, "part": _part(message)},
            {"type": "response.output_item.done", **item_place, "item": added},
            {"type": "response.completed", "response": self._finished([*finished.values(), added])},
        ]
        return [
            (event["type"], {**event, "sequence_number": sequence})
            for sequence, event in enumerate(events, self._sequence)
        ]

    def _finished(self, output: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self._model,
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            **json.loads(self._response or "{}"),
            "status": "completed",
            "output": output,
            "usage": _USAGE,
        }

    def _item(self, content: list[Any], status: str) -> dict[str, Any]:
        about = {"id": f"msg_{self.facts.call_id}", "type": "message", "role": "assistant"}
        return {**about, "status": status, "content": content}


def _part(message: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": message}


def _keep(item: _Item, event: Mapping[str, Any], kind: str, stage: str) -> None:
    """Keep what an event says of a part or a text of an item."""
    where, key = _TEXTS.get(kind, (_PARTS.get(kind, ""), ""))
    place = (where, number(event.get(f"{where}_index")) or 0)
    if kind in _PARTS:
        item.parts[place] = part = json.dumps(fields(event.get("part")))
        item.kept += getsizeof(part) + _PART_BYTES
        if stage == "done":
            item.done.add(place)
            item.texts.pop(place, None)
    elif kind in _TEXTS:
        if place not in item.texts:
            item.texts[place] = _Text(kind, key)
            item.kept += _PART_BYTES
        text = item.texts[place]
        before = text.pieces.kept
        if stage == "done":
            text.pieces.replace(event.get(key))
            text.is_done = True
        else:
            text.pieces.add(event.get("delta"))
        item.kept += max(0, text.pieces.kept - before)


def _closing(index: int, item: _Item, value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events that end an open item. Its value becomes what the client then has."""
    events: list[dict[str, Any]] = []
    at = {"item_id": value.get("id"), "output_index": index}
    for place in sorted(item.parts.keys() | item.texts.keys()):
        where, position = place
        text = item.texts.get(place)
        target = json.loads(item.parts.get(place, "{}")) if where else value
        here = {**at, f"{where}_index": position} if where else at
        if text is not None:
            target[text.key] = text.pieces.text
            if not text.is_done:
                events.append({"type": f"{text.kind}.done", **here, **_said(text, value)})
        if place in item.parts:
            value[where] = [*items(value.get(where)), target]
            if place not in item.done:
                events.append({"type": f"{_EVENTS[where]}.done", **here, "part": target})
    value["status"] = "incomplete"
    return [*events, {"type": "response.output_item.done", "output_index": index, "item": value}]


def _said(text: _Text, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the last event of a text says."""
    said: dict[str, Any] = {text.key: text.pieces.text}
    if text.kind == "response.output_text":
        said["logprobs"] = []
    elif text.kind == "response.function_call_arguments":
        said["name"] = item.get("name")
    return said
