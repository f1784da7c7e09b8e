"""Matches Aim's verified chunks with the submitted texts.

Aim's verified chunks do not correspond one to one to the submitted chunks: Aim may look ahead, release late, join,
split, drop or rewrite texts. Each submission has a number, its mark, which the chunk carries under a key of its own. An
Aim that echoes chunks echoes it. Texts of one index that were submitted together, in one chunk, have the same mark:
what replaces the first of them replaces all. A verified text is matched within its choice index, in this order:

1. It equals the oldest waiting text: that text is verified.
2. It equals the oldest k texts, joined: all k are verified.
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
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from extproc.core.chunk import SessionViolation

_SAID_TEXTS = 64
_SAID_CHARACTERS = 64 * 1024
"""How much of the rewritten texts since the last unchanged one is remembered, for a leg that fails open."""

_COMPARED = 256
"""How many waiting texts are compared with what Aim said, if a leg fails open."""


@dataclass(slots=True, eq=False)
class Submission:
    """A submitted text: the mark of its chunk, the text as Aim gets it, and its spelling in the event."""

    mark: int
    text: str
    raw: str


class _Said(NamedTuple):
    """A rewritten text: what it was, and what Aim said at its place, in the chunk with the mark `spoken`."""

    mark: int
    spoken: int | None
    text: str
    raw: str
    given: str


_T = TypeVar("_T", bound=Submission)


class Lane(Generic[_T]):
    """The texts of one choice index that wait for Aim."""

    __slots__ = ("_reached", "_said", "waiting")

    def __init__(self) -> None:
        """Begin without texts."""
        self.waiting: deque[_T] = deque()
        self._said: list[_Said] = []
        self._reached = 0  # the mark of a later text that Aim has said, if that equalled the oldest

    def waits_for(self, mark: int) -> bool:
        """Return whether a text with this mark waits. Marks grow along the lane."""
        for text in self.waiting:
            if text.mark >= mark:
                return text.mark == mark
        return False

    @property
    def may_be_split(self) -> bool:
        """Return whether the last text was rewritten: what Aim says next may be the rest of it."""
        return bool(self._said)

    def match(self, text: str, mark: int | None) -> list[tuple[_T, str | None]]:
        """Remove and return the waiting texts that a verified text settles, each with its new text, None if unchanged.

        `text` may be empty if a text waits. Raises SessionViolation if none waits.
        """
        waiting = self.waiting
        if not waiting:
            raise SessionViolation("Aim verified a text that was not waiting")
        count = 1 if waiting[0].text == text else self._equal(text)
        if count:
            if self._said:
                self._said.clear()
            if mark is not None and mark > waiting[count - 1].mark and self.waits_for(mark):
                self._reached = mark
            return [(waiting.popleft(), None) for _ in range(count)]
        settled: list[tuple[_T, str | None]] = []
        if mark is not None and self.waits_for(mark):
            self._said.clear()
            while waiting[0].mark != mark:
                settled.append((waiting.popleft(), ""))
        oldest = waiting.popleft()
        if oldest.text == text:
            settled.append((oldest, None))
            self._remember(oldest, oldest.text, oldest.raw, text, mark)
            return settled
        settled.append((oldest, text))
        whole, raw = [oldest.text], [oldest.raw]
        while waiting and waiting[0].mark == oldest.mark:  # they were submitted as one text
            sibling = waiting.popleft()
            settled.append((sibling, ""))
            whole.append(sibling.text)
            raw.append(sibling.raw)
        self._remember(oldest, "".join(whole), "".join(raw), text, mark)
        return settled

    def _equal(self, text: str) -> int:
        """Return how many of the oldest texts, joined, equal `text`; 0 if none do."""
        position = 0
        for count, waiting in enumerate(self.waiting, 1):
            if not text.startswith(waiting.text, position):
                break
            position += len(waiting.text)
            if position == len(text):
                return count
        return 0

    def _remember(self, oldest: _T, text: str, raw: str, given: str, mark: int | None) -> None:
        spoken = None if mark is None else min(mark, oldest.mark)
        if spoken is not None:
            self._said = [said for said in self._said if said.mark >= spoken]
        self._said.append(_Said(oldest.mark, spoken, text, raw, given))
        characters = sum(len(said.raw) + len(said.given) for said in self._said)
        if not given or len(self._said) > _SAID_TEXTS or characters > _SAID_CHARACTERS:
            self._said.clear()

    def unspoken(self) -> tuple[int, str]:
        """Return what a leg that fails open needs: how many waiting texts Aim has said already, as part of another, and
        the spelling of the texts that Aim has not said, although another took their place.

        Without marks both are found by comparing what Aim said with what it got.
        """
        said = self._said
        if not said:
            return sum(0 < text.mark <= self._reached for text in self.waiting), ""
        spoken = said[-1].spoken
        if spoken is None:
            given = "".join(one.given for one in said)
            split = (count for count in range(1, len(said)) if "".join(one.text for one in said[:count]) == given)
            settled = next(split, len(said))  # one text was split if Aim said no more than the texts before
        else:
            given = "".join(one.given for one in said if one.spoken == spoken)
            settled = 1
        texts = [one.text for one in said] + [text.text for text in islice(self.waiting, _COMPARED) if text.mark]
        reach = max(settled, _reach(texts, given, settled))
        spoken_too = min(max(0, reach - len(said)), len(self.waiting))
        return spoken_too, "".join(one.raw for one in said[reach:])


def _reach(texts: list[str], given: str, settled: int) -> int:
    """Return how many of `texts` are in `given`, which Aim said of them. The first `settled` were settled by it.

    A text that is in it as it was tells how far Aim was; between such texts something was rewritten.
    """
    position = count = 0
    for number, text in enumerate(texts):
        if number == count and given.startswith(text, position):
            found = position
        elif number < settled or number > count:
            found = given.find(text, position + 1)
        else:
            continue
        if found >= 0:
            position, count = found + len(text), number + 1
    return count + (position < len(given))
