"""The invariants of docs/architecture.md, for any interleaving of model and Aim, any split, and any fault."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable
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


class FreeAim:
    """An Aim that rewrites, joins, splits and drops texts as drawn, and the texts that the client must then have.

    With `has_marks` it echoes the mark of a chunk, with `joins_at_first` that of the first chunk that it joins. Texts
    of the model and those that Aim writes are drawn from the same few, so that many are equal.
    """

    WORDS = ("[X]", "[Y]", "on", " ")

    def __init__(self, world: World, draw: Draw) -> None:
        self.world, self.draw = world, draw
        self.words: tuple[str, ...] = self.WORDS
        self.has_marks = draw(st.booleans())
        self.joins_at_first = draw(st.booleans())
        self.places: dict[int, str] = {}
        self.owed: dict[int, list[tuple[int, str]]] = {}
        self.sent: dict[str, list[str]] = {}
        self.said: dict[str, list[str]] = {}
        self.skipped: dict[int, list[str]] = {}
        self.is_split = False

    def submit(self, place: str, data: bytes, *, end: bool) -> None:
        """Send an event of the model, with a text at `place`."""
        self.world.body(data, end=end)
        for chunk in self.world.chunks:
            for index, text in _texts(chunk):
                self.places[index] = place
                self.sent.setdefault(place, []).append(text)
                self.owed.setdefault(index, []).append((chunk[MARK], text))
        self.world.chunks.clear()

    def act(self, actions: list[str]) -> None:
        """Say something of one index."""
        index = self.draw(st.sampled_from([index for index, owed in self.owed.items() if owed]))
        owed = self.owed[index]
        action = self.draw(st.sampled_from(actions))
        marks, texts = zip(*owed, strict=True)
        count = 1
        if action == "drop":
            self.skipped.setdefault(index, []).append(owed.pop(0)[1])
            return
        if action in ("join", "join and rewrite"):
            count = self.draw(st.integers(1, len(owed)))
        given = list(texts[:count])
        if action in ("rewrite", "join and rewrite"):
            given[self.draw(st.integers(0, count - 1))] = self.draw(st.sampled_from(self.words))
        said = ["".join(given)]
        if action == "split" and len(said[0]) > 1:
            self.is_split = True
            said = [said[0][:1], said[0][1:]]
        del owed[:count]
        self.skipped.pop(index, None)
        mark = marks[0 if self.joins_at_first else count - 1]
        for text in said:
            if not self.world.is_closed:
                self.said.setdefault(self.places[index], []).append(text)
                self.world.verify(text, index, mark if self.has_marks else None)

    def rest(self) -> dict[str, str]:
        """Return what the client must have if Aim says nothing more, and a policy opens."""
        texts = {place: "".join(said) for place, said in self.said.items()}
        for index, owed in self.owed.items():
            place = self.places[index]
            left = [*self.skipped.get(index, []), *(text for _, text in owed)]
            texts[place] = texts.get(place, "") + "".join(left)
        return texts


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
    return texts


@st.composite
def repetitive(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Draw the events of a stream in which many texts are equal, each with the place of its text."""
    events: list[tuple[str, bytes]] = []
    for number in range(draw(st.integers(1, 10))):
        index, key = draw(st.integers(0, 1)), draw(st.sampled_from(["content", "content", "refusal"]))
        text = draw(st.sampled_from([*FreeAim.WORDS, f"<{number}>", f"<{number}>"]))
        events.append((f"{index} {key}", chat_event(index=index, **{key: text})))
    return events


def run(aim: FreeAim, events: list[tuple[str, bytes]], actions: list[str]) -> None:
    """Let model and Aim act in any order until both have ended."""
    waiting = [*events, ("", DONE)]
    while (waiting or any(aim.owed.values())) and not aim.world.is_closed:
        if waiting and (not any(aim.owed.values()) or aim.draw(st.booleans())):
            aim.submit(*waiting.pop(0), end=not waiting)
        else:
            aim.act(actions)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_client_reads_what_aim_said(events: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """Invariant 4: whatever Aim does with the texts, and whichever of them are equal."""
    aim = FreeAim(world := begin(CLOSED), data.draw)
    run(aim, events, ["same", "rewrite", "drop", "join", "join and rewrite", "split"])
    said = {place: "".join(texts) for place, texts in aim.said.items()}
    if not world.is_closed:
        world.done()
    read = read_by_client(world.response.body) if not is_refusal(world) else {}
    if is_refusal(world):
        assert aim.is_split  # more texts than events
    else:
        assert {place: text for place, text in read.items() if text} == {p: text for p, text in said.items() if text}
    is_over(world)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_nothing_is_lost_or_doubled_if_the_policy_opens(events: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """Invariant 1: what Aim took out stays out, and what it said nothing about leaves as it came."""
    aim = FreeAim(world := begin(OPEN), data.draw)
    actions = ["same", "same", "rewrite", "join"]
    if aim.has_marks:
        actions += ["drop", "join and rewrite"]
    if not aim.has_marks or data.draw(st.booleans()):
        aim.words = ("[R]", "[S]")  # without marks, or split, a text that the model says, too, could be either
        actions += ["split"] * aim.has_marks
    last = data.draw(st.integers(0, len(events)))
    run_until(aim, events[:last], actions)
    if not world.is_closed:
        world.verify("?", 777)  # a violation
    expected = aim.rest()
    for place, event in [*events[last:], ("", DONE)]:
        if not world.is_closed:
            world.body(event, end=event is DONE)
        for text in read_by_client(event).values():
            expected[place] = expected.get(place, "") + text
    if is_refusal(world):
        assert aim.is_split  # no event was left for a text whose place was taken
    else:
        assert {place: text for place, text in read_by_client(world.response.body).items() if text} == expected
    is_over(world)


@given(repetitive(), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_without_marks_only_the_point_of_the_loss_is_uncertain(
    events: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    """Whatever an Aim without marks does: the client reads all that it said, and then only what the model said last."""
    aim = FreeAim(world := begin(OPEN), data.draw)
    aim.has_marks = False
    aim.words = ("[R]", "[S]")  # a text that the model says, too, could be either
    last = data.draw(st.integers(0, len(events)))
    run_until(aim, events[:last], ["same", "rewrite", "join", "drop", "join and rewrite", "split"])
    if not world.is_closed:
        world.verify("?", 777)  # a violation
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


def run_until(aim: FreeAim, events: list[tuple[str, bytes]], actions: list[str]) -> None:
    """Let model and Aim act in any order until the model has sent its events, or Aim has failed."""
    waiting = list(events)
    while aim.world.session is not None and (waiting or any(aim.owed.values())):
        if waiting and (not any(aim.owed.values()) or aim.draw(st.booleans())):
            aim.submit(*waiting.pop(0), end=False)
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
