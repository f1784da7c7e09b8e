"""The events of one stream, held until Aim has verified their text.

Theory of operation
-------------------
Events wait in one queue, in the order in which they came. Each text of an event is submitted to Aim under a choice
index and waits in the queue of that index; an event may leave when none of its texts waits and nothing stands
before it. Aim's verified chunks are not one to one with what was submitted. A verified text is matched within its
index, in this order:

1. the text of the oldest that waits: verified, the event's bytes leave as they came;
2. the texts of the oldest k, joined: all k verified;
3. the text of a later one: that one is verified, and those skipped leave with empty text (Aim dropped them);
4. anything else: a rewrite of the oldest, whose event leaves with only that text replaced.

So a text leaves only if Aim said it. What breaks these rules raises `SessionViolation`.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from extproc.dialects.base import Dialect, Leaf
from extproc.dialects.openai_chat import MAX_CHOICE
from extproc.document import Document, Path
from extproc.errors import ExtprocError, MalformedBody
from extproc.sse import ServerSentEvent

_REMEMBERED = 1024
"""Text-free chunks whose echo is expected, at most; Aim need not send one back."""

_PLACES = 4096
"""Running texts of one stream, at most."""

_ARGUMENTS = 16 * 1024 * 1024
"""Characters of one call's arguments that are kept to see whether a rewrite broke them."""


class SessionViolation(ExtprocError):
    """Aim sent what cannot be an answer to what was submitted."""


class InvalidRewrite(ExtprocError):
    """A rewrite left something that its reader cannot use: broken JSON, or a text that must not change."""


@dataclass(slots=True)
class _Entry:
    """An event in the queue."""

    event: ServerSentEvent
    document: Document | None = None
    leaves: list[Leaf] = field(default_factory=list)
    waiting: int = 0
    edits: dict[Path, str | None] = field(default_factory=dict)
    is_final: bool = False


@dataclass(slots=True)
class _Arguments:
    """A running text that a program parses: as the model wrote it, and as the client gets it."""

    original: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    size: int = 0
    is_rewritten: bool = False


class ReleaseQueue:
    """Holds a stream's events and says what may leave."""

    def __init__(self, dialect: Dialect, chunk_id: str) -> None:
        """Read events with `dialect`; `chunk_id` names the session's chunks until an event names itself."""
        self._dialect = dialect
        self._chunk_id = chunk_id
        self._has_id = False
        self._entries: deque[_Entry] = deque()
        self._waiting: dict[int, deque[tuple[_Entry, Leaf]]] = {}
        self._indices: dict[Hashable, int] = {}
        self._text_free: deque[Any] = deque(maxlen=_REMEMBERED)
        self._arguments: dict[Hashable, _Arguments] = {}
        self._unverified = 0
        self._is_done = False
        self._head_open = False
        self.held = 0
        self.has_text = False
        self.results: Counter[str] = Counter()

    @property
    def is_waiting(self) -> bool:
        """Tell whether any text waits for Aim."""
        return self._unverified > 0

    @property
    def is_empty(self) -> bool:
        """Tell whether every event has left."""
        return not self._entries

    def add(self, event: ServerSentEvent) -> list[str]:
        """Take the next event; return the chunks, as JSON, that are to be submitted for it.

        Raises MalformedBody for data that cannot be read.
        """
        entry = _Entry(event)
        self._entries.append(entry)
        self.held += len(event.raw)
        return self._read(entry, event.data) if event.data and event.data.strip() else []

    def _read(self, entry: _Entry, data: str) -> list[str]:
        if self._dialect.is_final(data):
            entry.is_final = True
            return []
        entry.document = document = Document(data)
        leaves = entry.leaves = self._dialect.deltas(document)
        root = document.root
        if not self._has_id and isinstance(root, dict) and isinstance(root.get("id"), str):
            self._chunk_id = root["id"]
            self._has_id = True
        is_whole = self._dialect.is_submitted_whole(document)
        chunks = [data] if is_whole else []
        knows_text = False
        for leaf in leaves:
            if is_whole and leaf.index is not None:
                index = leaf.index
                knows_text = True
            else:
                index = self._indices.setdefault(leaf.place, MAX_CHOICE + 1 + len(self._indices))
                if len(self._indices) > _PLACES:
                    raise MalformedBody("a stream of too many texts")
                chunks.append(self._chunk(index, leaf.text))
            self._waiting.setdefault(index, deque()).append((entry, leaf))
            entry.waiting += 1
            self._unverified += 1
        if leaves:
            self.has_text = True
        else:
            self.results["no_text"] += 1
        if is_whole and not knows_text:
            self._text_free.append(_essence(root["choices"]))
        return chunks

    def _chunk(self, index: int, text: str) -> str:
        return json.dumps(
            {
                "id": self._chunk_id,
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "",
                "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}],
            }
        )

    def verified(self, texts: tuple[tuple[int, str | None], ...], chunk: Mapping[str, Any]) -> None:
        """Match a verified chunk, given as its texts by choice index and as it came.

        Raises SessionViolation for a text that nothing waits for, and InvalidRewrite.
        """
        if any(text for _, text in texts):
            for index, text in texts:
                if text:
                    self._cover(index, text)
            return
        essence = _essence(chunk.get("choices"))
        if essence in self._text_free:
            while self._text_free.popleft() != essence:
                pass
            return
        for index, text in texts:
            if text is not None and self._waiting.get(index):
                self._rewrite(*self._waiting[index].popleft(), "")

    def _cover(self, index: int, text: str) -> None:
        queue = self._waiting.get(index)
        if not queue:
            raise SessionViolation("Aim verified a text that was not waiting")
        position = 0
        for count, (_, leaf) in enumerate(queue, 1):
            if not text.startswith(leaf.text, position):
                break
            position += len(leaf.text)
            if position == len(text):
                for _ in range(count):
                    self._verify(*queue.popleft())
                return
        later = next((count for count, (_, leaf) in enumerate(queue) if leaf.text == text), 0)
        if later:
            for _ in range(later):
                self._rewrite(*queue.popleft(), "")
            self._verify(*queue.popleft())
        else:
            self._rewrite(*queue.popleft(), text)

    def _verify(self, entry: _Entry, leaf: Leaf) -> None:
        self._settle(entry, "verified")
        if leaf.is_json:
            self._run(leaf, leaf.text)

    def _rewrite(self, entry: _Entry, leaf: Leaf, text: str) -> None:
        if leaf.fixed:
            raise InvalidRewrite("a text that cannot be changed was to be redacted")
        self._settle(entry, "rewritten" if text else "dropped")
        entry.edits[leaf.path] = text
        if leaf.drop_when_rewritten is not None:
            entry.edits[leaf.drop_when_rewritten] = None
        if leaf.is_json:
            self._run(leaf, text)

    def _settle(self, entry: _Entry, result: str) -> None:
        entry.waiting -= 1
        self._unverified -= 1
        self._head_open = True
        self.results[result] += 1

    def _run(self, leaf: Leaf, text: str) -> None:
        arguments = self._arguments.setdefault(leaf.place, _Arguments())
        arguments.is_rewritten |= text != leaf.text
        arguments.size += len(leaf.text) + len(text)
        if arguments.size > _ARGUMENTS:
            if arguments.is_rewritten:
                raise InvalidRewrite("redacted arguments are too long to be checked")
            arguments.original.clear()
            arguments.released.clear()
        else:
            arguments.original.append(leaf.text)
            arguments.released.append(text)

    def _has_broken_arguments(self) -> bool:
        return any(
            arguments.is_rewritten and _is_json(arguments.original) and not _is_json(arguments.released)
            for arguments in self._arguments.values()
        )

    def open_head(self) -> None:
        """Let the text-free events at the start leave although nothing was verified yet."""
        self._head_open = True

    def finish(self) -> None:
        """Take Aim's word that it released all: what it did not verify leaves with empty text.

        Raises InvalidRewrite when a program would get arguments that it cannot parse.
        """
        self._is_done = self._head_open = True
        for queue in self._waiting.values():
            while queue:
                self._rewrite(*queue.popleft(), "")
        if self._has_broken_arguments():
            raise InvalidRewrite("redacted arguments are no longer JSON")

    def take_ready(self) -> bytes:
        """Return the bytes that may leave now."""
        ready: list[bytes] = []
        while self._entries and self._may_leave(self._entries[0]):
            entry = self._entries.popleft()
            self.held -= len(entry.event.raw)
            ready.append(self._bytes(entry))
        return b"".join(ready)

    def _may_leave(self, entry: _Entry) -> bool:
        if entry.waiting or not self._head_open:
            return False
        if self._is_done:
            return True
        # A client acts on a call's arguments when an event without text ends them: not before they are sound. The
        # mark of the end waits for Aim's done, so that a late block still finds a stream that it can end.
        return not entry.is_final and (
            bool(entry.leaves) or entry.document is None or not self._has_unsound_arguments()
        )

    def _has_unsound_arguments(self) -> bool:
        return any(
            arguments.is_rewritten and not _is_json(arguments.released) for arguments in self._arguments.values()
        )

    @staticmethod
    def _bytes(entry: _Entry) -> bytes:
        if not entry.edits or entry.document is None:
            return entry.event.raw
        return entry.event.with_data(entry.document.rewrite(entry.edits))

    def take_all(self) -> bytes:
        """Return everything that is held, as it came: for a failure policy that opens."""
        rest = b"".join(entry.event.raw for entry in self._entries)
        self._entries.clear()
        self._waiting.clear()
        self.held = self._unverified = 0
        return rest

    def withheld_texts(self) -> Iterator[str]:
        """Yield the texts that wait, each running text joined."""
        for queue in self._waiting.values():
            yield "".join(leaf.text for _, leaf in queue)


def _is_json(pieces: list[str]) -> bool:
    try:
        Document("".join(pieces))
    except MalformedBody:
        return False
    return True


def _essence(node: Any) -> Any:
    """Return a JSON value without its empty parts: Aim's schema may add nulls to what it echoes."""
    if isinstance(node, dict):
        parts = {key: _essence(value) for key, value in node.items()}
        return {key: value for key, value in parts.items() if value not in (None, "", {}, [])}
    if isinstance(node, list):
        return [_essence(value) for value in node]
    return node
