"""Judges what clients got: how each exchange ended, and whether an invariant was broken. It has no clock and no I/O."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.envoy.apis import Api
from tests.soak import journal
from tests.soak.client import Transcript
from tests.soak.script import FORBIDDEN, MARK, PRIVATE, Script

_POLICY = "content_policy_violation"
_CODES = (
    _POLICY,
    "guardrail_unavailable",
    "guardrail_unreadable_response",
    "guardrail_overloaded",
    "redaction_failed",
)
_MESSAGE = "what is said to the client"


class Ending(StrEnum):
    """The end of an exchange, as its client sees it."""

    COMPLETE = "complete"
    """The client got every byte as the model and Aim sent it."""
    BLOCKED = "blocked"
    """Aim blocked it: a 400, or the last event."""
    REFUSED = "refused"
    """It was refused without a verdict, or before there was text to judge: an error status, or the last event."""
    CUT = "cut"
    """The connection ended before the answer, or was never opened."""
    LEFT = "left"
    """The client left early."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The end of an exchange, its problems (`wrongs`) as sentences, and the marks that its client saw."""

    ending: Ending
    wrongs: tuple[str, ...]
    marks: frozenset[str]


def judge(script: Script, got: Transcript) -> Judgement:
    """Judge the transcript of the client of `script`."""
    wrongs: list[str] = []
    try:
        text = got.text
    except zlib.error:
        text = b""
        wrongs.append("the body is not in its content-encoding")
    if got.is_stuck:
        wrongs.append("it did not end in time")
    wrongs += [f"the client saw {word}" for word in (FORBIDDEN, PRIVATE) if word.encode() in text]
    if not got.status or not got.is_whole:
        # Only a status 200 can be the beginning of the answer.
        if got.status == 200 and not b"".join(script.expected).startswith(text) and not _is_cut_ending(script, text):
            wrongs.append("what came before the cut is not how the answer begins")
        ending = Ending.LEFT if got.has_left else Ending.CUT
    elif got.status == 200:
        ending = _whole(script, text, wrongs)
    else:
        ending = _refusal(script, got, text, wrongs)
    marks = frozenset(mark.decode() for mark in MARK.findall(text)) if script.api is not None else frozenset()
    return Judgement(ending, tuple(wrongs), marks)


def _whole(script: Script, text: bytes, wrongs: list[str]) -> Ending:
    """Judge an answer that is whole for HTTP."""
    expected = script.expected
    if text == b"".join(expected) and not script.is_refused:
        return Ending.COMPLETE
    position, count = _common(expected, text)
    rest = text[position:]
    if script.api is not None and script.is_stream and (ending := _ending(script.api, rest, count)) is not None:
        return ending
    if not rest:
        wrongs.append(f"a stream that ended after {count} of {len(expected)} events was presented as complete")
    elif any(event in rest for event in expected[:count]):
        wrongs.append(f"an event came twice, the {count} first ones being in order")
    elif any(event in rest for event in expected[count + 1 :]):
        wrongs.append(f"event {count} of {len(expected)} is missing or changed")
    else:
        wrongs.append(f"after {count} of {len(expected)} events came something else")
    return Ending.COMPLETE


def _common(expected: list[bytes], text: bytes) -> tuple[int, int]:
    """Return how much of a text is as expected, in bytes and in events."""
    position = 0
    for count, event in enumerate(expected):
        if not text.startswith(event, position):
            return position, count
        position += len(event)
    return position, len(expected)


def _ending(api: Api, rest: bytes, sequence: int) -> Ending | None:
    """Return the end of a stream whose last bytes are `rest`; None if they are not a refusal."""
    line = next((line for line in rest.splitlines() if line.startswith(b"data: {")), None)
    if line is None:
        return None
    try:
        said = json.loads(line.removeprefix(b"data: "))
    except ValueError:
        return None
    error = said["error"] if isinstance(said.get("error"), dict) else said
    message, code = str(error.get("message")), error.get("code")
    for status in (400, 502, 503):
        if rest == api.ending(status, str(code), message, sequence):
            # The errors of some APIs have no field for the sidecar's code.
            is_block = code == _POLICY if isinstance(code, str) else status == 400
            return Ending.BLOCKED if is_block else Ending.REFUSED
    return None


def _is_cut_ending(script: Script, text: bytes) -> bool:
    """Return whether the text was cut within the refusal at the end of a stream."""
    if script.api is None or not script.is_stream:
        return False
    position, count = _common(script.expected, text)
    rest = text[position:]
    for status, code in itertools.product((400, 502, 503), _CODES):
        before, _, _ = script.api.ending(status, code, _MESSAGE, count).partition(_MESSAGE.encode())
        if before.startswith(rest) or (rest.startswith(before) and not MARK.search(rest)):
            return True
    return False


def _refusal(script: Script, got: Transcript, text: bytes, wrongs: list[str]) -> Ending:
    """Judge an answer whose status is an error."""
    if MARK.search(text):
        wrongs.append(f"a {got.status} holds a part of the answer")
    if got.status >= 500:
        return Ending.REFUSED
    try:
        error = json.loads(text)["error"]
        message, code = error["message"], error.get("code")
    except (ValueError, KeyError, TypeError):
        wrongs.append(f"a {got.status} that is no refusal")
        return Ending.REFUSED
    if script.api is None or json.loads(text) != script.api.refusal(got.status, str(code), message):
        wrongs.append(f"a {got.status} that is not in the API's shape")
    return Ending.BLOCKED if got.status == 400 else Ending.REFUSED


@dataclass(frozen=True, slots=True)
class Span:
    """The time in which a fault had an effect. A `harmless` fault does not explain failures."""

    name: str
    began: float
    ended: float
    is_harmless: bool = False


@dataclass(slots=True)
class Tally:
    """The results of all exchanges of a soak."""

    endings: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))
    wrongs: list[str] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    failures: list[tuple[str, float, float]] = field(default_factory=list)
    """Exchanges that failed although their script does not explain it: a description, and their times."""
    longest: float = 0.0
    """The most seconds that an exchange took longer than its script."""

    def add(self, script: Script, got: Transcript) -> Ending:
        """Add an exchange; return its end."""
        judgement = judge(script, got)
        kind = f"{script.number} ({script.api.name if script.api else 'unmatched'}{' stream' * script.is_stream})"
        self.endings[judgement.ending] += 1
        self.wrongs += [f"exchange {kind}: {wrong}" for wrong in judgement.wrongs]
        self.marks |= judgement.marks
        self.longest = max(self.longest, got.ended - got.began - script.seconds)
        if judgement.ending not in (Ending.COMPLETE, Ending.LEFT) and not script.is_refused:
            self.failures.append((f"exchange {kind}: {judgement.ending}, {got.status}", got.began, got.ended))
        return judgement.ending

    def unexplained(self, spans: Iterable[Span]) -> list[str]:
        """Return the failures that no fault can have caused: no fault overlaps with the exchange."""
        known = [span for span in spans if not span.is_harmless]
        return [
            f"{what} without a fault"
            for what, began, ended in self.failures
            if not any(span.began <= ended and began <= span.ended for span in known)
        ]

    def unverified(self, noted: Mapping[str, set[str]]) -> list[str]:
        """Return the texts that clients or the model got although Aim never verified them."""
        verified = noted[journal.VERIFIED]
        found = [f"the client saw <{mark}>, which Aim never verified" for mark in sorted(self.marks - verified)]
        asked = noted[journal.RECEIVED] - verified
        found += [f"the model was asked <{mark}>, which Aim never verified" for mark in sorted(asked)]
        leaked = sorted(noted[journal.LEAKED])
        return found + [f"the model was asked what Aim blocked or redacted, in exchange {number}" for number in leaked]
