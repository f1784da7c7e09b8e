"""The chunks that a stream submits to its session, and the marks and echoes that it gets back.

A chat event is submitted as it came, with its mark. Every other text becomes a chunk of its own.

A chunk is longer than a short text many times over. Where a stream of short texts would send Aim more than some times
its own bytes, texts are kept until more of the stream has arrived, but only for a short time, and are submitted in one
chunk: those of one index are joined. Aim's answer settles them together.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from extproc.core.chunk import MARK, chunk_of, essence_of, joined_chunk, with_mark
from extproc.core.errors import MalformedBody
from extproc.core.held_event import LONG_NAME, HeldText
from extproc.core.marks import Marks

_REMEMBERED = 1024
"""The most text-free chunks whose echo is expected. Aim need not echo them."""

_FREE_BYTES = 65_536
"""A stream of no more bytes is treated as if it had so many."""

_TIMES = 6
"""How many times its own bytes a stream submits before texts are joined.

What is left at its end is submitted whatever it takes, and so is what has waited for its time: at most four chunks a
second. Without the latter, a stream submits at most 8 times its bytes: its at most 4096 indices take at most 29 bytes
each beyond that (61 for a choice, less 8 times the 4 bytes of a text in a list). Each of the latter takes at most 256
bytes, and 64 for each index, beside its texts.
"""

_CHUNK_BYTES = 256
_CHOICE_BYTES = 64
"""The most bytes that a joined chunk, and each of its choices, takes in addition to the text."""


class SessionChunks:
    """Writes the chunks of one session."""

    __slots__ = (
        "_choices",
        "_deferred",
        "_echoes",
        "_has_id",
        "_id",
        "_joined_bytes",
        "_ready",
        "_sent",
        "deferred",
        "marks",
        "received",
    )

    def __init__(self, chunk_id: str) -> None:
        """Begin; `chunk_id` is the id of the chunks until an event has an id."""
        self._id = chunk_id
        self._has_id = False
        self.marks = Marks()
        self._echoes: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._choices: set[int] = set()
        self._ready: list[str] = []
        self._deferred: dict[int, list[HeldText]] = {}
        self._joined_bytes = 0  # what a chunk with the deferred texts takes at most
        self._sent = 0
        self.deferred = 0
        """How many texts wait to be joined."""
        self.received = 0
        """The bytes of the stream so far."""

    def name_after(self, root: Any) -> None:
        """Take the id of the first event that has one."""
        if not self._has_id and isinstance(root, dict) and isinstance(root.get("id"), str):
            self._has_id = True
            if len(root["id"]) <= LONG_NAME:
                self._id = root["id"]

    def add_whole(self, data: str, root: Mapping[str, Any]) -> int:
        """Submit a chat event, and return its mark; raise MalformedBody if it has one already."""
        if MARK in root:
            raise MalformedBody("an event has a mark of the sidecar")
        return self.add_like(data)

    def add_like(self, data: str) -> int:
        """Submit a chat event that differs only in its text from one that was submitted; return its mark."""
        mark = self.marks.give()
        chunk = with_mark(data.removeprefix("\ufeff"), mark)
        self._sent += len(chunk)
        self._ready.append(chunk)
        return mark

    def add(self, index: int, text: HeldText) -> None:
        """Submit a text, which gets its mark, or defer it."""
        if not self._deferred:
            chunk = chunk_of(self._id, index, text.text, self.marks.last + 1)
            if self._sent + len(chunk) <= self._most:
                text.mark = self.marks.give()
                self._sent += len(chunk)
                self._ready.append(chunk)
                return
            self._joined_bytes = _CHUNK_BYTES
        texts = self._deferred.get(index)
        if texts is None:
            texts = self._deferred[index] = []
            self._joined_bytes += _CHOICE_BYTES
        texts.append(text)
        self.deferred += 1
        self._joined_bytes += len(json.dumps(text.text)) - 2

    @property
    def _most(self) -> int:
        """The bytes that may be submitted so far."""
        return _TIMES * max(_FREE_BYTES, self.received)

    def take(self, *, is_last: bool = False) -> list[str]:
        """Remove and return the chunks to submit now; with `is_last`, the deferred texts are among them."""
        if self._deferred and (is_last or self._sent + self._joined_bytes <= self._most):
            mark = self.marks.give()
            joined: dict[int, str] = {}
            for index, texts in self._deferred.items():
                joined[index] = "".join(text.text for text in texts)
                for text in texts:
                    text.mark = mark
            chunk = joined_chunk(self._id, joined, mark)
            self._sent += len(chunk)
            self._ready.append(chunk)
            self.drop_deferred()
        ready, self._ready = self._ready, []
        return ready

    def drop_deferred(self) -> None:
        """Forget the deferred texts."""
        self._deferred.clear()
        self.deferred = 0

    def expect(self, choices: list[Any], *, has_text: bool) -> None:
        """Record the choices of a chat event, whose chunk Aim may echo."""
        for choice in choices:
            self._choices.add(choice.get("index", 0))
        if not has_text:
            self._echoes.append(essence_of(choices))

    def has_choice(self, index: int) -> bool:
        """Return whether a chat event had a choice with this index."""
        return index in self._choices

    def is_echo(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a verified chunk is the echo of a text-free one. Those before it are no longer expected."""
        essence = essence_of(chunk.get("choices"))
        if essence not in self._echoes:
            return False
        while self._echoes.popleft() != essence:
            pass
        return True
