"""What Aim says about the texts of a stream, applied to the events that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from extproc.core.chunk import SessionViolation
from extproc.core.event_writer import EventWriter
from extproc.core.held_event import HeldText
from extproc.core.matching import Lane
from extproc.core.redaction import RedactionError
from extproc.core.running_text import RunningTexts
from extproc.core.session_chunks import SessionChunks
from extproc.core.waiting_texts import WaitingTexts


class Verification:
    """Settles the waiting texts: each is verified, rewritten or dropped."""

    __slots__ = ("_chunks", "_running", "_waiting", "_writer", "has_begun", "results")

    def __init__(
        self, chunks: SessionChunks, waiting: WaitingTexts, running: RunningTexts, writer: EventWriter
    ) -> None:
        """Settle the texts that are `waiting` for an answer to `chunks`."""
        self._chunks = chunks
        self._waiting = waiting
        self._running = running
        self._writer = writer
        self.has_begun = False
        """Whether any text was settled."""
        self.results: Counter[str] = Counter()
        """How many texts came to which end."""

    def apply(self, texts: tuple[tuple[int, str | None], ...], chunk: Mapping[str, Any]) -> None:
        """Match a verified chunk with the waiting texts. `texts` are its texts by choice index.

        Raises SessionViolation for a text that no event waits for, and RedactionError.
        """
        mark = self._chunks.marks.read(chunk)
        is_covered = False
        for index, text in texts:
            lane = self._waiting.lane(index)
            if text or (text is not None and mark is not None and lane is not None and lane.expects(mark)):
                self._cover(index, text, mark)
                is_covered = True
        if is_covered or self._chunks.is_echo(chunk):
            return
        if not texts:
            raise SessionViolation("Aim verified an empty chunk")
        for index, text in texts:
            lane = self._waiting.lane(index)
            if lane is None and not self._chunks.has_choice(index):
                raise SessionViolation("Aim verified a choice that was never submitted")
            if text is not None and mark is None and lane is not None and lane.waiting:
                self._cover(index, "", None)

    def _cover(self, index: int, text: str, mark: int | None) -> None:
        for waiting, new in self._waiting.settle(index, text, mark):
            if new is None:
                self._verify(waiting)
            else:
                self._rewrite(waiting, new)

    def _verify(self, text: HeldText) -> None:
        self._settle(text, "verified")
        if text.running is not None:
            self._running.release(text.running, text.raw, is_rewritten=False)

    def _rewrite(self, text: HeldText, new: str) -> None:
        self._give(text, self._writer.spelling(text, new), "rewritten" if new else "dropped")

    def _give(self, text: HeldText, spelling: str, result: str) -> None:
        """Release another text at the place of this one."""
        self._writer.give(text, spelling)
        self._settle(text, result)
        if text.running is not None:
            self._running.release(text.running, spelling, is_rewritten=True)

    def _settle(self, text: HeldText, result: str) -> None:
        text.event.waiting -= 1
        for lender in text.lenders:
            lender.event.waiting -= 1
        self.has_begun = True
        self.results[result] += 1

    def drop_rest(self) -> None:
        """Empty the texts that wait: Aim has dropped them. Raises RedactionError if a text cannot be emptied."""
        for text in self._waiting.take():
            self._rewrite(text, "")

    def open(self) -> None:
        """Let the waiting texts leave, for a leg that fails open.

        A text that Aim has said already, as part of another, leaves empty. Raises RedactionError if a text would be
        lost, or if one cannot be rewritten.
        """
        for lane in self._waiting.take_lanes():
            self._open(lane)

    def _open(self, lane: Lane[HeldText]) -> None:
        waiting = lane.waiting
        count, owed = lane.unspoken()
        if owed:
            if not waiting:
                raise RedactionError("no event is left for a text that another took the place of")
            first = waiting.popleft()
            self._give(first, owed if count else owed + first.raw, "rewritten")
            count -= 1
        for _ in range(count):
            self._rewrite(waiting.popleft(), "")
        for text in waiting:
            if text.running is not None:
                self._running.release(text.running, text.raw, is_rewritten=False)
