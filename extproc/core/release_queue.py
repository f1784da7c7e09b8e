"""The events of one stream, held until Aim has verified their text.

Theory of operation
-------------------
Events wait in one queue, in the order of their arrival. Each text of an event is submitted to Aim under a choice index
and waits in the queue of that index. An event is released when none of its texts waits and no event is before it. Aim's
verified chunks do not correspond one to one to the submitted chunks. A verified text is matched within its index, in
this order:

1. It equals the oldest waiting text: that text is verified, and the event's bytes are released unchanged.
2. It equals the oldest k texts, joined: all k are verified.
3. It equals a later text: that text is verified. Aim dropped the texts before it, which are released as empty texts.
4. Otherwise it is a rewrite of the oldest waiting text: only that text of the event is replaced.

So only texts that Aim sent are released. A chunk that breaks these rules raises `SessionViolation`.

Some streams repeat a running text as a whole. A repeat that equals its deltas is not submitted; it is released with the
text that was released for the deltas. A repeat that differs is a separate text.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

from extproc.core.content.document import MAX_DEPTH, Document, Edit, Path, is_deeper
from extproc.core.content.sse import ServerSentEvent
from extproc.core.dialects.base import MAX_CHOICE, Dialect, Kind, Leaf
from extproc.core.dialects.generic import parsed
from extproc.core.errors import ExtprocError, MalformedBody
from extproc.core.redaction import RedactionError, rewrite
from extproc.core.running_text import Budget, RunningText

_REMEMBERED = 1024
"""The most text-free chunks whose echo is expected. Aim need not echo them."""

_PLACES = 4096
"""The most running texts of one stream."""

_EVENT_BYTES = 256
"""The memory that an event in the queue takes in addition to its bytes."""

_TEXT_BYTES = 512
"""The memory that each further text of an event takes: its place, its queue entry, and its rewrite."""

_LONG_NAME = 64
"""The longest id or place, in characters, that is kept unchanged. The upstream chooses their length."""

_LOOK_AHEAD = 1024
"""The number of waiting texts that are compared with a text that Aim verifies out of order."""


class SessionViolation(ExtprocError):
    """Aim sent a chunk that cannot be an answer to the submitted chunks."""


@dataclass(slots=True)
class _Entry:
    """An event in the queue."""

    event: ServerSentEvent
    document: Document | None = None
    waiting: int = 0
    has_text: bool = False
    edits: dict[Path, Edit] = field(default_factory=dict)
    echoes: list[tuple[Leaf, RunningText]] = field(default_factory=list)
    is_final: bool = False
    sequence: int | None = None
    more: bytearray = field(default_factory=bytearray)
    cost: int = 0


_Wait = tuple[_Entry, Leaf, RunningText | None]
"""A waiting text: its event, its place, and the running text that it continues."""


class ReleaseQueue:
    """Holds a stream's events and releases them as Aim verifies their texts."""

    def __init__(self, dialect: Dialect, chunk_id: str) -> None:
        """Read events with `dialect`; `chunk_id` is the id of the session's chunks until an event has an id."""
        self._dialect = dialect
        self._chunk_id = chunk_id
        self._has_id = False
        self._entries: deque[_Entry] = deque()
        self._waiting: dict[int, deque[_Wait]] = {}
        self._indices: dict[Hashable, int] = {}
        self._fresh = MAX_CHOICE
        self._running: dict[Hashable, RunningText] = {}
        self._rewritten: dict[int, RunningText] = {}
        self._budget = Budget()
        self._text_free: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._choices: set[int] = set()
        self._unverified = 0
        self._is_done = False
        self.is_head_open = False
        """Whether text-free events at the start may be released although nothing was verified yet."""
        self.held = 0
        self.has_text = False
        self.sequence = 0
        self.results: Counter[str] = Counter()

    @property
    def is_waiting(self) -> bool:
        """Return whether any text waits for Aim."""
        return self._unverified > 0

    @property
    def awaits_done(self) -> bool:
        """Return whether only the mark of the end is left. It waits for Aim's `done`."""
        return bool(self._entries) and self._entries[0].is_final and not self._unverified and not self._is_done

    @property
    def is_empty(self) -> bool:
        """Return whether every event was released."""
        return not self._entries

    def add(self, event: ServerSentEvent) -> list[str]:
        """Queue the next event; return the chunks, as JSON, to submit for it.

        Raises MalformedBody for data that cannot be read.
        """
        has_data = bool(event.data and event.data.strip())
        if self._entries and not has_data and not event.is_foreign and self._entries[-1].document is None:
            # There may be thousands of comments and blank lines: they are released with the event before them.
            self._entries[-1].more += event.raw
            self._charge(self._entries[-1], len(event.raw))
            return []
        entry = _Entry(event)
        self._entries.append(entry)
        self._charge(entry, len(event.raw) + _EVENT_BYTES)
        if event.is_foreign:
            raise MalformedBody("a line does not belong to an event stream")
        return self._read(entry, event.data) if has_data and event.data else []

    def _read(self, entry: _Entry, data: str) -> list[str]:
        if self._dialect.is_final(data, None):
            entry.is_final = True
            return []
        entry.document = document = parsed(self._dialect, data)
        entry.is_final = self._dialect.is_final(data, document)
        leaves = self._dialect.deltas(document)
        root = document.root
        if not self._has_id and isinstance(root, dict) and isinstance(root.get("id"), str):
            self._has_id = True
            if len(root["id"]) <= _LONG_NAME:
                self._chunk_id = root["id"]
        is_whole = self._dialect.is_submitted_whole(document)
        chunks = [data] if is_whole else []
        knows_text = False
        for leaf in leaves:
            place = short_place(leaf.place)
            running = self._running.get(place)
            if leaf.kind is Kind.SEAL or (leaf.kind is Kind.REPEAT and running and running.repeats(leaf.text)):
                if running is not None:
                    entry.echoes.append((leaf, running))
                continue
            if is_whole and leaf.index is not None:
                index = leaf.index
                knows_text = True
            else:
                index = self._index(leaf, place)
                chunks.append(self._chunk(index, leaf.text))
            self._wait(index, entry, leaf, self._say(leaf, place, running))
        if not entry.has_text:
            self.results["no_text"] += 1
        if is_whole and not knows_text:
            self._text_free.append(_essence(root["choices"]))
        if is_whole:
            for choice in root["choices"]:
                index = choice.get("index", 0)
                if type(index) is int and 0 <= index <= MAX_CHOICE:
                    self._choices.add(index)
        number = root.get("sequence_number") if isinstance(root, dict) else None
        entry.sequence = number if isinstance(number, int) else None
        document.forget()
        return chunks

    def _index(self, leaf: Leaf, place: Hashable) -> int:
        """Return the choice index for a text. A text that does not continue another has an index of its own."""
        index = None if place is None else self._indices.get(place)
        if index is None or leaf.kind is Kind.REPEAT:
            self._fresh += 1
            index = self._fresh
            if index > MAX_CHOICE + _PLACES:
                raise MalformedBody("a stream has too many texts")
            if place is not None:
                self._indices[place] = index
        return index

    def _say(self, leaf: Leaf, place: Hashable, running: RunningText | None) -> RunningText | None:
        """Record what the model said, if that matters later."""
        if place is None or leaf.is_embedded or not (leaf.is_json or self._dialect.is_repetitive):
            return None
        if running is None or leaf.kind is Kind.REPEAT:
            if running is not None:
                running.forget()
                self._rewritten.pop(id(running), None)
            running = self._running[place] = RunningText(leaf.is_json, self._budget)
        running.say(leaf.text)
        return running

    def _wait(self, index: int, entry: _Entry, leaf: Leaf, running: RunningText | None) -> None:
        self._waiting.setdefault(index, deque()).append((entry, leaf, running))
        entry.waiting += 1
        if entry.has_text:
            self._charge(entry, _TEXT_BYTES)
        entry.has_text = self.has_text = True
        self._unverified += 1

    def _charge(self, entry: _Entry, size: int) -> None:
        entry.cost += size
        self.held += size

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
        """Match a verified chunk with the waiting texts. `texts` are its texts by choice index.

        Raises SessionViolation for a text that no event waits for, and RedactionError.
        """
        is_covered = False
        for index, text in texts:
            if text:
                self._cover(index, text)
                is_covered = True
        if is_covered:
            return
        essence = _essence(chunk.get("choices"))
        if essence in self._text_free:
            while self._text_free.popleft() != essence:
                pass
            return
        if not texts:
            raise SessionViolation("Aim verified an empty chunk")
        for index, text in texts:
            if index not in self._waiting and index not in self._choices:
                raise SessionViolation("Aim verified a choice that was never submitted")
            if text is not None and self._waiting.get(index):
                self._rewrite(*self._waiting[index].popleft(), "")

    def _cover(self, index: int, text: str) -> None:
        queue = self._waiting.get(index)
        if not queue:
            raise SessionViolation("Aim verified a text that was not waiting")
        position = 0
        for count, (_, leaf, _) in enumerate(queue, 1):
            if not text.startswith(leaf.text, position):
                break
            position += len(leaf.text)
            if position == len(text):
                for _ in range(count):
                    self._verify(*queue.popleft())
                return
        ahead = enumerate(islice(queue, _LOOK_AHEAD))
        later = next((count for count, (_, leaf, _) in ahead if leaf.text == text), 0)
        if later:
            for _ in range(later):
                self._rewrite(*queue.popleft(), "")
            self._verify(*queue.popleft())
        else:
            self._rewrite(*queue.popleft(), text)

    def _verify(self, entry: _Entry, leaf: Leaf, running: RunningText | None) -> None:
        self._settle(entry, "verified")
        if running is not None:
            running.release(leaf.text, is_rewritten=False)

    def _rewrite(self, entry: _Entry, leaf: Leaf, running: RunningText | None, text: str) -> None:
        entry.edits |= rewrite(leaf, text)
        self._settle(entry, "rewritten" if text else "dropped")
        if running is not None:
            self._rewritten[id(running)] = running
            running.release(text, is_rewritten=True)

    def _settle(self, entry: _Entry, result: str) -> None:
        entry.waiting -= 1
        self._unverified -= 1
        self.is_head_open = True
        self.results[result] += 1

    def finish(self) -> None:
        """Empty the texts that Aim did not verify: after its `done`, it has dropped them.

        Raises RedactionError if arguments would be invalid JSON.
        """
        self._is_done = self.is_head_open = True
        for queue in self._waiting.values():
            while queue:
                self._rewrite(*queue.popleft(), "")
        if any(running.is_broken for running in self._running.values()):
            raise RedactionError("redacted arguments are no longer JSON")

    def take_ready(self) -> bytes:
        """Remove and return the bytes that may be released now."""
        ready: list[bytes] = []
        while self._entries and self._may_leave(self._entries[0]):
            entry = self._entries.popleft()
            self.held -= entry.cost
            ready.append(self._bytes(entry))
            if entry.more:
                ready.append(bytes(entry.more))
        return b"".join(ready)

    def _may_leave(self, entry: _Entry) -> bool:
        if entry.waiting or not self.is_head_open:
            return False
        if self._is_done:
            return True
        # A client acts on a call's arguments when an event without text ends them, so that event waits until they are
        # valid. The mark of the end waits for Aim's `done`, so that a late block can still end the stream.
        return not entry.is_final and (
            entry.has_text
            or entry.document is None
            or not any(running.is_unsound for running in self._rewritten.values())
        )

    def _bytes(self, entry: _Entry) -> bytes:
        document = entry.document
        if document is None:
            return entry.event.raw
        if entry.sequence is not None:
            self.sequence = entry.sequence + 1
        edits = entry.edits
        for leaf, running in entry.echoes:
            if running.is_rewritten:
                edits |= rewrite(leaf, "" if leaf.kind is Kind.SEAL else "".join(running.released))
        return entry.event.with_data(document.rewrite(edits)) if edits else entry.event.raw

    def take_all(self) -> bytes:
        """Remove and return everything that is held, unchanged: for a leg that fails open."""
        rest = b"".join(piece for entry in self._entries for piece in (entry.event.raw, entry.more))
        self._entries.clear()
        self._waiting.clear()
        self.held = self._unverified = 0
        return rest

    def withheld_texts(self) -> Iterator[str]:
        """Yield the waiting texts; the pieces of a running text are joined."""
        for queue in self._waiting.values():
            yield "".join(leaf.text for _, leaf, _ in queue)


def short_place(place: Hashable) -> Hashable:
    """Return a place of bounded size that identifies a running text. A place may contain the upstream's own keys."""
    if isinstance(place, tuple):
        for step in place:
            if isinstance(step, str) and len(step) > _LONG_NAME:
                return blake2b(repr(place).encode("utf-8", "surrogatepass")).digest()
    return place


def _essence(choices: Any) -> bytes:
    """Return a digest of a chunk's choices without their empty parts: Aim's schema may add nulls to an echo.

    Raises SessionViolation for choices that are nested too deeply.
    """
    if is_deeper(choices, MAX_DEPTH):
        raise SessionViolation("Aim verified a chunk that is nested too deeply")
    return blake2b(json.dumps(_full(choices), sort_keys=True).encode(), digest_size=16).digest()


def _full(node: Any) -> Any:
    if isinstance(node, dict):
        parts = {key: _full(value) for key, value in node.items()}
        return {key: value for key, value in parts.items() if value not in (None, "", {}, [])}
    if isinstance(node, list):
        return [_full(value) for value in node]
    # A number of more than 64 bits in Aim's chunk is read as a float.
    return _rounded(node) if type(node) is int and not -(2**63) <= node < 2**64 else node


def _rounded(number: int) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None
