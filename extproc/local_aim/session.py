"""A websocket session: receives the chunks of one streamed answer, returns verified chunks; does no I/O.

Each frame in is a bare `chat.completion.chunk`; the last is {"done": true}. Frames out are {"verified_chunk": ...},
{"blocking_message": ...} or {"done": true}. Text is held for each `choices[].index` (see `scanner`), so that a value
split over chunks is found before any of it is released.

Each received chunk gives one verified chunk, in order within its index: the chunk itself if its text is unchanged, else
the chunk with another text. All its other fields stay, and with them the sender's mark, by which the sender finds the
text that was rewritten. If a value is split over chunks, the first chunk carries the placeholder and the text after the
value. The others are dropped: they would carry no text, or a rest that a sender could mistake for another text.

A text is decided without more input when no more is expected: at `finish_reason`, and after QUIET_CHUNKS with text
for other indexes. The sidecar sends reasoning, content and tool calls under separate indexes, and the last word of one
must not hold the whole next one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extproc.local_aim.detector import Detector
from extproc.local_aim.judge import Judge, Outcome
from extproc.local_aim.scanner import Piece, Scanner

# More than the parallel choices that clients ask for, and about a second of a model's output.
QUIET_CHUNKS = 32

Frame = dict[str, Any]


class BadFrame(Exception):
    """A frame that is neither a chunk nor {"done": true}."""


@dataclass(slots=True, eq=False)
class _Text:
    """The text of one choice of one chunk, characters `start` to `end` of its place."""

    original: str
    start: int
    end: int
    shown: list[str] = field(default_factory=list)
    until: int = 0  # it is decided when its place is released up to here
    joined: bool = False  # a value from an earlier text reaches into it, and its rest is shown there


@dataclass(slots=True, eq=False)
class _Place:
    """One choice index: its scanner and its undecided texts."""

    scanner: Scanner
    texts: list[_Text] = field(default_factory=list)
    shown_in: _Text | None = None  # the text that shows the pieces released now
    quiet_since: int = 0

    def spread(self, pieces: list[Piece]) -> None:
        """Assign released pieces to the texts that they came from."""
        for piece in pieces:
            if piece.redacted:
                self._spread_redaction(piece)
            else:
                self._spread_plain(piece)
        self.texts = [text for text in self.texts if text.end > self.scanner.released]

    def _spread_plain(self, piece: Piece) -> None:
        for text in self.texts:
            start, end = max(piece.start, text.start), min(piece.end, text.end)
            if start < end:
                self._show(text, piece.text[start - piece.start : end - piece.start])

    def _spread_redaction(self, piece: Piece) -> None:
        touched = [text for text in self.texts if text.start < piece.end and text.end > piece.start]
        first, rest = touched[0], touched[1:]
        if rest:
            # Its placeholder makes it unmistakable, so it can show itself again.
            first.joined = False
        self._show(first, piece.text)
        assert self.shown_in is not None
        for text in rest:
            text.joined = True
            self.shown_in.until = max(self.shown_in.until, text.end)

    def _show(self, text: _Text, shown: str) -> None:
        if not text.joined:
            self.shown_in = text
        assert self.shown_in is not None
        self.shown_in.shown.append(shown)


@dataclass(slots=True, eq=False)
class _Entry:
    """A received chunk; `texts` by position in `choices`, `places` by index."""

    chunk: Frame
    texts: dict[int, tuple[_Place, _Text]]
    places: set[int]

    def decided(self) -> bool:
        return all(place.scanner.released >= text.until for place, text in self.texts.values())

    def verified(self) -> Frame | None:
        """Return the chunk to send, or None if nothing of it remains."""
        shown = {at: "".join(text.shown) for at, (_, text) in self.texts.items()}
        if all(shown[at] == text.original for at, (_, text) in self.texts.items()):
            return self.chunk
        if not any(shown.values()):
            return None
        choices = []
        for at, choice in enumerate(self.chunk["choices"]):
            if at not in shown or shown[at] == self.texts[at][1].original:
                choices.append(choice)
            elif shown[at]:
                # logprobs would reveal the redacted tokens
                rewritten = {key: value for key, value in choice.items() if key != "logprobs"}
                choices.append({**rewritten, "delta": {**choice["delta"], "content": shown[at]}})
        return {**self.chunk, "choices": choices}


class Session:
    """Verifies one stream. `keep_text` keeps the original texts for an observer."""

    def __init__(self, detectors: Sequence[Detector], *, keep_text: bool = False) -> None:
        self._judge = Judge(detectors)
        self._places: dict[int, _Place] = {}
        self._waiting: list[_Entry] = []
        self._texts_seen = 0
        self._keep_text = keep_text
        self._kept: dict[int, list[str]] = {}
        self.closed = False

    def receive(self, frame: str) -> list[Frame]:
        """Process one frame and return the frames to send; `closed` is set after the last. Raises BadFrame."""
        chunk = _decode(frame)
        if chunk == {"done": True}:
            return self._finish()
        entry = self._admit(chunk)
        self._finish_quiet()
        if self._blocked():
            return self._block(chunk)
        self._waiting.append(entry)
        return self._verified()

    def outcome(self) -> Outcome:
        """Return the outcome so far."""
        return self._judge.outcome()

    def text(self) -> str:
        """Return the received texts by index, one on each line; empty unless `keep_text`."""
        return "\n".join("".join(self._kept[index]) for index in sorted(self._kept))

    def _admit(self, chunk: Frame) -> _Entry:
        entry = _Entry(chunk, {}, set())
        for at, (index, content, last) in enumerate(_choices(chunk)):
            entry.places.add(index)
            place = self._places.get(index)
            if place is None:
                place = self._places[index] = _Place(self._judge.scanner())
            if content:
                self._texts_seen += 1
                place.quiet_since = self._texts_seen
                start = place.scanner.length
                text = _Text(content, start, start + len(content), until=start + len(content))
                entry.texts[at] = place, text
                place.texts.append(text)
                if self._keep_text:
                    self._kept.setdefault(index, []).append(content)
            if last:
                place.spread(place.scanner.finish(content))
            elif content:
                place.spread(place.scanner.feed(content))
        return entry

    def _finish_quiet(self) -> None:
        for place in self._places.values():
            if place.scanner.holds and self._texts_seen - place.quiet_since >= QUIET_CHUNKS:
                place.spread(place.scanner.finish())

    def _finish(self) -> list[Frame]:
        for place in self._places.values():
            place.spread(place.scanner.finish())
        if self._blocked():
            return self._block(None)
        self.closed = True
        return [*self._verified(), {"done": True}]

    def _blocked(self) -> bool:
        return any(place.scanner.blocked for place in self._places.values())

    def _block(self, chunk: Frame | None) -> list[Frame]:
        self.closed = True
        self._waiting.clear()
        frame: Frame = {"blocking_message": self.outcome().message}
        if chunk is not None:
            frame["first_blocked_chunk"] = chunk
        return [frame]

    def _verified(self) -> list[Frame]:
        """Remove and return decided entries, each after the earlier ones of its indexes."""
        frames: list[Frame] = []
        waiting: list[_Entry] = []
        held: set[int] = set()
        for entry in self._waiting:
            # A chunk without choices (usage) belongs to no index and waits for all earlier chunks.
            behind = not held.isdisjoint(entry.places) or (bool(held) and not entry.places)
            if behind or not entry.decided():
                waiting.append(entry)
                held |= entry.places
            elif (verified := entry.verified()) is not None:
                frames.append({"verified_chunk": verified})
        self._waiting = waiting
        return frames


def _decode(frame: str) -> Frame:
    try:
        value = json.loads(frame)
    except (ValueError, RecursionError):
        raise BadFrame("not JSON") from None
    if not isinstance(value, dict) or ("done" in value and value != {"done": True}):
        raise BadFrame("neither a chunk nor done")
    return value


def _choices(chunk: Frame) -> list[tuple[int, str, bool]]:
    """Return for each choice its index, its text and whether the choice ends with it."""
    choices = chunk.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise BadFrame("choices are not a list of objects")
    read = []
    for choice in choices:
        delta = choice.get("delta") or {}
        content = delta.get("content") if isinstance(delta, dict) else 0
        index = choice.get("index", 0)
        if not isinstance(content, str | None) or not isinstance(index, int):
            raise BadFrame("a choice without a readable index or delta")
        read.append((index, content or "", choice.get("finish_reason") is not None))
    return read
