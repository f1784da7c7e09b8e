"""How far Aim has come in the texts of one choice index, for a leg that fails open.

A verified text takes the place of a waiting one, but it need not be what Aim made of that one. If Aim splits a text,
the second part takes the place of the next text; if Aim joins texts, the places of some are still free. So places and
texts are counted apart. If the leg fails open, a text that Aim has said already must not leave from its own place, and
a text that Aim has not said, whose place was taken, must leave from a later one.

With marks (`MarkedProgress`), a mark says how far Aim has come: it has said all texts up to that one. Two things remain
to be found by comparing texts:

- A text that Aim has begun: it has said a beginning of it and nothing else. The rest counts as not said.
- A joined text that has the mark of its first part. This is expected unless Aim is known to give the mark of the last
  part (`Joins`).

Without marks, see `unmarked_progress`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from extproc.core.content.escapes import spelt_at
from extproc.core.marks import Joins, Marks
from extproc.core.redaction import RedactionError

MOST_TEXTS = 64
MOST_CHARACTERS = 64 * 1024
"""How much is remembered for a choice index beside the waiting texts."""

_COMPARED = 256
"""How many texts are compared with what Aim said."""

_TELLING = 4
"""The length of a text, in characters, from which on it tells something between rewritten ones."""


@dataclass(slots=True, eq=False)
class Submission:
    """A submitted text: the mark of its chunk, 0 before it is submitted; the text as Aim gets it, and its spelling in
    the event.
    """

    mark: int
    text: str
    raw: str


class MarkedProgress:
    """How far an Aim that returns marks has come."""

    __slots__ = ("_ahead", "_given", "_lost", "_marks", "_newest", "_owed", "_raw", "_whole", "mark")

    def __init__(self, marks: Marks, mark: int) -> None:
        """Begin where Aim has said all texts up to `mark`, and each was in its own place."""
        self._marks = marks
        self._owed: deque[Submission] = deque()  # not said, but their places are taken
        self._ahead = 0  # so many waiting texts were said
        self._whole = self._raw = self._given = ""  # the last text, if what Aim said of it is something else
        self._newest = 0  # the last mark that was given before Aim said that
        self._lost = 0  # unless Aim has come beyond this mark, it is unknown what is owed: it was too much
        self.mark = mark

    @property
    def is_level(self) -> bool:
        """Return whether there is nothing to remember: each text that Aim has said was in its own place."""
        return not (self._owed or self._ahead or self._given or self._lost)

    def owes(self, mark: int) -> bool:
        """Return whether the place of a text with this mark was taken, and Aim has not said it."""
        return any(text.mark == mark for text in self._owed)

    def hear(self, text: str, mark: int | None, places: Sequence[Submission], waiting: Sequence[Submission]) -> None:
        """Record a verified text that took some `places`; `waiting` are those left."""
        free = min(self._ahead, len(places))
        self._ahead -= free
        self._owed.extend(Submission(place.mark, place.text, place.raw) for place in places[free:])
        is_equal = joined(places) == text
        if self._lost and (mark is None or mark <= self._lost):
            if self._marks.joins is Joins.LAST or not is_equal:
                self._lose(self._lost)
                return
            self._owed.clear()
        self._lost = 0
        self._newest = self._marks.last
        oldest = next(self._unsaid(waiting), None)
        if mark is None:
            mark = oldest.mark if oldest is not None else self.mark
        if oldest is not None and oldest.mark <= mark:
            self._reach(text, mark, waiting)
        else:
            self._go_on(text, mark, waiting, is_equal=is_equal)
        self._limit()

    def _unsaid(self, waiting: Sequence[Submission]) -> Iterator[Submission]:
        """Yield the submitted texts that Aim has not said, oldest first."""
        for text in chain(self._owed, islice(waiting, self._ahead, None)):
            if not text.mark:
                return
            yield text

    def _reach(self, text: str, mark: int, waiting: Sequence[Submission]) -> None:
        """Aim has come to a text of this mark."""
        before: list[Submission] = []
        same: list[Submission] = []
        for unsaid in self._unsaid(waiting):
            if unsaid.mark > mark:
                break
            (same if unsaid.mark == mark else before).append(unsaid)
        self.mark = mark
        if not same:  # the mark belongs to another index
            self._say(equal_texts(text, self._unsaid(waiting)) or len(before))
            self._end()
            return
        count = len(before) + len(same)
        whole = joined(same)
        ends_here = bool(before) and text == joined(before) + whole
        more = equal_texts(text, islice(self._unsaid(waiting), len(before), None)) - len(same)
        marks = self._marks
        if marks.joins is Joins.UNKNOWN and ends_here != (more > 0):
            marks.joins = Joins.LAST if ends_here else Joins.FIRST
        if more > 0 and marks.joins is Joins.FIRST:
            self._say(count + more)
            self._end()
        elif ends_here:
            self._say(count)
            self._end()
        else:
            raw = "".join(each.raw for each in same)
            self._say(count)
            if before and text.startswith(before[0].text):
                self._newest = 0  # the joined texts are those before
            self._begin(whole, raw, text)

    def _go_on(self, text: str, mark: int, waiting: Sequence[Submission], *, is_equal: bool) -> None:
        """Aim has said something with a mark that it came to before. `is_equal` is whether it equals its places."""
        if self._given and mark == self.mark and self._whole.startswith(self._given + text):
            self._begin(self._whole, self._raw, self._given + text)
        elif self._marks.joins is Joins.LAST:
            if mark == self.mark:
                self._end()  # the text was split and rewritten: nothing of it is left
        elif is_equal:  # Aim may give all its chunks the same mark
            self._owed.clear()
            self._end()
        elif count := equal_texts(text, self._unsaid(waiting)):
            self._say(count)
            self._end()
        elif self._given:
            self._given += text
        elif (oldest := next(self._unsaid(waiting), None)) is not None:
            same = [each for each in self._unsaid(waiting) if each.mark == oldest.mark]
            self._say(len(same))
            self._begin(joined(same), "".join(each.raw for each in same), text)

    def _begin(self, whole: str, raw: str, given: str) -> None:
        if whole == given:
            self._end()
        else:
            self._whole, self._raw, self._given = whole, raw, given

    def _end(self) -> None:
        self._whole = self._raw = self._given = ""

    def _say(self, count: int) -> None:
        """Aim has said the next `count` texts."""
        owed = min(count, len(self._owed))
        for _ in range(owed):
            self._owed.popleft()
        self._ahead += count - owed

    def _limit(self) -> None:
        if len(self._raw) + len(self._given) > MOST_CHARACTERS:
            if self._whole.startswith(self._given):
                self._lose(self.mark)
            self._end()
        if len(self._owed) > MOST_TEXTS or sum(len(text.raw) for text in self._owed) > MOST_CHARACTERS:
            self._lose(0)

    def _lose(self, mark: int) -> None:
        self._lost = max(mark, self._owed[-1].mark if self._owed else 0)
        self._owed.clear()

    def left(self, waiting: Sequence[Submission]) -> tuple[int, str]:
        """Return how many waiting texts Aim has said, and the spelling of what it has not said although its place was
        taken.

        Raises RedactionError if that was too much to be remembered.
        """
        if self._lost:
            raise RedactionError("too many texts have lost their places")
        begun = self._given
        rest = ""
        if begun and self._whole.startswith(begun):
            rest = self._raw[len(begun) if self._raw == self._whole else spelt_at(self._raw, len(begun))[0] :]
        elif begun and self._marks.joins is not Joins.LAST:
            after = list(submitted(self._unsaid(waiting), self._newest))
            self._say(_joined_to(self._whole, after, begun, is_certain=self._marks.joins is Joins.FIRST))
        return self._ahead, rest + "".join(text.raw for text in self._owed)


def joined(texts: Iterable[Submission]) -> str:
    """Return the texts, joined."""
    return "".join(text.text for text in texts)


def submitted(texts: Iterable[Submission], newest: int) -> Iterator[str]:
    """Yield the texts up to a mark, but not more than are compared."""
    return (text.text for text in islice(texts, _COMPARED) if 0 < text.mark <= newest)


def equal_texts(text: str, texts: Iterable[Submission]) -> int:
    """Return how many of the first texts, joined, equal `text`; 0 if none do."""
    position = 0
    for count, each in enumerate(texts, 1):
        if not text.startswith(each.text, position):
            break
        position += len(each.text)
        if position == len(text):
            return count
    return 0


def _joined_to(whole: str, after: list[str], given: str, *, is_certain: bool) -> int:
    """Return how many of the texts `after` a text `whole` were joined to it in `given`, in which texts were rewritten.

    If one was rewritten, the others are at the beginning or at the end. If several were, only a text of some length
    tells, because short ones are everywhere. Unless `is_certain`, an end that `whole` has, too, tells nothing.
    """
    texts = [whole, *after]
    position = count = 0
    for text in texts:
        if not given.startswith(text, position):
            break
        position += len(text)
        count += 1
    if position == len(given):
        return count - 1
    last, end = count, ""
    for number in range(count + 1, len(texts)):
        end += texts[number]
        if len(end) >= len(given) - position:
            break
        if given.endswith(end) and (is_certain or count or not whole.endswith(end)):
            last = number
    if last == count:
        for number in range(count + 1, len(texts)):
            found = given.find(texts[number], position) if len(texts[number]) >= _TELLING else -1
            if found >= 0:
                position, last = found + len(texts[number]), number
        last += last > count and position < len(given)
    return min(last, len(after))
