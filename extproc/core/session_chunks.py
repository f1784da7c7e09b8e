"""The chunks that a stream submits to its session, and the marks and echoes that it gets back.

A chat event is submitted as it came, with its mark. Every other text becomes a chunk of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from extproc.core.chunk import MARK, chunk_of, essence_of, mark_of, with_mark
from extproc.core.errors import MalformedBody
from extproc.core.held_event import LONG_NAME, HeldText

_REMEMBERED = 1024
"""The most text-free chunks whose echo is expected. Aim need not echo them."""


class SessionChunks:
    """Writes the chunks of one session."""

    __slots__ = ("_choices", "_echoes", "_has_id", "_has_marks", "_id", "_last_mark")

    def __init__(self, chunk_id: str) -> None:
        """Begin; `chunk_id` is the id of the chunks until an event has an id."""
        self._id = chunk_id
        self._has_id = False
        self._last_mark = 0
        self._has_marks: bool | None = None
        self._echoes: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._choices: set[int] = set()

    def name_after(self, root: Any) -> None:
        """Take the id of the first event that has one."""
        if not self._has_id and isinstance(root, dict) and isinstance(root.get("id"), str):
            self._has_id = True
            if len(root["id"]) <= LONG_NAME:
                self._id = root["id"]

    def whole(self, data: str, root: Mapping[str, Any]) -> tuple[str, int]:
        """Return a chat event as a chunk, and its mark; raise MalformedBody if it has one already."""
        if MARK in root:
            raise MalformedBody("an event has a mark of the sidecar")
        self._last_mark += 1
        return with_mark(data.removeprefix("\ufeff"), self._last_mark), self._last_mark

    def single(self, index: int, text: HeldText) -> str:
        """Return a chunk with one text, which gets its mark."""
        self._last_mark = text.mark = self._last_mark + 1
        return chunk_of(self._id, index, text.text, text.mark)

    def expect(self, choices: list[Any], *, has_text: bool) -> None:
        """Record the choices of a chat event, whose chunk Aim may echo."""
        for choice in choices:
            self._choices.add(choice.get("index", 0))
        if not has_text:
            self._echoes.append(essence_of(choices))

    def has_choice(self, index: int) -> bool:
        """Return whether a chat event had a choice with this index."""
        return index in self._choices

    def mark_of(self, chunk: Mapping[str, Any]) -> int | None:
        """Return the mark of a verified chunk; None if it has none, or if the first one had none.

        Raises SessionViolation for a mark that was never given.
        """
        if self._has_marks is None:
            self._has_marks = chunk.get(MARK) is not None
        return mark_of(chunk, self._last_mark) if self._has_marks else None

    def is_echo(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a verified chunk is the echo of a text-free one. Those before it are no longer expected."""
        essence = essence_of(chunk.get("choices"))
        if essence not in self._echoes:
            return False
        while self._echoes.popleft() != essence:
            pass
        return True
