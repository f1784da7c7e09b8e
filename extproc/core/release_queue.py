"""The events of one stream, held until Aim has verified their text.

Theory of operation
-------------------
Events wait in one queue, in the order of their arrival. Each text of an event is submitted to Aim under a choice index
and waits in the lane of that index. An event is released when none of its texts waits and no event is before it.
`extproc.core.matching` says which texts a verified chunk settles.

A chat event is submitted as it came, with its mark. This needs small, distinct, whole choice indices. Otherwise each
text becomes a chunk of its own, with one index for each place, as in other dialects.

Some streams repeat a running text as a whole. A repeat that equals its deltas is not submitted; it is released with the
text that was released for the deltas. A repeat that differs is a separate text.

The arguments of a tool call are submitted with their string escapes decoded. An event that ends within an escape waits
for the event that completes it.

Some events repeat a text as tokens. After a text of a choice or part is rewritten, all tokens of that choice or part
become null.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import MAX_DEPTH, Document, Edit, Path, is_deeper
from extproc.core.content.escapes import decode, respell
from extproc.core.content.framing import Unit
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.flat_chat import MAX_CHOICE
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.errors import ContentError, MalformedBody
from extproc.core.matching import MARK, Lane, SessionViolation, Submission, mark_of, with_mark
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

_UNITS = 4096
"""The most rewritten choices and parts that are told apart. Beyond them the tokens of all others become null too."""

_END = "[DONE]"
"""The mark of the end. APIs that have none of their own get it from servers and gateways."""


@dataclass(slots=True)
class _Entry:
    """An event in the queue."""

    event: Unit
    document: Document | None = None
    waiting: int = 0
    located: list[Leaf] | None = None
    has_text: bool = False
    edits: dict[Path, Edit] = field(default_factory=dict)
    echoes: list[tuple[Leaf, RunningText]] = field(default_factory=list)
    tokens: tuple[Leaf, ...] = ()
    is_final: bool = False
    sequence: int | None = None
    more: bytearray = field(default_factory=bytearray)
    cost: int = 0


@dataclass(slots=True, eq=False)
class _Piece:
    """A piece of a call's arguments: its spelling up to the last whole escape, and the rest."""

    entry: _Entry
    leaf: Leaf
    spelling: str
    cut: str


@dataclass(slots=True, eq=False)
class _Text(Submission):
    """A waiting text: its event, its place, and the running text that it continues.

    `lenders` are the pieces that end within the escape with which this text begins.
    """

    entry: _Entry
    leaf: Leaf
    running: RunningText | None
    piece: _Piece | None = None
    lenders: tuple[_Piece, ...] = ()


@dataclass(slots=True, eq=False)
class _Cut:
    """An incomplete escape at the end of a running text, and the pieces that it is in."""

    running: RunningText
    text: str
    lenders: tuple[_Piece, ...]


class ReleaseQueue:
    """Holds a stream's events and releases them as Aim verifies their texts."""

    def __init__(self, dialect: Dialect, chunk_id: str, values: int = MAX_VALUES) -> None:
        """Read events with `dialect`; `chunk_id` is the id of the session's chunks until an event has an id.

        An event may have at most `values` values.
        """
        self._dialect = dialect
        self._values = values
        self._chunk_id = chunk_id
        self._has_id = False
        self._entries: deque[_Entry] = deque()
        self._lanes: dict[int, Lane[_Text]] = {}
        self._last_mark = 0
        self._has_marks: bool | None = None
        self._indices: dict[Hashable, int] = {}
        self._fresh = MAX_CHOICE
        self._running: dict[Hashable, RunningText] = {}
        self._cuts: dict[int, _Cut] = {}
        self._unsound: dict[int, RunningText] = {}
        self._units: set[Hashable] = set()
        self._budget = Budget()
        self._text_free: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._choices: set[int] = set()
        self._unverified = 0
        self._is_done = False
        self._is_short = False
        self._has_unread = False
        self.is_altered = False
        """Whether any text was rewritten."""
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
    def kept(self) -> int:
        """Bytes of running texts that are kept beside the events."""
        return self._budget.held

    @property
    def awaits_done(self) -> bool:
        """Return whether only the mark of the end is left. It waits for Aim's `done`."""
        return bool(self._entries) and self._entries[0].is_final and not self._unverified and not self._is_done

    @property
    def is_empty(self) -> bool:
        """Return whether every event was released."""
        return not self._entries

    def add(self, event: Unit) -> list[str]:
        """Queue the next event; return the chunks, as JSON, to submit for it.

        Raises MalformedBody for data that cannot be read.
        """
        has_data = bool(event.data and event.data.strip())
        if self._entries and not has_data and self._entries[-1].document is None:
            # There may be thousands of comments and blank lines: they are released with the event before them.
            self._entries[-1].more += event.raw
            self._charge(self._entries[-1], len(event.raw))
            return []
        entry = _Entry(event)
        self._entries.append(entry)
        self._charge(entry, len(event.raw) + _EVENT_BYTES)
        if not (has_data and event.data):
            return []
        try:
            return self._read(entry, event.data)
        except ContentError:
            self._has_unread = True
            raise

    def _read(self, entry: _Entry, data: str) -> list[str]:
        if data.strip() == _END or self._dialect.is_final(data, None):
            entry.is_final = True
            self._end_cuts()
            return []
        is_foreign = entry.event.is_foreign
        entry.document = document = self._dialect.parse(data, self._values, is_foreign=is_foreign)
        leaves = self._dialect.deltas(document)
        root = document.root
        if not self._has_id and isinstance(root, dict) and isinstance(root.get("id"), str):
            self._has_id = True
            if len(root["id"]) <= _LONG_NAME:
                self._chunk_id = root["id"]
        chunks: list[str] = []
        is_whole = self._dialect.is_submitted_whole(document) and _are_clear(root["choices"])
        if is_whole:
            if MARK in root:
                raise MalformedBody("an event has a mark of the sidecar")
            self._last_mark += 1
            chunks.append(with_mark(data.removeprefix("\ufeff"), self._last_mark))
        whole_mark = self._last_mark
        knows_text = False
        tokens: list[Leaf] = []
        for leaf in leaves:
            if leaf.kind is Kind.TOKENS:
                tokens.append(leaf)
                self._charge(entry, _TEXT_BYTES)
                continue
            place = short_place(leaf.place)
            running = self._running.get(place)
            if leaf.kind is Kind.SEAL or (leaf.kind is Kind.REPEAT and running and running.repeats(leaf.text)):
                if running is not None:
                    entry.echoes.append((leaf, running))
                continue
            running = self._say(leaf, place, running)
            if leaf.is_json and not leaf.is_embedded:
                text = self._arguments(entry, leaf, running)
                if text is None:
                    continue
            else:
                text = _Text(0, leaf.text, leaf.text, entry, leaf, running)
            if is_whole and leaf.index is not None:
                index = leaf.index
                text.mark = whole_mark
                knows_text = True
            else:
                index = self._index(leaf, place)
                self._last_mark = text.mark = self._last_mark + 1
                chunks.append(self._chunk(index, text))
            self._wait(index, text)
        entry.tokens = tuple(tokens)
        if not entry.has_text:
            self.results["no_text"] += 1
        if is_whole:
            choices = root["choices"]
            for choice in choices:
                self._choices.add(choice.get("index", 0))
            if not knows_text:
                self._text_free.append(_essence(choices))
        number = root.get("sequence_number") if isinstance(root, dict) else None
        entry.sequence = number if isinstance(number, int) else None
        entry.is_final = self._dialect.is_final(data, document)
        if entry.is_final:
            self._end_cuts()
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
                self._end_cut(running)
                running.forget()
                self._unsound.pop(id(running), None)
            running = self._running[place] = RunningText(leaf.is_json, self._budget)
        running.say(leaf.text)
        return running

    def _arguments(self, entry: _Entry, leaf: Leaf, running: RunningText | None) -> _Text | None:
        """Return a piece of a call's arguments with its escapes decoded; None if it has only a part of an escape."""
        if running is None or leaf.kind is Kind.REPEAT:
            text, used = decode(leaf.text)
            piece = _Piece(entry, leaf, leaf.text, "")
            return _Text(0, text + leaf.text[used:], leaf.text, entry, leaf, running, piece)
        if running.rest:
            raise MalformedBody("arguments go on after the end")
        cut = self._cuts.pop(id(running), None)
        before, lenders = (cut.text, cut.lenders) if cut is not None else ("", ())
        raw = before + leaf.text
        text, used = decode(raw)
        rest = raw[used:]
        if used and len(rest) > len(leaf.text):
            # Half of a surrogate pair, in an earlier piece, stands alone. It is no escape, and the rest is not read.
            text, used, rest = text + rest, len(raw), ""
        whole = len(leaf.text) - len(rest) if used else 0
        piece = _Piece(entry, leaf, leaf.text[:whole], leaf.text[whole:])
        if rest:
            entry.waiting += 1
            entry.has_text = self.has_text = True
            kept = (piece,) if used else (*lenders, piece)
            self._cuts[id(running)] = _Cut(running, rest, kept)
        return _Text(0, text, raw[:used], entry, leaf, running, piece, lenders) if used else None

    def _end_cuts(self) -> None:
        """Let incomplete escapes leave as they are: nothing follows."""
        for cut in tuple(self._cuts.values()):
            self._end_cut(cut.running)

    def _end_cut(self, running: RunningText) -> None:
        cut = self._cuts.pop(id(running), None)
        if cut is not None:
            running.rest = cut.text
            for piece in cut.lenders:
                piece.entry.waiting -= 1

    def _wait(self, index: int, text: _Text) -> None:
        lane = self._lanes.get(index)
        if lane is None:
            lane = self._lanes[index] = Lane()
        lane.waiting.append(text)
        entry = text.entry
        entry.waiting += 1
        if entry.has_text:
            self._charge(entry, _TEXT_BYTES)
        entry.has_text = self.has_text = True
        self._unverified += 1

    def _charge(self, entry: _Entry, size: int) -> None:
        entry.cost += size
        self.held += size

    def _chunk(self, index: int, text: _Text) -> str:
        return json.dumps(
            {
                "id": self._chunk_id,
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "",
                "choices": [{"index": index, "delta": {"content": text.text}, "finish_reason": None}],
                MARK: text.mark,
            }
        )

    def verified(self, texts: tuple[tuple[int, str | None], ...], chunk: Mapping[str, Any]) -> None:
        """Match a verified chunk with the waiting texts. `texts` are its texts by choice index.

        Raises SessionViolation for a text that no event waits for, and RedactionError.
        """
        if self._has_marks is None:
            self._has_marks = chunk.get(MARK) is not None
        mark = mark_of(chunk, self._last_mark) if self._has_marks else None
        is_covered = False
        for index, text in texts:
            lane = self._lanes.get(index)
            if text or (text is not None and mark is not None and lane is not None and lane.waits_for(mark)):
                self._cover(lane, text, mark)
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
            lane = self._lanes.get(index)
            if lane is None and index not in self._choices:
                raise SessionViolation("Aim verified a choice that was never submitted")
            if text is not None and mark is None and lane is not None and lane.waiting:
                self._cover(lane, "", None)

    def _cover(self, lane: Lane[_Text] | None, text: str, mark: int | None) -> None:
        if lane is None:
            raise SessionViolation("Aim verified a text that was never submitted")
        if mark is not None and not lane.waiting:
            self._is_short = True  # Aim split a text, and no event is left for the second half
        for waiting, new in lane.match(text, mark):
            if new is None:
                self._verify(waiting)
            else:
                self._rewrite(waiting, new)

    def _verify(self, text: _Text) -> None:
        self._settle(text, "verified")
        if text.running is not None:
            self._release(text, text.raw, is_rewritten=False)

    def _rewrite(self, text: _Text, new: str) -> None:
        running = text.running
        if new and text.piece is not None:
            in_string = running is not None and running.ends_in_string
            self._give(text, respell(text.raw, text.text, new, in_string=in_string), "rewritten")
        else:
            self._give(text, new, "rewritten" if new else "dropped")

    def _give(self, text: _Text, spelling: str, result: str) -> None:
        """Release another text at the place of this one, and nothing of what it was."""
        leaf, piece = self._located(text), text.piece
        if piece is None:
            text.entry.edits |= rewrite(leaf, spelling)
        else:
            for lender in text.lenders:
                lender.cut = ""
                lender.entry.edits |= rewrite(lender.leaf, lender.spelling)
            piece.spelling = spelling
            text.entry.edits |= rewrite(leaf, spelling + piece.cut)
        self.is_altered = True
        self._units.add(short_place(leaf.unit) if len(self._units) < _UNITS else None)
        self._settle(text, result)
        self._release(text, spelling, is_rewritten=True)

    def _located(self, text: _Text) -> Leaf:
        """Return the place of a text. The places of joined texts are found only when they are needed."""
        leaf, document = text.leaf, text.entry.document
        if not leaf.is_joined or document is None:
            return leaf
        if text.entry.located is None:
            text.entry.located = self._dialect.deltas(document.read_again(), locates=True)
        return text.entry.located[leaf.number]

    def _release(self, text: _Text, spelling: str, *, is_rewritten: bool) -> None:
        """Record what the client gets."""
        running = text.running
        if running is None:
            return
        running.release(spelling, is_rewritten=is_rewritten)
        if running.is_unsound:
            self._unsound[id(running)] = running
        elif self._unsound:
            self._unsound.pop(id(running), None)

    def _settle(self, text: _Text, result: str) -> None:
        text.entry.waiting -= 1
        for lender in text.lenders:
            lender.entry.waiting -= 1
        self._unverified -= 1
        self.is_head_open = True
        self.results[result] += 1

    def finish(self) -> None:
        """Empty the texts that Aim did not verify: after its `done`, it has dropped them.

        Raises RedactionError if arguments would be invalid JSON.
        """
        self._is_done = self.is_head_open = True
        for lane in self._lanes.values():
            while lane.waiting:
                self._rewrite(lane.waiting.popleft(), "")
        self._end_cuts()
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
        return not entry.is_final and (entry.has_text or entry.document is None or not self._unsound)

    def _bytes(self, entry: _Entry) -> bytes:
        document = entry.document
        if document is None:
            return entry.event.raw
        if entry.sequence is not None:
            self.sequence = entry.sequence + 1
        edits = entry.edits
        for leaf, running in entry.echoes:
            if running.is_rewritten:
                edits |= rewrite(leaf, "" if leaf.kind is Kind.SEAL else running.spelling)
        if self.is_altered:
            edits |= {leaf.path: None for leaf in entry.tokens if self._spells_rewritten(leaf)}
        return entry.event.with_data(document.rewrite(edits)) if edits else entry.event.raw

    def _spells_rewritten(self, tokens: Leaf) -> bool:
        """Return whether tokens may spell a text that was rewritten."""
        return tokens.unit is None or None in self._units or short_place(tokens.unit) in self._units

    def take_all(self) -> bytes:
        """Remove and return everything that is held, for a leg that fails open.

        What Aim has rewritten, or said as part of another text, does not leave as it was. Texts without a word of Aim
        leave as they came. Raises RedactionError if that is not possible.
        """
        if self._is_short:
            raise RedactionError("no event is left for a text of Aim")
        if self.is_altered and self._has_unread:
            raise RedactionError("an event may repeat a text that Aim has rewritten")
        self._open_lanes()
        for running in self._running.values():
            cut = self._cuts.get(id(running))
            if running.breaks_with(cut.text if cut is not None else ""):
                raise RedactionError("redacted arguments are no longer JSON")
        return self._take_rest()

    def pass_on(self, event: Unit) -> bytes:
        """Return the bytes of an event that arrives after `take_all`: what Aim has rewritten is not repeated."""
        try:
            self.add(event)
        except ContentError as error:
            raise RedactionError("an event may repeat a text that Aim has rewritten") from error
        self._open_lanes()
        return self._take_rest()

    def _open_lanes(self) -> None:
        lanes, self._lanes = self._lanes, {}  # the lanes of later events are new ones
        for lane in lanes.values():
            self._open(lane)

    def _open(self, lane: Lane[_Text]) -> None:
        """Let the texts of a lane leave."""
        waiting = lane.waiting
        count, owed = lane.unspoken()
        for _ in range(count):
            self._rewrite(waiting.popleft(), "")
        if owed:
            if not waiting:
                raise RedactionError("no event is left for a text that another took the place of")
            first = waiting.popleft()
            self._give(first, owed + first.raw, "rewritten")
        for text in waiting:
            self._release(text, text.raw, is_rewritten=False)

    def _take_rest(self) -> bytes:
        rest = b"".join(piece for entry in self._entries for piece in (self._bytes(entry), entry.more))
        self.clear()
        return rest

    def clear(self) -> None:
        """Forget everything that is held, but not what a later repeat is compared with."""
        self._entries.clear()
        self._lanes.clear()
        self.held = self._unverified = 0

    def drop(self) -> None:
        """Forget everything: no event follows that must be read."""
        self.clear()
        self._running.clear()
        self._unsound.clear()
        self._cuts.clear()
        self._budget.held = 0

    def withheld_texts(self) -> Iterator[str]:
        """Yield the waiting texts; the pieces of a running text are joined."""
        for lane in self._lanes.values():
            yield "".join(text.text for text in lane.waiting)


def short_place(place: Hashable) -> Hashable:
    """Return a place or unit of bounded size that identifies it. It may contain the upstream's own keys."""
    for step in place if isinstance(place, tuple) else (place,):
        if isinstance(step, str) and len(step) > _LONG_NAME:
            return blake2b(repr(place).encode("utf-8", "surrogatepass")).digest()
    return place


def _are_clear(choices: list[Any]) -> bool:
    """Return whether the index of every choice is a small whole number that no other choice has."""
    if len(choices) == 1:
        index = choices[0].get("index", 0)
        return type(index) is int and 0 <= index <= MAX_CHOICE
    found: set[int] = set()
    for choice in choices:
        index = choice.get("index", 0)
        if type(index) is not int or not 0 <= index <= MAX_CHOICE or index in found:
            return False
        found.add(index)
    return True


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
