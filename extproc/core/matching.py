"""Matches Aim's verified chunks with the submitted texts.

Aim's verified chunks do not correspond one to one to the submitted chunks: Aim may look ahead, release late, join,
split, drop or rewrite texts. Each submission has a number, its mark, which the chunk carries under a key of its own. An
Aim that echoes chunks echoes it. Texts of one index that were submitted together, in one chunk, have the same mark:
what replaces the first of them replaces all. A verified text is matched within its choice index, in this order:

1. It equals the oldest waiting text: that text is verified.
2. It equals the oldest k texts, joined: all k are verified. If Aim is known to give joined texts the mark of the last
   one, the mark must not be an earlier one.
3. Its chunk has the mark of a waiting text: it is the new text of that one. Aim dropped the texts before it, which are
   emptied.
4. Otherwise it replaces the oldest waiting text. This happens if Aim returns no marks, if the marked text is already
   settled (Aim split it), or if the mark belongs to another index. Texts that Aim dropped are then known only when Aim
   sends `done`.

So while the session lasts the client reads what Aim sent, in the order in which Aim sent it, and nothing else. With
marks each text is in the event that it came from; without, it may be in an earlier one. Later texts are never searched
for an equal one, because the model may itself write what Aim uses as a replacement. If the first verified chunk has no
mark, marks are ignored for the whole session. A mark that is no integer, or that was never given, raises
`SessionViolation`.

These rules give each verified text a place. How far Aim has come is another matter; `progress` counts it.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from extproc.core.chunk import SessionViolation
from extproc.core.marks import Joins, Marks
from extproc.core.progress import MarkedProgress, Submission, equal_texts
from extproc.core.unmarked_progress import UnmarkedProgress

_T = TypeVar("_T", bound=Submission)


class Lane(Generic[_T]):
    """The texts of one choice index that wait for Aim."""

    __slots__ = ("_mark", "_marks", "_progress", "waiting")

    def __init__(self, marks: Marks) -> None:
        """Begin without texts, in a session with these `marks`."""
        self.waiting: deque[_T] = deque()
        self._marks = marks
        self._mark = 0  # Aim has said the texts up to this mark
        self._progress: MarkedProgress | UnmarkedProgress | None = None

    def _waits_for(self, mark: int) -> bool:
        """Return whether a text with this mark waits. Marks grow along the lane."""
        for text in self.waiting:
            if text.mark >= mark:
                return text.mark == mark
        return False

    def expects(self, mark: int) -> bool:
        """Return whether Aim may still say something of a text with this mark."""
        return self._waits_for(mark) or (isinstance(self._progress, MarkedProgress) and self._progress.owes(mark))

    @property
    def may_be_split(self) -> bool:
        """Return whether the last text was rewritten: what Aim says next may be the rest of it."""
        return isinstance(self._progress, UnmarkedProgress)

    def match(self, text: str, mark: int | None) -> list[tuple[_T, str | None]]:
        """Remove and return the waiting texts that a verified text settles, each with its new text, None if unchanged.

        `text` may be empty if the lane expects it. Raises SessionViolation if none waits, and for a text that was not
        submitted yet.
        """
        waiting, progress = self.waiting, self._progress
        if progress is None and waiting:
            oldest = waiting[0]
            if oldest.text == text and oldest.mark and (mark is None or mark == oldest.mark):
                self._mark = oldest.mark
                return [(waiting.popleft(), None)]
        settled = self._settle(text, mark)
        places = [place for place, _ in settled]
        if settled and not places[-1].mark:
            raise SessionViolation("Aim verified a text before it was submitted")
        if mark is None and not isinstance(progress, MarkedProgress):
            progress = progress or UnmarkedProgress(self._marks)
            progress.hear(text, places)
        else:
            if not isinstance(progress, MarkedProgress):
                progress = MarkedProgress(self._marks, self._mark)
            progress.hear(text, mark, places, waiting)
            self._mark = progress.mark
        self._progress = None if progress.is_level else progress
        return settled

    def _settle(self, text: str, mark: int | None) -> list[tuple[_T, str | None]]:
        waiting = self.waiting
        waits = mark is not None and self._waits_for(mark)
        if not (text or waits or mark is None):
            return []  # Aim has dropped a text whose place was taken
        if not waiting:
            raise SessionViolation("Aim verified a text that was not waiting")
        count = equal_texts(text, waiting)
        if count > 1 and mark is not None and self._marks.joins is Joins.LAST and waiting[count - 1].mark > mark:
            count = 0  # joined texts would have the mark of the last one
        if count:
            return [(waiting.popleft(), None) for _ in range(count)]
        settled: list[tuple[_T, str | None]] = []
        if waits:
            while waiting[0].mark != mark:
                settled.append((waiting.popleft(), ""))
        oldest = waiting.popleft()
        settled.append((oldest, None if oldest.text == text else text))
        if oldest.text != text:
            while waiting and waiting[0].mark == oldest.mark:  # they were submitted as one text
                settled.append((waiting.popleft(), ""))
        return settled

    def unspoken(self) -> tuple[int, str]:
        """Return what a leg that fails open needs: how many waiting texts Aim has said already, as part of another, and
        the spelling of what Aim has not said, although another text took its place.

        Raises RedactionError if that was too much to be remembered.
        """
        return (0, "") if self._progress is None else self._progress.left(self.waiting)
