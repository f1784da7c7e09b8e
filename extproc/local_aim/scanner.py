"""Redacts a text that arrives in pieces; does no I/O.

A `Scanner` receives text in pieces and returns the decided part, redacted. It holds text that could still be part
of a value: usually the last word, until the next one begins. For blocking and anonymizing policies the released
text is always a beginning of the whole text's redaction, for any split. A monitoring policy holds no text. After a
match of a blocking policy nothing more is released.

Overlapping matches become one redaction, so that no part of either remains. It is named after the match that begins
first, then the longest, then by the order of the policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extproc.local_aim.detector import CONTEXT, Detector
from extproc.local_aim.placeholders import Placeholders


@dataclass(frozen=True, slots=True)
class Piece:
    """A released part: characters `start` to `end` of the scanned text, and their redacted text."""

    start: int
    end: int
    text: str
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    detector: Detector


class Scanner:
    """Scans one text. Offsets are characters from its beginning."""

    def __init__(self, detectors: Sequence[Detector], placeholders: Placeholders) -> None:
        self._detectors = detectors
        self._placeholders = placeholders
        self._positions = [0] * len(detectors)  # for each detector: the text is decided up to here
        self._kept = ""  # undecided characters at the end, and some before them for lookbehind
        self._offset = 0  # the offset of `_kept`
        self._spans: list[_Span] = []  # redactions that wait for release
        self.released = 0
        self.hits: list[Detector] = []  # one entry for each match of any action
        self.blocked = False

    @property
    def length(self) -> int:
        """The number of characters received."""
        return self._offset + len(self._kept)

    @property
    def holds(self) -> bool:
        """Whether text is held."""
        return self.released < self.length

    def feed(self, text: str) -> list[Piece]:
        """Add text and return the newly decided pieces."""
        return self._scan(text, final=False)

    def finish(self, text: str = "") -> list[Piece]:
        """Add text, decide everything as if nothing followed, and return it. More text may still follow."""
        return self._scan(text, final=True)

    def _scan(self, text: str, *, final: bool) -> list[Piece]:
        self._kept += text
        limit = self.length
        for order, detector in enumerate(self._detectors):
            at, spans = detector.advance(self._kept, self._positions[order] - self._offset, final=final)
            self._positions[order] = self._offset + at
            self.hits += [detector] * len(spans)
            if detector.action != "monitor":
                limit = min(limit, self._positions[order])
            if detector.action == "anonymize":
                self._spans += [_Span(self._offset + start, self._offset + end, detector) for start, end in spans]
            elif detector.action == "block" and spans:
                self.blocked = True
        pieces = [] if self.blocked else self._release(limit)
        self._forget()
        return pieces

    def _release(self, limit: int) -> list[Piece]:
        # The sort is stable: of two equal spans the earlier policy comes first.
        self._spans.sort(key=lambda span: (span.start, -span.end))
        pieces: list[Piece] = []
        while self._spans and (span := self._spans[0]).start < limit:
            end, count = self._overlap()
            if end > limit:  # an open match may overlap its end
                limit = span.start
                break
            self._pass(span.start, pieces)
            value = self._between(span.start, end)
            name = self._placeholders.of(span.detector.entity, span.detector.canonical(value))
            pieces.append(Piece(span.start, end, name, redacted=True))
            self.released = end
            del self._spans[:count]
        self._pass(limit, pieces)
        return pieces

    def _overlap(self) -> tuple[int, int]:
        """Return the end of the first span and its overlapping spans, and their number."""
        end = self._spans[0].end
        for count, span in enumerate(self._spans):
            if count and span.start >= end:
                return end, count
            end = max(end, span.end)
        return end, len(self._spans)

    def _pass(self, end: int, pieces: list[Piece]) -> None:
        if end > self.released:
            pieces.append(Piece(self.released, end, self._between(self.released, end)))
            self.released = end

    def _between(self, start: int, end: int) -> str:
        return self._kept[start - self._offset : end - self._offset]

    def _forget(self) -> None:
        unneeded = min([self.released, *self._positions]) - CONTEXT - self._offset
        if unneeded > 0:
            self._kept = self._kept[unneeded:]
            self._offset += unneeded
