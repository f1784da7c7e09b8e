"""The invariants of docs/architecture.md, for any interleaving of model and Aim, any split, and any fault."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.sse import EventDecoder
from extproc.core.errors import Reason
from extproc.core.events import BodyReceived, ChunkVerified, SessionDone, SessionFailed, StreamBlocked, TimerFired
from extproc.core.vocabulary import Leg, Timer
from tests.fakes.rig import DONE, chat_event, chat_request
from tests.fakes.world import World

EXAMPLES = int(os.environ.get("EXAMPLES", "150"))
"""`make test-hostile` asks for thousands."""

REQUEST = json.dumps(chat_request("Hello", stream=True)).encode()
CLOSED = policy()
PINGING = policy(stream_ping_seconds=5)
PING = b": ping\n\n"
OPEN = policy(failure_mode_allow=FailureModeAllow.model_validate(True))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Draw a chat stream whose texts are all different, so that each can be told in what the client got."""
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
                chunk = {"choices": [{"index": i, "delta": {"content": f"{secret}{i}"}} for i in (0, 1)]}
                events.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return [*events, chat_event(finish="stop"), DONE]


def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
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


def begin(profile: Profile, coding: str = "") -> World:
    headers = (("content-encoding", coding),) if coding else ()
    return World(profile).request(REQUEST).judge().head("text/event-stream", "200", *headers)


def texts_in(data: bytes) -> str:
    """Return the data of an event stream's events, a line each."""
    decoder = EventDecoder(2**20)
    return "\n".join(event.data for event in [*decoder.feed(data), *decoder.finish()] if event.data is not None)


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_an_honest_aim_changes_no_byte(data: st.DataObject) -> None:
    """Transparency, order and no early release, however the two sides interleave and whatever Aim merges."""
    events = data.draw(streams())
    whole = b"".join(events)
    coding = data.draw(st.sampled_from(list(ENCODERS)))
    world = begin(data.draw(st.sampled_from([CLOSED, PINGING])), coding)
    incoming = cut(data.draw, ENCODERS[coding](whole))
    owed: list[dict[str, Any]] = []
    while incoming or owed:
        if incoming and (not owed or data.draw(st.booleans())):
            world.body(incoming.pop(0), end=not incoming)
            owed += world.chunks
            world.chunks.clear()
        else:
            world.verify_chunk(_merge(data.draw, owed))
        for timer in (Timer.HEAD, Timer.PING):
            if timer in world.timers and data.draw(st.booleans()):
                world.fire(timer)
        assert whole.startswith(world.response.body.replace(PING, b""))
        waiting = {text for chunk in owed for _, text in _texts(chunk)}
        assert not any(text in texts_in(world.response.body) for text in waiting)
    if world.is_submitted_done:
        world.done()
    assert world.response.body.replace(PING, b"") == whole
    assert texts_in(world.response.body) == texts_in(whole)
    assert world.response.is_ended
    assert world.session is None
    assert world.exchange.deadline is None
    assert world.held == 0


def _texts(chunk: dict[str, Any]) -> list[tuple[int, str]]:
    return [(c["index"], c["delta"]["content"]) for c in chunk["choices"] if c["delta"].get("content")]


def _merge(draw: st.DrawFn, owed: list[dict[str, Any]]) -> dict[str, Any]:
    """Take the next chunk, or the next few of one choice joined."""
    first = owed.pop(0)
    texts = _texts(first)
    if len(texts) == 1:
        index, text = texts[0]
        while owed and [i for i, _ in _texts(owed[0])] == [index] and draw(st.booleans()):
            text += _texts(owed.pop(0))[0][1]
        return {"choices": [{"index": index, "delta": {"content": text}}]}
    return first


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_aim_took_out_never_leaves(data: st.DataObject) -> None:
    """Rewrites, drops and a block at any point: no text leaves that Aim did not say."""
    events = data.draw(streams())
    coding = data.draw(st.sampled_from(list(ENCODERS)))
    world = begin(CLOSED, coding)
    incoming = cut(data.draw, ENCODERS[coding](b"".join(events)))
    owed: list[dict[str, Any]] = []
    hidden: set[str] = set()
    while (incoming or owed) and not world.is_closed:
        if incoming and (not owed or data.draw(st.booleans())):
            world.body(incoming.pop(0), end=not incoming)
            owed += world.chunks
            world.chunks.clear()
            continue
        chunk = owed.pop(0)
        match data.draw(st.sampled_from(["same", "same", "rewrite", "drop", "block"])):
            case "same":
                world.verify_chunk(chunk)
            case "rewrite":
                hidden |= {text for _, text in _texts(chunk)}
                choices = [{"index": i, "delta": {"content": "[X]"}} for i, _ in _texts(chunk)]
                world.verify_chunk({"choices": choices} if choices else chunk)
            case "drop":
                hidden |= {text for _, text in _texts(chunk)}
            case _:
                hidden |= {text for waiting in (chunk, *owed) for _, text in _texts(waiting)}
                world.block()
        _check(world, hidden, owed)
    if world.is_submitted_done and not world.is_closed:
        world.done()
    _check(world, hidden, [])
    assert world.is_complete
    assert world.reply is not None or world.response.is_ended
    assert world.session is None
    assert world.exchange.deadline is None


def _check(world: World, hidden: set[str], owed: list[dict[str, Any]]) -> None:
    seen = texts_in(world.response.body) + (world.reply.body.decode() if world.reply else "")
    assert not any(text in seen for text in hidden | {text for chunk in owed for _, text in _texts(chunk)})


@given(st.data(), st.sampled_from([CLOSED, OPEN]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_fault_ends_the_exchange_as_the_policy_says(data: st.DataObject, profile: Profile) -> None:
    events = data.draw(streams())
    whole = b"".join(events)
    world = begin(profile)
    incoming = cut(data.draw, whole)
    for _ in range(data.draw(st.integers(0, len(incoming)))):
        world.body(incoming.pop(0), end=not incoming)
        if data.draw(st.booleans()):
            world.verify_all()
    session = world.opened[-1]
    unsaid = [text for chunk in world.chunks for _, text in _texts(chunk)]
    faults = [
        SessionFailed(session, Reason.SESSION),
        SessionFailed(session, Reason.UNREACHABLE, opened=False),
        ChunkVerified(session, ((777, "?"),), {"choices": []}),
        *(TimerFired(timer) for timer in world.timers),
    ]
    if not world.is_submitted_done:
        faults.append(SessionDone(session))
    fault = data.draw(st.sampled_from(faults))
    if isinstance(fault, TimerFired):
        world.timers.pop(fault.timer)
    world.send(fault)
    while incoming and not world.is_closed:
        world.body(incoming.pop(0), end=not incoming)
    if not world.is_complete:  # the fault was harmless: a lost session that nothing had used
        world.verify_all()
        if world.is_submitted_done:
            world.done()
    assert world.is_complete
    assert world.session is None
    assert world.exchange.deadline is None
    if profile is OPEN:
        assert world.response.body == whole
    else:
        assert not any(text in texts_in(world.response.body) for text in unsaid) or world.response.body == whole


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_bytes_end_in_a_decision(pieces: list[bytes], is_open: bool) -> None:
    world = begin(OPEN if is_open else CLOSED)
    for piece in pieces:
        world.body(piece)
    world.send(BodyReceived(Leg.RESPONSE, b"", end_of_stream=True))
    world.verify_all()
    if world.is_submitted_done and not world.is_complete:
        world.done()
    assert world.is_complete
    if is_open:
        assert world.response.body == b"".join(pieces)


def test_a_late_word_of_a_session_that_was_left_changes_nothing() -> None:
    world = begin(CLOSED).body(chat_event("a")).verify_all().body(chat_event("b")).block()
    before = world.response.body
    for event in (SessionDone(world.opened[-1]), StreamBlocked(world.opened[-1], "x")):
        assert world.send(event) == []
    assert world.response.body == before
