"""Says in words how an Aim treats the chunks of a session: marks, look-ahead, merged and split chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from extproc.check.finding import Finding, Severity, error, warning
from extproc.config.settings import Settings
from extproc.core.chunk import MARK

_ANSWER = (
    "The weather was fine, so they all went for a long walk by the sea. After an hour it began to rain, and everybody "
    "ran back to the house. There they drank hot tea, read old books, and listened to the wind."
)
WORDS = tuple(f"{word} " for word in _ANSWER.split())
"""The texts of the submitted chunks, whose marks count from 1. No policy should find anything in them."""

_ENDS = tuple(accumulate(map(len, WORDS)))
"""Where each text ends in the whole answer."""

LENGTH = _ENDS[-1]
"""The length of the whole answer, in characters."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One verified chunk, and its text."""

    text: str
    chunk: Mapping[str, Any]


def findings_on(heard: Sequence[Heard], early: int, settings: Settings, where: str) -> list[Finding]:
    """Return how Aim treats chunks; the first `early` of those `heard` came before Aim was told the end."""
    if "".join(each.text for each in heard) != "".join(WORDS):
        what = "Aim changes the text of a harmless answer, so the probe cannot tell how it treats chunks"
        return [warning(where, what, "use a key whose policy does not change small talk")]
    chunks = [each for each in heard if each.text]
    ends = tuple(accumulate(len(each.text) for each in chunks))
    return [
        _marks(chunks, ends, settings, where),
        _look_ahead(sum(len(each.text) for each in heard[:early]), settings, where),
        _bounds(ends, where),
    ]


# -- marks -----------------------------------------------------------------------------------------------------------


def _marks(chunks: Sequence[Heard], ends: Sequence[int], settings: Settings, where: str) -> Finding:
    marks = [each.chunk.get(MARK) for each in chunks]
    covered = list(_covered(ends))
    if all(mark is None for mark in marks):
        return _unmarked(
            settings, where, f"Aim drops unknown keys of chunks, and with them the sidecar's mark ({MARK})"
        )
    if any(mark is not None and (type(mark) is not int or not 1 <= mark <= len(WORDS)) for mark in marks):
        what = f"Aim changes the sidecar's mark ({MARK}) in verified chunks"
        return error(where, what, "every streamed answer fails: report it to the makers of aim-extproc")
    if any(mark is None for mark in marks):
        return _unmarked(settings, where, f"Aim returns the sidecar's mark ({MARK}) with some chunks only")
    if not all(first <= mark <= last for mark, (first, last) in zip(marks, covered, strict=True) if mark is not None):
        return _unmarked(settings, where, f"Aim returns the sidecar's mark ({MARK}) with the text of another chunk")
    joined = [(mark, each) for mark, each in zip(marks, covered, strict=True) if each[0] != each[1]]
    said = f"Aim keeps unknown keys of chunks: verified chunks have the sidecar's mark ({MARK})"
    if joined and all(mark == last for mark, (_, last) in joined):
        said += ", merged ones that of the last chunk"
    elif joined and all(mark == first for mark, (first, _) in joined):
        said += ", merged ones that of the first chunk"
    return Finding(Severity.OK, where, f"{said}, so each text stays in the event that it came from")


def _unmarked(settings: Settings, where: str, what: str) -> Finding:
    what += ", so a text may leave in an earlier event than its own"
    names = [name for name, profile in settings.profiles.items() if profile.failure_mode_allow.response]
    if not names:
        return Finding(
            Severity.OK, where, f"{what}; while answers fail closed (failure_mode_allow), nothing else follows"
        )
    advice = (
        f"when an answer of the profile {', '.join(names)} fails open, texts may be missing or repeated: set "
        "failure_mode_allow.response: false, or see docs/reliability.md, What cannot be known"
    )
    return warning(where, what, advice)


def _covered(ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield, for each verified chunk, the marks of the first and the last chunk that its text came from."""
    start = 0
    for end in ends:
        yield _mark_at(start), _mark_at(end - 1)
        start = end


def _mark_at(position: int) -> int:
    return next(mark for mark, end in enumerate(_ENDS, 1) if position < end)


# -- look-ahead ------------------------------------------------------------------------------------------------------


def _look_ahead(verified: int, settings: Settings, where: str) -> Finding:
    held = sum(end > verified for end in _ENDS)
    if not held:
        return Finding(Severity.OK, where, "Aim does not look ahead: it holds no chunk back, so no setting matters")
    seconds = settings.aim.verdict_timeout_seconds
    if held == len(WORDS):
        return warning(
            where,
            f"Aim holds all {held} chunks back until the end of the answer",
            "clients get a stream at once, when it has ended: aim.verdict_timeout_seconds "
            f"({seconds:g}) must be longer than the longest answer takes, limits.held_bytes must hold it, and "
            "stream_ping_seconds keeps clients from giving up",
        )
    return warning(
        where,
        f"Aim looks ahead: it holds the last {held} of {len(WORDS)} short chunks back until more text or the end comes",
        f"aim.verdict_timeout_seconds ({seconds:g}) must be longer than the longest pause of your models within an "
        "answer, because the held text waits for so long",
    )


# -- merged and split chunks -----------------------------------------------------------------------------------------


def _bounds(ends: Sequence[int], where: str) -> Finding:
    merges, splits = not set(_ENDS) <= set(ends), not set(ends) <= set(_ENDS)
    if not merges and not splits:
        return Finding(Severity.OK, where, "Aim returns chunk by chunk: it neither merges nor splits chunks")
    does = " and ".join(name for name, holds in (("merges", merges), ("splits", splits)) if holds)
    what = f"Aim {does} chunks: it sent {len(ends)} for {len(WORDS)}"
    follows = "the text stays the same, but arrives in fewer steps" if merges else "the text stays the same"
    return Finding(Severity.OK, where, f"{what}; {follows}, and no setting matters")
