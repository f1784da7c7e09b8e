"""Subtitles (SubRip and WebVTT): one text, in which a redaction may change nothing but what is said.

Both are blocks of lines. A cue has its time in a line with `-->`, which a line with its number or name may precede.
Sources: the W3C's WebVTT, 4.1; SubRip has no specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from extproc.core.content.document import Edit, Path, PlainText
from extproc.core.errors import MalformedBody

_TIME = re.compile(r"(?:\d+:)?\d+:\d+[.,]\d+[ \t]+-->[ \t]+(?:\d+:)?\d+:\d+[.,]\d+").match
_ENDS = re.compile(r"\r\n|\r|\n")


def are_subtitles(text: str) -> bool:
    """Return whether a line of `text` is the time of a cue."""
    return "-->" in text and any(map(_TIME, _ENDS.split(text)))


class Subtitles(PlainText):
    """Subtitles as a document; its only text is the whole."""

    __slots__ = ()

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the new text at the path `()`; raise MalformedBody if it has other cues, or its lines moved."""
        text = super().rewrite(edits)
        if _frame(text) != _frame(self.text):
            raise MalformedBody("a redaction changes the cues of subtitles")
        return text


def _frame(text: str) -> list[str | None]:
    """Return the lines that hold the cues together, and None for each line of what is said.

    A text that Aim emptied has no line at all. It fits nowhere, because every cue is gone.
    """
    lines = _ENDS.split(text)
    frame: list[str | None] = [line if _TIME(line) or not line.strip() else None for line in lines]
    for number, line in enumerate(lines):
        starts = number == 0 or not lines[number - 1].strip()
        if starts and number + 1 < len(lines) and _TIME(lines[number + 1]):
            frame[number] = line  # the number or the name of a cue
    if lines[0].lstrip("\ufeff").startswith("WEBVTT"):
        frame[0] = lines[0]
    return frame
