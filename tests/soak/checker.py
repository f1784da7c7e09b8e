"""Judges what clients got: how each exchange ended, and whether an invariant was broken. It has no clock and no I/O."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tests.envoy.apis import Api
from tests.soak import journal
from tests.soak.client import Transcript
from tests.soak.openings import REQUEST, RESPONSE, Openings
from tests.soak.script import BARE, FORBIDDEN, MARK, PRIVATE, Script

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
    bare: frozenset[str] = frozenset()
    """The marks of the texts that the client saw with a word for Aim. Where the sidecar fails open it may."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The events that a client may get, and whether it may get all of them as a complete answer."""

    events: list[bytes]
    is_whole: bool


def judge(script: Script, got: Transcript, *, is_open: bool = False) -> Judgement:
    """Judge the transcript of the client of `script`; `is_open` says that the sidecar fails open."""
    if not is_open:
        return _judge(script, got, _Answer(script.expected, not script.is_refused))
    # What Aim has not judged leaves as it came. Only one text has a word for Aim, so it leaves in one of two ways.
    is_cut = script.cut_after is not None
    redacted = _Answer(script.expected, not is_cut and script.answer_word != FORBIDDEN)
    as_it_came = _Answer(script.events, not is_cut)
    try:
        text = got.text
    except zlib.error:
        return _judge(script, got, redacted)
    if script.answer_word:
        answers = (redacted, as_it_came)
        likelier = max(answers, key=lambda answer: _shared(b"".join(answer.events), text))
    else:
        likelier = redacted  # both are the same
    return _without_words(_judge(script, got, likelier), text)


def _shared(one: bytes, other: bytes) -> int:
    """Return how many bytes two texts have in common at their beginning."""
    differ = (at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return next(differ, min(len(one), len(other)))


def _without_words(judgement: Judgement, text: bytes) -> Judgement:
    """Return a judgement in which words for Aim are no problem if they are where the script has put them."""
    bare = BARE.findall(text)
    if len(bare) != sum(text.count(word.encode()) for word in (FORBIDDEN, PRIVATE)):
        return judgement
    wrongs = tuple(wrong for wrong in judgement.wrongs if wrong not in _SEEN.values())
    return replace(judgement, wrongs=wrongs, bare=frozenset(mark.decode() for mark in bare))


_SEEN = {word: f"the client saw {word}" for word in (FORBIDDEN, PRIVATE)}


def _judge(script: Script, got: Transcript, answer: _Answer) -> Judgement:
    wrongs: list[str] = []
    try:
        text = got.text
    except zlib.error:
        text = b""
        wrongs.append("the body is not in its content-encoding")
    if got.is_stuck:
        wrongs.append("it did not end in time")
    wrongs += [said for word, said in _SEEN.items() if word.encode() in text]
    if not got.status or not got.is_whole:
        # Only a status 200 can be the beginning of the answer.
        begins = b"".join(answer.events).startswith(text) or _is_cut_ending(script, answer, text)
        if got.status == 200 and not begins:
            wrongs.append("what came before the cut is not how the answer begins")
        ending = Ending.LEFT if got.has_left else Ending.CUT
    elif got.status == 200:
        ending = _whole(script, answer, text, wrongs)
    else:
        ending = _refusal(script, got, text, wrongs)
    marks = frozenset(mark.decode() for mark in MARK.findall(text)) if script.api is not None else frozenset()
    return Judgement(ending, tuple(wrongs), marks)


def _whole(script: Script, answer: _Answer, text: bytes, wrongs: list[str]) -> Ending:
    """Judge an answer that is whole for HTTP."""
    expected = answer.events
    if text == b"".join(expected) and answer.is_whole:
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


def _is_cut_ending(script: Script, answer: _Answer, text: bytes) -> bool:
    """Return whether the text was cut within the refusal at the end of a stream."""
    if script.api is None or not script.is_stream:
        return False
    position, count = _common(answer.events, text)
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
    spares_streams: bool = False
    """Whether it does not affect a stream whose session is open."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exchange that failed: a description, its times, and whether it was a stream of which text had arrived."""

    what: str
    began: float
    ended: float
    was_running: bool = False


_NONE = Openings()


@dataclass(slots=True)
class Tally:
    """The results of all exchanges of a soak."""

    is_open: bool = False
    """Whether the sidecar fails open."""
    endings: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))
    wrongs: list[str] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    """The marks of the texts that clients saw with a word for Aim."""
    too_large: set[int] = field(default_factory=set)
    """The exchanges whose request is too large."""
    large: dict[int, float] = field(default_factory=dict)
    """When the large answers that are complete had arrived."""
    failures: list[Failure] = field(default_factory=list)
    """Exchanges that failed although their script does not explain it."""
    longest: float = 0.0
    """The most seconds that an exchange took longer than its script."""

    def add(self, script: Script, got: Transcript) -> Ending:
        """Add an exchange; return its end."""
        judgement = judge(script, got, is_open=self.is_open)
        kind = f"{script.number} ({script.api.name if script.api else 'unmatched'}{' stream' * script.is_stream})"
        self.endings[judgement.ending] += 1
        self.wrongs += [f"exchange {kind}: {wrong}" for wrong in judgement.wrongs]
        self.marks |= judgement.marks
        self.bare |= judgement.bare
        if script.is_too_large:
            self.too_large.add(script.number)
        if script.is_large and judgement.ending is Ending.COMPLETE:
            self.large[script.number] = got.ended
        self.longest = max(self.longest, got.ended - got.began - script.seconds)
        if judgement.ending not in (Ending.COMPLETE, Ending.LEFT) and not script.is_refused:
            what = f"exchange {kind}: {judgement.ending}, {got.status}"
            was_running = script.is_stream and got.status == 200 and bool(judgement.marks)
            self.failures.append(Failure(what, got.began, got.ended, was_running))
        return judgement.ending

    def unexplained(self, spans: Iterable[Span]) -> list[str]:
        """Return the failures that no fault can have caused: no fault overlaps with the exchange."""
        known = [span for span in spans if not span.is_harmless]
        return [
            f"{failure.what} without a fault"
            for failure in self.failures
            if not any(
                span.began <= failure.ended and failure.began <= span.ended
                for span in known
                if not (span.spares_streams and failure.was_running)
            )
        ]

    def unverified(self, noted: Mapping[str, set[str]], openings: Openings = _NONE) -> list[str]:
        """Return the texts that clients or the model got although Aim never verified them, and no leg failed open."""
        verified = noted[journal.VERIFIED]
        # Where the sidecar fails open, a prompt that is too large is not read.
        unread = {f"{number}.p" for number in self.too_large} if self.is_open else set()
        seen = (mark for mark in self.marks - verified if not openings.has(mark, RESPONSE))
        found = [f"the client saw <{mark}>, which Aim never verified" for mark in sorted(seen)]
        asked = (mark for mark in noted[journal.RECEIVED] - verified - unread if not openings.has(mark, REQUEST))
        found += [f"the model was asked <{mark}>, which Aim never verified" for mark in sorted(asked)]
        leaked = sorted(noted[journal.LEAKED])
        if not self.is_open:
            what = "the model was asked what Aim blocked or redacted, in exchange"
            return found + [f"{what} {number}" for number in leaked]
        judged = journal.latest(noted[journal.JUDGED])
        found += openings.leaks(judged, self.bare, RESPONSE)
        return found + openings.leaks(judged, {f"{number}.p" for number in leaked} - unread, REQUEST)
