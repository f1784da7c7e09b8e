"""The events of one stream, held until Aim has verified their text.

Theory of operation
-------------------
Events wait in one queue, in the order of their arrival. Each text of an event is submitted to Aim under a choice index
and waits in the lane of that index (`waiting_texts`). An event is released when none of its texts waits and no event is
before it. `matching` says which texts a verified chunk settles.

A chat event is submitted as it came, with its mark. This needs small, distinct, whole choice indices. Otherwise each
text becomes a chunk of its own, with one index for each place, as in other dialects (`session_chunks`).

Some streams repeat a running text as a whole. A repeat that equals its deltas is not submitted; it is released with the
text that was released for the deltas (`event_writer`). A repeat that differs is a separate text.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping
from sys import getsizeof
from typing import Any

from extproc.core.argument_pieces import ArgumentPieces
from extproc.core.block_answers.base import BlockAnswer
from extproc.core.chunk import are_clear
from extproc.core.chunk_template import ChunkTemplates
from extproc.core.content.aws_event_stream import Frame
from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document
from extproc.core.content.framing import Unit
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.errors import ContentError
from extproc.core.event_writer import EventWriter
from extproc.core.held_event import HeldEvent, HeldText, short_place
from extproc.core.redaction import RedactionError
from extproc.core.running_text import RunningText, RunningTexts
from extproc.core.session_chunks import SessionChunks
from extproc.core.token_lead import TokenLead
from extproc.core.verification import Verification
from extproc.core.waiting_texts import WaitingTexts

_EVENT_BYTES = 640
"""The memory that an event in the queue takes in addition to its bytes and its data."""

_TEXT_BYTES = 640
"""The memory that a text of an event takes in addition to its characters: its place, its queue entry, its rewrite."""

_PIECE_BYTES = 320
"""The memory that a piece of arguments takes in addition to that of a text."""

_PLACE_BYTES = 480
"""The memory that the place of tokens, of a repeat or of a signature takes in an event."""

_REPEAT, _SEAL, _TOKENS = Kind.REPEAT, Kind.SEAL, Kind.TOKENS

_END = "[DONE]"
"""The mark of the end. APIs that have none of their own get it from servers and gateways."""


def _has_data(unit: Unit) -> bool:
    """Return whether a unit has data. White space alone is none, except where a frame has a piece of a text."""
    data = unit.data
    return bool(data and (data.strip() or (isinstance(unit, Frame) and unit.is_foreign)))


class ReleaseQueue:
    """Holds a stream's events and releases them as Aim verifies their texts."""

    def __init__(self, dialect: Dialect, chunk_id: str, values: int = MAX_VALUES) -> None:
        """Read events with `dialect`; `chunk_id` is the id of the session's chunks until an event has an id.

        An event may have at most `values` values.
        """
        self._dialect = dialect
        self._values = values
        self._events: deque[HeldEvent] = deque()
        self._chunks = SessionChunks(chunk_id)
        self._waiting = WaitingTexts(self._chunks.marks)
        self._running = RunningTexts()
        self._pieces = ArgumentPieces()
        self._writer = EventWriter(dialect)
        self._lead = TokenLead()
        self._verification = Verification(self._chunks, self._waiting, self._running, self._writer)
        self._is_done = False
        self._has_unread = False
        self._templates = ChunkTemplates()
        self.is_head_open = False
        """Whether text-free events at the start may be released although nothing was verified yet."""
        self.held = 0
        self.has_text = False

    @property
    def is_waiting(self) -> bool:
        """Return whether any text is not verified."""
        return self._waiting.count > 0

    @property
    def is_waiting_for_aim(self) -> bool:
        """Return whether any text that was submitted is not verified."""
        return self._waiting.count > 0 and self._waiting.count > self._chunks.deferred

    @property
    def has_deferred(self) -> bool:
        """Return whether any text waits to be submitted together with later ones."""
        return self._chunks.deferred > 0

    @property
    def is_altered(self) -> bool:
        """Return whether any text was rewritten."""
        return self._writer.is_altered

    @property
    def sequence(self) -> int:
        """The number of the next event, for APIs that number events."""
        return self._writer.sequence

    @property
    def results(self) -> Counter[str]:
        """How many texts came to which end, and how many events had none."""
        return self._verification.results

    @property
    def answer(self) -> BlockAnswer | None:
        """The answer that a block becomes. It is told the documents that are released."""
        return self._writer.answer

    @answer.setter
    def answer(self, answer: BlockAnswer | None) -> None:
        self._writer.answer = answer

    @property
    def kept(self) -> int:
        """Bytes that are kept beside the events: running texts, lanes, and those of the answer that a block becomes."""
        answer = self._writer.answer
        return self._running.held + self._waiting.held + (answer.kept if answer is not None else 0)

    @property
    def awaits_done(self) -> bool:
        """Return whether only the mark of the end is left. It waits for Aim's `done`."""
        return bool(self._events) and self._events[0].is_final and not self._waiting.count and not self._is_done

    @property
    def is_empty(self) -> bool:
        """Return whether every event was released."""
        return not self._events

    @property
    def first_size(self) -> int:
        """The memory that the oldest event takes, in bytes."""
        return self._events[0].cost if self._events else 0

    # -- events ----------------------------------------------------------------------------------------------------

    def add(self, unit: Unit) -> list[str]:
        """Queue the next event; return the chunks, as JSON, to submit for it.

        Raises MalformedBody for data that cannot be read.
        """
        has_data = _has_data(unit)
        self._chunks.received += len(unit.raw)
        if self._events and not has_data and self._events[-1].document is None:
            # There may be thousands of comments and blank lines: they are released with the event before them.
            self._events[-1].more += unit.raw
            self._charge(self._events[-1], len(unit.raw))
            return []
        event = HeldEvent(unit)
        self._events.append(event)
        if not (has_data and unit.data):
            self._charge(event, len(unit.raw) + _EVENT_BYTES)
            return []
        self._charge(event, len(unit.raw) + getsizeof(unit.data) + _EVENT_BYTES)
        try:
            return self._read(event, unit.data)
        except ContentError:
            self._has_unread = True
            raise

    def _charge(self, event: HeldEvent, size: int) -> None:
        event.cost += size
        self.held += size

    def _read(self, event: HeldEvent, data: str) -> list[str]:
        if (known := self._templates.read(data)) is not None:
            return self._read_known(event, data, known)
        if data.strip() == _END or self._dialect.is_final(data, None):
            event.is_final = True
            self._pieces.end_all()
            return self._chunks.take(is_last=True)
        is_foreign = event.unit.is_foreign
        event.document = document = self._dialect.parse(data, self._values, is_foreign=is_foreign, is_event=True)
        leaves = self._dialect.deltas(document)
        root = document.root
        self._chunks.name_after(root)
        whole_mark = 0
        if self._dialect.is_submitted_whole(document) and are_clear(root["choices"]):
            whole_mark = self._chunks.add_whole(data, root)
        knows_text = False
        tokens: list[Leaf] = []
        for leaf in leaves:
            kind = leaf.kind
            if kind is _TOKENS:
                tokens.append(leaf)
                self._charge(event, _PLACE_BYTES)
                continue
            # The place of a delta with an index of its own is short: a chat dialect has named its keys.
            place = leaf.place if leaf.index is not None else short_place(leaf.place)
            running = self._running.get(place)
            if kind is _SEAL or (kind is _REPEAT and running and running.repeats(leaf.text)):
                if running is not None:
                    if not (leaf.is_joined or leaf.raw or leaf.encoded):
                        leaf.text = ""  # its place is enough to rewrite it, and a repeat may be as long as the answer
                    event.echoes.append((leaf, running))
                    self._charge(event, len(leaf.text) + _PLACE_BYTES)
                continue
            text = self._text(event, leaf, self._say(leaf, place, running))
            if text is None:
                continue
            if whole_mark and leaf.index is not None:
                index = leaf.index
                text.mark = whole_mark
                knows_text = True
            else:
                index = self._waiting.index(leaf, place)
                self._chunks.add(index, text)
            self._waiting.add(index, text)
            event.waiting += 1
        event.is_final = self._dialect.is_final(data, document)
        if tokens:
            self._follow(event, leaves, tokens)
        if not event.has_text:
            self.results["no_text"] += 1
        if whole_mark:
            self._chunks.expect(root["choices"], has_text=knows_text)
        number = root.get("sequence_number") if isinstance(root, dict) else None
        event.sequence = number if isinstance(number, int) else None
        if event.is_final:
            self._pieces.end_all()
        if whole_mark and not (event.is_final or event.sequence is not None or self._dialect.is_repetitive):
            self._templates.learn(document, leaves)
        document.forget()
        return self._chunks.take(is_last=event.is_final)

    def _follow(self, event: HeldEvent, leaves: list[Leaf], tokens: list[Leaf]) -> None:
        """Keep the tokens of an event with the text that Aim judges."""
        event.tokens = tuple(tokens)
        if event.is_final:
            return  # it leaves after Aim's `done`, so that all texts are verified; some servers sum up there
        alone, lost = self._lead.read(leaves, tokens)
        event.edits |= {leaf.path: None for leaf in alone}
        for unit in lost:
            self._writer.lose_tokens(unit)

    def _read_known(self, event: HeldEvent, data: str, leaf: Leaf) -> list[str]:
        """Queue a chunk of which only the text is new: it has an index of its own and continues no running text."""
        event.document = Document.unread(data)
        assert leaf.index is not None
        text = HeldText(0, leaf.text, leaf.text, event, leaf, None)
        text.mark = self._chunks.add_like(data)
        self._charge(event, len(leaf.text) + _TEXT_BYTES)
        event.has_text = self.has_text = True
        self._waiting.add(leaf.index, text)
        event.waiting = 1
        return self._chunks.take()

    def take_deferred(self) -> list[str]:
        """Return the chunks with the texts that wait for later ones."""
        return self._chunks.take(is_last=True)

    def _say(self, leaf: Leaf, place: Hashable, running: RunningText | None) -> RunningText | None:
        """Record what the model said, if that matters later."""
        if leaf.is_embedded and running is not None:
            running.is_interrupted = True
        if place is None or leaf.is_embedded or not (leaf.is_json or self._dialect.is_repetitive):
            return None
        if running is None or leaf.kind is Kind.REPEAT:
            if running is not None:
                self._pieces.end(running)
            running = self._running.begin(place, is_json=leaf.is_json)
        running.say(leaf.text)
        return running

    def _text(self, event: HeldEvent, leaf: Leaf, running: RunningText | None) -> HeldText | None:
        """Return a text of an event; None if it is only a part of an escape."""
        self._charge(event, len(leaf.text) + _TEXT_BYTES)
        event.has_text = self.has_text = True
        if leaf.is_json and not leaf.is_embedded:
            self._charge(event, _PIECE_BYTES)
            return self._pieces.read(event, leaf, running)
        return HeldText(0, leaf.text, leaf.text, event, leaf, running)

    # -- what Aim says ---------------------------------------------------------------------------------------------

    def verified(self, texts: tuple[tuple[int, str | None], ...], chunk: Mapping[str, Any]) -> None:
        """Match a verified chunk with the waiting texts. `texts` are its texts by choice index.

        Raises SessionViolation for a text that no event waits for, and RedactionError.
        """
        self._verification.apply(texts, chunk)
        self.is_head_open = self.is_head_open or self._verification.has_begun

    def finish(self) -> None:
        """Empty the texts that Aim did not verify: after its `done`, it has dropped them.

        Raises RedactionError if arguments would be invalid JSON.
        """
        self._is_done = self.is_head_open = True
        self._verification.drop_rest()
        self._pieces.end_all()
        if any(running.is_broken for running in self._running):
            raise RedactionError("redacted arguments are no longer JSON")

    # -- what leaves -----------------------------------------------------------------------------------------------

    def take_ready(self) -> bytes:
        """Remove and return the bytes that may be released now."""
        ready: list[bytes] = []
        while self._events and self._may_leave(self._events[0]):
            event = self._events.popleft()
            self.held -= event.cost
            ready.append(self._writer.written(event))
            if event.more:
                ready.append(bytes(event.more))
        return b"".join(ready)

    def _may_leave(self, event: HeldEvent) -> bool:
        if event.waiting or not self.is_head_open:
            return False
        if self._is_done:
            return True
        # A client acts on a call's arguments when an event without text ends them, so that event waits until they are
        # valid. The mark of the end waits for Aim's `done`, so that a late block can still end the stream.
        return not event.is_final and (event.has_text or event.document is None or self._running.are_sound)

    def take_all(self) -> bytes:
        """Remove and return everything that is held, for a leg that fails open.

        What Aim has rewritten, or said as part of another text, does not leave as it was. Texts without a word of Aim
        leave as they came. Raises RedactionError if that is not possible.
        """
        if self._waiting.is_short:
            raise RedactionError("no event is left for a text of Aim")
        if self.is_altered and self._has_unread:
            raise RedactionError("an event may repeat a text that Aim has rewritten")
        self._verification.open()
        if any(running.breaks_with(self._pieces.rest(running)) for running in self._running):
            raise RedactionError("redacted arguments are no longer JSON")
        return self._take_rest()

    def pass_on(self, unit: Unit) -> bytes:
        """Return the bytes of an event that arrives after `take_all`: what Aim has rewritten is not repeated."""
        try:
            self.add(unit)
        except ContentError as error:
            raise RedactionError("an event may repeat a text that Aim has rewritten") from error
        self._verification.open()
        return self._take_rest()

    def _take_rest(self) -> bytes:
        rest = b"".join(piece for event in self._events for piece in (self._writer.written(event), event.more))
        self.clear()
        return rest

    def clear(self) -> None:
        """Forget everything that is held, but not what a later repeat is compared with."""
        self._events.clear()
        self._waiting.take_lanes()
        self._chunks.drop_deferred()
        self.held = 0

    def drop(self) -> None:
        """Forget everything: no event follows that must be read."""
        self.clear()
        self._running.clear()
        self._pieces.clear()
        self._templates.forget()
        self._writer.answer = None

    def withheld_texts(self) -> Iterator[str]:
        """Yield the waiting texts; the pieces of a running text are joined."""
        return self._waiting.joined()
