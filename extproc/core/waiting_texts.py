"""The texts of a stream that wait for Aim, each in the lane of its choice index."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator

from extproc.core.chunk import SessionViolation
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.errors import MalformedBody
from extproc.core.held_event import HeldText
from extproc.core.marks import Marks
from extproc.core.matching import Lane
from extproc.core.vocabulary import MAX_CHOICE

_PLACES = 4096
"""The most running texts of one stream, together with the texts that continue no other and were not verified yet."""

_LANE_BYTES = 1000
"""The memory that a lane takes beside its texts: it stays until the stream ends."""


class WaitingTexts:
    """Keeps the waiting texts in lanes. A text that Aim does not read in an unchanged event has an index of its own."""

    __slots__ = ("_fresh", "_indices", "_lanes", "_marks", "_over", "count", "is_short")

    def __init__(self, marks: Marks) -> None:
        """Begin without texts, in a session with these `marks`."""
        self._marks = marks
        self._lanes: dict[int, Lane[HeldText]] = {}
        self._indices: dict[Hashable, int] = {}
        self._over: deque[int] = deque()  # the indices of texts that nothing continues
        self._fresh = MAX_CHOICE
        self.count = 0
        """How many texts wait."""
        self.is_short = False
        """Whether Aim split a text, and no event was left for the second half."""

    @property
    def held(self) -> int:
        """The memory that the lanes take beside their texts, in bytes."""
        return _LANE_BYTES * len(self._lanes)

    def index(self, leaf: Leaf, place: Hashable) -> int:
        """Return the choice index for a text. A text that does not continue another has an index of its own.

        Raises MalformedBody if the stream has too many of them.
        """
        index = None if place is None else self._indices.get(place)
        if index is None or leaf.kind is Kind.REPEAT:
            if index is not None:
                self._over.append(index)
            index = self._new_index()
            if place is None:
                self._over.append(index)
            else:
                self._indices[place] = index
        return index

    def _new_index(self) -> int:
        """Return an index that no text has, or else that of the oldest text that is over, if it is verified."""
        if self._fresh < MAX_CHOICE + _PLACES:
            self._fresh += 1
            return self._fresh
        oldest = self._lanes.get(self._over[0]) if self._over else None
        if not self._over or (oldest is not None and oldest.waiting):
            raise MalformedBody("a stream has too many texts")
        index = self._over.popleft()
        self._lanes[index] = Lane(self._marks)
        return index

    def add(self, index: int, text: HeldText) -> None:
        """Let a text wait."""
        lane = self._lanes.get(index)
        if lane is None:
            lane = self._lanes[index] = Lane(self._marks)
        lane.waiting.append(text)
        self.count += 1

    def lane(self, index: int) -> Lane[HeldText] | None:
        """Return the texts of an index; None if it never had any."""
        return self._lanes.get(index)

    def settle(self, index: int, text: str, mark: int | None) -> list[tuple[HeldText, str | None]]:
        """Remove and return the texts that a verified text settles, each with its new text, None if unchanged.

        Raises SessionViolation if none waits, and for a text that was not submitted yet.
        """
        lane = self._lanes.get(index)
        if lane is None:
            raise SessionViolation("Aim verified a text that was never submitted")
        if not lane.waiting and (mark is not None or lane.may_be_split):
            self.is_short = True
        settled = lane.match(text, mark)
        self.count -= len(settled)
        return settled

    def take(self) -> Iterator[HeldText]:
        """Remove and yield all texts that wait."""
        for lane in self._lanes.values():
            while lane.waiting:
                self.count -= 1
                yield lane.waiting.popleft()

    def take_lanes(self) -> list[Lane[HeldText]]:
        """Remove and return all lanes: those of later texts are new ones."""
        lanes, self._lanes = list(self._lanes.values()), {}
        self.count = 0
        return lanes

    def joined(self) -> Iterator[str]:
        """Yield the waiting texts; the pieces of a running text are joined."""
        for lane in self._lanes.values():
            yield "".join(text.text for text in lane.waiting)
