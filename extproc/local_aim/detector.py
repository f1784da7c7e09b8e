"""Finds one policy's matches in a text that is still growing.

The result does not depend on how the text is split into pieces. `advance` moves a position forward over decided
text: no match begins there, whatever follows. It stops at the first place from which a match could still begin or
grow. The `regex` package answers this exactly: `fullmatch(partial=True)` succeeds if the text from there to the end
is the beginning of a match. A match is searched in a window of MAX_MATCH characters, so that an open-ended
expression cannot hold text forever.

Two constructs may wrongly see the end of the text: `$` or `\\Z` in a match longer than the window, and `\\B` as the
last element. Lookbehind sees CONTEXT characters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import regex

Action = Literal["block", "anonymize", "monitor"]
Direction = Literal["input", "output"]
Refine = Callable[[str], tuple[int, int] | None]

# Longer than any well-known pattern, such as an e-mail address of 64 + 1 + 6 labels or an IBAN with spaces.
MAX_MATCH = 512
# How many characters before the first undecided one are kept for lookbehind.
CONTEXT = 64


def whole(text: str) -> tuple[int, int] | None:
    """Accept the whole candidate."""
    return 0, len(text)


@dataclass(frozen=True, slots=True)
class Detector:
    """One policy, ready to search.

    `refine` checks a candidate of `pattern`, for example its checksum, and returns the span that counts, or None.
    `canonical` maps spellings of one value to one key, so that they share a placeholder.
    """

    policy: str
    action: Action
    entity: str
    pattern: regex.Pattern[str]
    message: str | None = None
    refine: Refine = whole
    canonical: Callable[[str], str] = str.casefold

    def advance(self, text: str, at: int, *, final: bool) -> tuple[int, list[tuple[int, int]]]:
        """Search `text` from `at` and return the first undecided position and the spans found before it.

        `final` says that nothing follows, so everything is decided.
        """
        spans: list[tuple[int, int]] = []
        while True:
            candidate = self.pattern.search(text, at)
            start = len(text) if candidate is None else candidate.start()
            if not final and (open_at := self._open(text, at, start)) is not None:
                return open_at, spans
            if start == len(text):  # no match, or an empty one at the end
                return start, spans
            span = self._span(text, start)
            if span is None:
                at = start + 1
            else:
                spans.append(span)
                at = span[1]

    def _open(self, text: str, at: int, to: int) -> int | None:
        """Return the first place from `at` to `to`, inclusive, at which a match may still grow."""
        # Try each place: search(partial=True) prefers a whole match to an earlier partial one.
        for start in range(max(at, len(text) - MAX_MATCH + 1), min(to + 1, len(text))):
            if self.pattern.fullmatch(text, start, partial=True) is not None:
                return start
        return None

    def _span(self, text: str, start: int) -> tuple[int, int] | None:
        match = self.pattern.match(text, start, min(len(text), start + MAX_MATCH))
        if match is None or not match.group():
            return None
        refined = self.refine(match.group())
        if refined is None or refined[0] >= refined[1]:
            return None
        return start + refined[0], start + refined[1]
