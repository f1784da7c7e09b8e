"""Judges the texts of one analysis or session: the policies that match, the action, and the redacted texts.

A `Judge` serves one analysis or one session, because its placeholders and matches belong to one exchange.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from extproc.local_aim.chat import Message, rewrite
from extproc.local_aim.detector import Action, Detector
from extproc.local_aim.placeholders import Placeholders
from extproc.local_aim.scanner import Scanner

_STRICTEST_FIRST: tuple[Action, ...] = ("block", "anonymize", "monitor")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an analysis.

    `policy` decided it and `message` is its text; both are None on allow. `counts` holds the number of matches of
    each matching policy, the strictest policies first.
    """

    action: Literal["allow"] | Action
    policy: str | None
    message: str | None
    counts: dict[str, int]
    actions: dict[str, Action]

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the matching policies."""
        return tuple(self.counts)


@dataclass(frozen=True, slots=True)
class Analysis:
    """A finished analysis, for an observer in this process.

    `action` is the answer: allow, monitor, anonymize or block. `milliseconds` is the time of judging without
    waiting. `messages` were received. `text` is the judged output: an answer, or all texts of a session by choice
    index, one on each line. Both hold the users' own words: never log them.
    """

    call_id: str
    hook: str
    form: Literal["detect", "firewall", "cato"]
    action: Literal["allow"] | Action
    policies: tuple[str, ...]
    milliseconds: float
    messages: tuple[Message, ...] = ()
    text: str = ""


Observer = Callable[[Analysis], None]


class Judge:
    """Judges the texts of one exchange with the detectors of one direction."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = detectors
        self._placeholders = Placeholders()
        self._scanners: list[Scanner] = []

    def scanner(self) -> Scanner:
        """Begin a text that arrives in pieces; its matches count in this judge's outcome."""
        scanner = Scanner(self._detectors, self._placeholders)
        self._scanners.append(scanner)
        return scanner

    def text(self, text: str) -> str:
        """Judge a whole text and return it redacted; after a blocking match, return it unchanged."""
        scanner = self.scanner()
        pieces = scanner.finish(text)
        return text if scanner.blocked else "".join(piece.text for piece in pieces)

    def message(self, message: Message) -> Message:
        """Judge every text of a chat message and return the message redacted; equal to it if nothing matched."""
        return rewrite(message, self.text)

    def outcome(self) -> Outcome:
        """Return the outcome of all texts so far."""
        hits = [hit for scanner in self._scanners for hit in scanner.hits]
        hits.sort(key=lambda hit: _STRICTEST_FIRST.index(hit.action))
        counts = Counter(hit.policy for hit in hits)
        actions: dict[str, Action] = {hit.policy: hit.action for hit in hits}
        if not hits:
            return Outcome("allow", None, None, {}, {})
        first = hits[0]
        message = first.message
        if message is None and first.action == "block":
            message = f'Blocked by the policy "{first.policy}".'
        return Outcome(first.action, first.policy, message, dict(counts), actions)
