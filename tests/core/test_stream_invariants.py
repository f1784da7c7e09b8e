"""The invariants of docs/architecture.md, for any interleaving of model and Aim, any split, and any fault."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.chunk import MARK
from extproc.core.content.document import Document
from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.content.sse import EventDecoder
from extproc.core.errors import ContentError, Reason
from extproc.core.events import BodyReceived, ChunkVerified, RoomDemanded, SessionDone, SessionFailed, StreamBlocked
from extproc.core.policy import Policy
from extproc.core.vocabulary import Leg
from tests.fakes.rig import DONE, chat_event, chat_request
from tests.fakes.world import VERDICT_TIMEOUT, World, policy

EXAMPLES = int(os.environ.get("EXAMPLES", "150"))
"""`make test-hostile` sets it to thousands."""

REQUEST = json.dumps(chat_request("Hello", stream=True)).encode()
CLOSED = policy()
OPEN = policy(failure_mode_allow=True)
PATIENT = policy(stream_ping_seconds=5, verdict_timeout_seconds=1e9)
PING = b": ping\n\n"
SECRET = re.compile(r"<\d+[ab]?>")
"""The form of the texts of a drawn stream. Each text occurs once."""


Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Draw a chat stream with texts that are all different, so that each can be recognised in the client's bytes."""
    events: list[bytes] = []
    calls = draw(st.booleans())
    for number in range(draw(st.integers(0, 12))):
        index = draw(st.integers(0, 2))
        kind = draw(st.sampled_from(["text", "text", "text", "role", "comment", "refusal", "call", "usage", "two"]))
        secret = f"<{number}>"
        match kind:
            case "text":
                events.append(chat_event(secret, index=index))
            case "role":
                events.append(chat_event(role="assistant", text="", index=index))
            case "comment":
                events.append(b": keep-alive\n\n")
            case "refusal":
                events.append(chat_event(index=index, refusal=secret))
            case "call" if calls:
                call = {"index": 0, "function": {"arguments": secret}}
                events.append(chat_event(index=index, tool_calls=[call]))
            case "usage":
                events.append(b'data: {"choices":[],"usage":{"total_tokens":1}}\r\n\r\n')
            case _:
                chunk = {"choices": [{"index": i, "delta": {"content": f"<{number}{'ab'[i]}>"}} for i in (0, 1)]}
                events.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return [*events, chat_event(finish="stop"), DONE]


def cut(draw: Draw, data: bytes) -> list[bytes]:
    """Cut bytes at random places."""
    places = sorted(set(draw(st.lists(st.integers(0, len(data)), max_size=12))))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def begin(profile: Policy, coding: str = "") -> World:
    headers = (("content-encoding", coding),) if coding else ()
    return World(profile).request(REQUEST).judge().head("text/event-stream", "200", *headers)


def texts_in(data: bytes) -> str:
    """Return the data of an event stream's events, one per line."""
    decoder = EventDecoder(2**20)
    return "\n".join(event.data for event in [*decoder.feed(data), *decoder.finish()] if event.data is not None)


def secrets_in(data: bytes) -> set[str]:
    """Return the texts of the drawn stream that are in `data`."""
    return set(SECRET.findall(data.decode(errors="replace")))


def _texts(chunk: dict[str, Any]) -> list[tuple[int, str]]:
    return [(c["index"], c["delta"]["content"]) for c in chunk["choices"] if c["delta"].get("content")]


def _merge(draw: Draw, owed: list[dict[str, Any]]) -> dict[str, Any]:
    """Remove and return the next chunk, or join the next few of one choice."""
    first = owed.pop(0)
    texts = _texts(first)
    if len(texts) == 1:
        index, text = texts[0]
        while owed and [i for i, _ in _texts(owed[0])] == [index] and draw(st.booleans()):
            text += _texts(owed.pop(0))[0][1]
        return {"choices": [{"index": index, "delta": {"content": text}}]}
    return first


class Ledger:
    """Records what Aim has verified, and checks that nothing else is released: invariant 1."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.said: set[str] = set()
        self.owed: list[dict[str, Any]] = []
        self.has_submitted_text = False
        self.arrived = 0

    def submit(self, data: bytes, *, end: bool) -> None:
        """Send bytes of the model, and record the submitted chunks as owed."""
        self.world.body(data, end=end)
        self.arrived += len(data)
        self.owed += self.world.chunks
        self.has_submitted_text |= any(_texts(chunk) for chunk in self.world.chunks)
        self.world.chunks.clear()
        self.check()

    def check_held(self) -> None:
        """Check that exactly the withheld bytes count as held: invariant 8. Only for streams without an encoding."""
        withheld = self.arrived - len(self.world.response.body.replace(PING, b""))
        if not self.world.is_complete:
            assert self.world.held >= withheld
        if not withheld:
            assert self.world.exchange.held_bodies == 0

    def verify(self, chunk: dict[str, Any]) -> None:
        """Let Aim release a chunk."""
        self.said |= {secret for _, text in _texts(chunk) for secret in SECRET.findall(text)}
        self.world.verify_chunk(chunk)
        self.check()

    def verify_all(self) -> None:
        while self.owed and not self.world.is_complete:
            self.verify(self.owed.pop(0))

    def check(self) -> None:
        reply = self.world.reply.body if self.world.reply is not None else b""
        unsaid = secrets_in(self.world.response.body + reply) - self.said
        assert not unsaid, f"{unsaid} released before Aim verified it"


def is_over(world: World) -> None:
    """Check that everything is freed and that the client got an end: invariants 5, 6 and 8."""
    assert world.is_complete
    assert world.reply is not None or world.response.is_ended
    assert world.session is None
    assert world.exchange.deadline is None
    assert world.held == 0


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_honest_aim_changes_no_byte(data: st.DataObject) -> None:
    """Invariants 1, 2 and 3: transparency, order and no early release, however model and Aim interleave."""
    events = data.draw(streams())
    whole = b"".join(events)
    coding = data.draw(st.sampled_from(list(ENCODERS)))
    ledger = Ledger(world := begin(data.draw(st.sampled_from([CLOSED, PATIENT])), coding))
    incoming = cut(data.draw, ENCODERS[coding](whole))
    while incoming or ledger.owed:
        if incoming and (not ledger.owed or data.draw(st.booleans())):
            ledger.submit(incoming.pop(0), end=not incoming)
        else:
            ledger.verify(_merge(data.draw, ledger.owed))
        if not coding:
            ledger.check_held()
        if world.policy is PATIENT and not world.is_complete:
            world.wait(data.draw(st.sampled_from([0, 2, 5])))
            ledger.check()
        assert whole.startswith(world.response.body.replace(PING, b""))
    if world.is_submitted_done:
        world.done()
    assert world.response.body.replace(PING, b"") == whole
    assert texts_in(world.response.body) == texts_in(whole)
    assert world.response.is_ended
    is_over(world)


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_text_that_aim_took_out_never_leaves(data: st.DataObject) -> None:
    """Invariants 1, 4 and 5: rewrites, drops and a block at any point."""
    events = data.draw(streams())
    coding = data.draw(st.sampled_from(list(ENCODERS)))
    ledger = Ledger(world := begin(CLOSED, coding))
    incoming = cut(data.draw, ENCODERS[coding](b"".join(events)))
    while (incoming or ledger.owed) and not world.is_closed:
        if incoming and (not ledger.owed or data.draw(st.booleans())):
            ledger.submit(incoming.pop(0), end=not incoming)
            continue
        chunk = ledger.owed.pop(0)
        match data.draw(st.sampled_from(["same", "same", "rewrite", "drop", "block"])):
            case "same":
                ledger.verify(chunk)
            case "rewrite":
                choices = [{"index": i, "delta": {"content": "[X]"}} for i, _ in _texts(chunk)]
                ledger.verify({"choices": choices} if choices else chunk)
            case "drop":
                pass
            case _:
                world.block()
        ledger.check()
    if world.is_submitted_done and not world.is_closed:
        world.done()
    ledger.check()
    is_over(world)


@given(st.data(), st.sampled_from([CLOSED, OPEN]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_fault_ends_the_exchange_as_the_policy_says(data: st.DataObject, profile: Policy) -> None:
    """Invariants 1, 5, 6 and 8 under any single fault at any point."""
    events = data.draw(streams())
    whole = b"".join(events)
    ledger = Ledger(world := begin(profile))
    incoming = cut(data.draw, whole)
    for _ in range(data.draw(st.integers(0, len(incoming)))):
        ledger.submit(incoming.pop(0), end=not incoming)
        if data.draw(st.booleans()):
            ledger.verify_all()
    if world.is_complete:
        return  # a stream without text has ended before the fault
    is_owed = any(_texts(chunk) for chunk in ledger.owed)
    is_submitted_done = world.is_submitted_done
    faults = (
        ["lost", "refused", "odd", "silent", "full"]
        if is_submitted_done
        else ["lost", "refused", "odd", "silent", "full", "early"]
    )
    fault = data.draw(st.sampled_from(faults))
    session = world.opened[-1]
    match fault:
        case "lost":
            world.send(SessionFailed(session, Reason.SESSION))
        case "refused":
            world.send(SessionFailed(session, Reason.UNREACHABLE, opened=False))
        case "odd":
            world.send(ChunkVerified(session, ((777, "?"),), {"choices": []}))
        case "silent":
            world.wait(VERDICT_TIMEOUT)
        case "full":
            world.send(RoomDemanded())
        case _:
            world.send(SessionDone(session))
    match fault:
        case "lost":  # a session without submitted text is opened again, or was not needed
            is_harmless = not ledger.has_submitted_text
        case "silent":  # Aim does not owe anything
            is_harmless = not is_owed and not is_submitted_done
        case _:
            is_harmless = False
    assert is_harmless or world.session is None
    if profile is CLOSED:
        ledger.check()
    while incoming and not world.is_closed:
        world.body(incoming.pop(0), end=not incoming)
        ledger.owed += world.chunks
        world.chunks.clear()
        if profile is CLOSED:
            ledger.check()
    if not world.is_complete:
        assert is_harmless
        ledger.verify_all()
        if world.is_submitted_done:
            world.done()
    is_over(world)
    if profile is OPEN:
        assert world.response.body == whole
        assert world.reply is None
    else:
        ledger.check()
        if world.response.body == whole:
            assert secrets_in(whole) <= ledger.said
        else:
            assert is_refusal(world)


def is_refusal(world: World) -> bool:
    """Return whether the client was told that the exchange failed: an incomplete stream never looks complete."""
    if world.reply is not None:
        return world.reply.status >= 400
    return b'"error"' in world.response.body


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_byte_sequence_ends_in_a_decision(pieces: list[bytes], is_open: bool) -> None:
    """Invariants 1 and 6, for bytes that may not be a stream."""
    world = begin(OPEN if is_open else CLOSED)
    for piece in pieces:
        world.body(piece)
    world.send(BodyReceived(Leg.RESPONSE, b"", end_of_stream=True))
    world.verify_all()
    if world.is_submitted_done and not world.is_complete:
        world.done()
    is_over(world)
    whole = b"".join(pieces)
    expected, is_read = passing(whole)
    if is_open:
        assert world.response.body == expected
    elif world.response.body != expected:
        assert is_refusal(world)
    else:
        assert is_read


def passing(data: bytes) -> tuple[bytes, bool]:
    """Return what passes of an event stream without a verdict, and whether it is one whose data, if any, is JSON."""
    decoder = EventDecoder(2**20)
    events: list[ServerSentEvent] = []
    try:
        events.extend(decoder.feed(data))
        events.extend(decoder.finish())
        for event in events:
            if event.data and event.data.strip() not in ("", "[DONE]") and not event.is_foreign:
                Document(event.data)
    except ContentError:
        is_read = False
    else:
        is_read = True
    return b"".join(event.raw for event in events) + decoder.take_rest(), is_read


class Echo(Enum):
    """Which mark Aim gives a chunk: none, or, if it joins several, that of the first or that of the last."""

    NONE = auto()
    FIRST = auto()
    LAST = auto()


ECHO = st.sampled_from(Echo)

WORDS = ("[X]", "[Y]", "on", " ")
PARTS = ("[", "X]", "o", "n")
"""Texts that the model writes, again and again; parts of them may be what Aim splits them into."""

OWN = ("{R}", "{S}")
"""Texts that Aim writes and that the model never writes."""

SAME, REWRITE, DROP, JOIN, REWRITE_JOINED, SPLIT, REWRITE_SPLIT = range(7)


class FreeAim:
    """An Aim that rewrites, joins, splits and drops texts as drawn, and the texts that the client must then have.

    Texts of the model are drawn from a few, so that many are equal, or equal to parts of others. `words` are what Aim
    writes in place of a text.
    """

    def __init__(self, world: World, draw: Draw, echo: Echo, words: tuple[str, ...]) -> None:
        self.world, self.draw, self.echo, self.words = world, draw, echo, words
        self.places: dict[int, str] = {}
        self.owed: dict[int, list[tuple[int, str]]] = {}
        self.parts: dict[int, list[str]] = {}
        self.sent: dict[str, list[str]] = {}
        self.said: dict[str, list[str]] = {}
        self.skipped: dict[int, list[str]] = {}
        self.last: dict[int, tuple[int, str, str]] = {}
        self.is_split = False

    def submit(self, place: str, data: bytes, *, end: bool = False) -> None:
        """Send an event of the model; `place` is that of a text that is not the content of a choice."""
        self.world.body(data, end=end)
        for chunk in self.world.chunks:
            for index, text in _texts(chunk):
                self.places[index] = f"{index} content" if index < 2 else place
                self.sent.setdefault(self.places[index], []).append(text)
                self.owed.setdefault(index, []).append((chunk[MARK], text))
        self.world.chunks.clear()

    def introduce(self) -> None:
        """Show which mark joined texts have: two that no other is equal to are joined."""
        for text in ("a", "b"):
            self.submit("", chat_event(text))
        marks = [mark for mark, _ in self.owed.pop(0)]
        self._say(0, "ab", marks[0 if self.echo is Echo.FIRST else 1], "b" if self.echo is Echo.LAST else "ab")

    @property
    def is_owing(self) -> bool:
        """Return whether there is anything to say."""
        return any(self.owed.values()) or any(self.parts.values())

    def act(self, actions: list[int]) -> None:
        """Say something of one index."""
        owing = [index for index in self.owed if self.owed[index] or self.parts.get(index)]
        index = self.draw(st.sampled_from(owing))
        if self.parts.get(index):
            mark, whole, before = self.last[index]
            part = self.parts[index].pop(0)
            self._say(index, part, mark, whole, before + part)
            return
        owed = self.owed[index]
        action = self.draw(st.sampled_from(actions))
        marks, texts = zip(*owed, strict=True)
        count = 1
        if action == DROP:
            self.skipped.setdefault(index, []).append(owed.pop(0)[1])
            return
        if action in (JOIN, REWRITE_JOINED):
            count = self.draw(st.integers(1, len(owed)))
        given = list(texts[:count])
        if action in (REWRITE, REWRITE_JOINED, REWRITE_SPLIT):
            given[self.draw(st.integers(0, count - 1))] = self.draw(st.sampled_from(self.words))
        said = ["".join(given)]
        if action in (SPLIT, REWRITE_SPLIT):
            said = [part.decode() for part in cut(self.draw, said[0].encode()) if part]
        del owed[:count]
        self.skipped.pop(index, None)
        self.parts[index] = said[1:]
        mark = marks[0 if self.echo is Echo.FIRST else count - 1]
        self._say(index, said[0], mark, texts[count - 1] if self.echo is Echo.LAST else texts[0])

    def _say(self, index: int, text: str, mark: int, whole: str, given: str = "") -> None:
        if self.world.is_closed:
            self.parts.clear()
            return
        given = given or text
        self.last[index] = mark, whole, given
        self.is_split |= given != whole and (whole.startswith(given) or given != text)
        self.said.setdefault(self.places[index], []).append(text)
        self.world.verify(text, index, None if self.echo is Echo.NONE else mark)

    def rest(self) -> dict[str, str]:
        """Return what the client must have if Aim says nothing more, and a policy opens.

        Of a text of which Aim has said only a beginning, the rest is expected, too.
        """
        texts = {place: "".join(said) for place, said in self.said.items()}
        for index, owed in self.owed.items():
            place = self.places[index]
            _, whole, given = self.last.get(index, (0, "", ""))
            begun = whole[len(given) :] if whole.startswith(given) and self.echo is not Echo.NONE else ""
            left = [begun, *self.skipped.get(index, []), *(text for _, text in owed)]
            texts[place] = texts.get(place, "") + "".join(left)
        return {place: text for place, text in texts.items() if text}


def read_by_client(body: bytes) -> dict[str, str]:
    """Return the texts that a client reads, by place."""
    texts: dict[str, str] = {}
    decoder = EventDecoder(2**20)
    for event in [*decoder.feed(body), *decoder.finish()]:
        if event.data and event.data != "[DONE]" and "choices" in (chunk := json.loads(event.data)):
            for choice in chunk["choices"]:
                for key, text in choice["delta"].items():
                    place = f"{choice['index']} {key}"
                    texts[place] = texts.get(place, "") + text
    return {place: text for place, text in texts.items() if text}


@st.composite
def repetitive(draw: st.DrawFn, words: tuple[str, ...] = WORDS + PARTS) -> list[tuple[str, bytes]]:
    """Draw the events of a stream in which many texts are one of `words`, each with the place of its text."""
    events: list[tuple[str, bytes]] = []
    for number in range(draw(st.integers(1, 10))):
        texts = st.sampled_from([*words, f"<{number}>", f"<{number}>"])
        index, key = draw(st.integers(0, 1)), draw(st.sampled_from(["content", "content", "content", "refusal", "two"]))
        if key == "two":
            choices = [{"index": each, "delta": {"content": draw(texts)}} for each in (0, 1)]
            events.append(("", b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"))
        else:
            events.append((f"{index} {key}", chat_event(index=index, **{key: draw(texts)})))
    return events


def run(aim: FreeAim, events: list[tuple[str, bytes]], actions: list[int]) -> None:
    """Let model and Aim act in any order until both have ended."""
    waiting = [*events, ("", DONE)]
    while (waiting or aim.is_owing) and not aim.world.is_closed:
        if waiting and (not aim.is_owing or aim.draw(st.booleans())):
            aim.submit(*waiting.pop(0), end=not waiting)
        else:
            aim.act(actions)


ALL = [SAME, REWRITE, DROP, JOIN, REWRITE_JOINED, SPLIT, REWRITE_SPLIT]


def close_after(aim: FreeAim, events: list[tuple[str, bytes]]) -> None:
    """Check that the client reads what Aim said, if its session ends well."""
    world = aim.world
    run(aim, events, ALL)
    said = {place: "".join(texts) for place, texts in aim.said.items()}
    if not world.is_closed:
        world.done()
    if is_refusal(world):
        assert aim.is_split  # more texts than events
    else:
        assert read_by_client(world.response.body) == said
    is_over(world)


@given(repetitive(WORDS), ECHO, st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_client_reads_what_aim_said(events: list[tuple[str, bytes]], echo: Echo, data: st.DataObject) -> None:
    """Invariant 4: whatever Aim does with the texts, and whichever of them are equal."""
    close_after(FreeAim(begin(CLOSED), data.draw, echo, WORDS), events)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_client_reads_what_aim_said_in_the_words_of_the_model(
    events: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    """Aim may put at the place of a text what equals that text and the next one, joined: its mark tells."""
    aim = FreeAim(begin(CLOSED), data.draw, Echo.LAST, WORDS + PARTS)
    aim.introduce()
    close_after(aim, events)


def fail(aim: FreeAim) -> None:
    """Let the session, if there is one, end by any fault."""
    world = aim.world
    if world.session is not None:
        match aim.draw(st.sampled_from(["odd", "lost", "early", "silent", "full"])):
            case "lost":
                world.lose()
            case "early":
                world.send(SessionDone(world.session))
            case "silent":
                world.wait(VERDICT_TIMEOUT)
            case "full":
                world.send(RoomDemanded())
    if world.session is not None:  # the fault had to do no harm
        world.verify("?", 777)  # a violation
    assert world.session is None


def open_after(aim: FreeAim, events: list[tuple[str, bytes]], actions: list[int]) -> None:
    """Let the session fail at any point, and check that nothing is lost or doubled, as far as `aim` can know."""
    last = aim.draw(st.integers(0, len(events)))
    run_until(aim, events[:last], actions)
    world = aim.world
    fail(aim)
    expected = aim.rest()
    for _, event in [*events[last:], ("", DONE)]:
        if not world.is_closed:
            world.body(event, end=event is DONE)
        for place, text in read_by_client(event).items():
            expected[place] = expected.get(place, "") + text
    if is_refusal(world):
        assert aim.is_split  # no event was left for a text whose place was taken
    else:
        assert read_by_client(world.response.body) == expected
    is_over(world)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_nothing_is_lost_or_doubled_if_aim_echoes_marks(events: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """Invariant 1: what Aim took out stays out, and what it said nothing about leaves as it came.

    Aim gives joined texts the mark of the last one, and has done so before. Then there is no exception.
    """
    aim = FreeAim(begin(OPEN), data.draw, Echo.LAST, WORDS + PARTS)
    aim.introduce()
    open_after(aim, events, ALL)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_mark_of_the_first_joined_text_is_enough_for_texts_that_the_model_does_not_write(
    events: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    """Such a mark does not say which text is the last, so texts are compared: Aim's own ones show where others end."""
    aim = FreeAim(begin(OPEN), data.draw, Echo.FIRST, OWN)
    aim.introduce()
    open_after(aim, events, [SAME, SAME, REWRITE, DROP, JOIN, REWRITE_JOINED, SPLIT])


@given(repetitive(()), st.sampled_from([Echo.FIRST, Echo.LAST]), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_marks_are_enough_for_texts_that_differ(
    events: list[tuple[str, bytes]], echo: Echo, data: st.DataObject
) -> None:
    """It need not be known whether joined texts have the mark of the first or of the last one."""
    aim = FreeAim(begin(OPEN), data.draw, echo, OWN)
    open_after(aim, events, ALL)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_nothing_is_lost_or_doubled_without_marks_if_aim_drops_and_splits_nothing(
    events: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    """Without marks, texts are compared: a text of Aim's that the model writes, too, could be either."""
    open_after(FreeAim(begin(OPEN), data.draw, Echo.NONE, OWN), events, [SAME, SAME, REWRITE, JOIN])


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_without_marks_only_the_point_of_the_loss_is_uncertain(
    events: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    """Whatever an Aim without marks does: the client reads all that it said, and then only what the model said last."""
    aim = FreeAim(world := begin(OPEN), data.draw, Echo.NONE, OWN)
    last = data.draw(st.integers(0, len(events)))
    run_until(aim, events[:last], ALL)
    fail(aim)
    later: dict[str, str] = {}
    for _, event in [*events[last:], ("", DONE)]:
        if not world.is_closed:
            world.body(event, end=event is DONE)
        for place, text in read_by_client(event).items():
            later[place] = later.get(place, "") + text
    is_over(world)
    if is_refusal(world):
        return
    assert world.response.body.endswith(DONE)
    read = read_by_client(world.response.body)
    for place in aim.sent.keys() | later.keys():
        said, sent = "".join(aim.said.get(place, [])), aim.sent.get(place, [])
        after = later.get(place, "")
        possible = {said + "".join(sent[start:]) + after for start in range(len(sent) + 1)}
        assert read.get(place, "") in possible


def run_until(aim: FreeAim, events: list[tuple[str, bytes]], actions: list[int]) -> None:
    """Let model and Aim act in any order until the model has sent its events, or Aim has failed."""
    waiting = list(events)
    while aim.world.session is not None and (waiting or aim.is_owing):
        if waiting and (not aim.is_owing or aim.draw(st.booleans())):
            aim.submit(*waiting.pop(0))
        elif waiting or aim.draw(st.integers(0, 3)):
            aim.act(actions)
        else:
            return


def test_late_word_of_a_session_that_was_left_changes_nothing() -> None:
    world = begin(CLOSED).body(chat_event("a")).verify_all().body(chat_event("b")).block()
    before = world.response.body
    for event in (SessionDone(world.opened[-1]), StreamBlocked(world.opened[-1], "x")):
        assert world.send(event) == []
    assert world.response.body == before


def test_two_exchanges_share_nothing() -> None:
    """Invariant 7: what Aim says in one session changes nothing in another."""
    first, second = begin(CLOSED), begin(CLOSED)
    first.body(chat_event("<1>"))
    second.body(chat_event("<2>"))
    second.verify("<2>")
    first.verify("[X]")
    assert first.response.body == chat_event("[X]")
    assert second.response.body == chat_event("<2>")
