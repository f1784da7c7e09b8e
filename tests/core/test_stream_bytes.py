"""What one stream sends to Aim's session: at most 8 times its bytes, if it has more than 64 KiB.

Texts that wait for a quarter of a second are submitted beyond that.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.chunk import MARK
from extproc.core.commands import SubmitChunk
from extproc.core.events import BodyReceived
from extproc.core.vocabulary import Hook, Leg
from tests.fakes.rig import DONE
from tests.fakes.world import World, policy

KIB_64 = 65_536


def event(content: Any) -> bytes:
    return b"data:" + json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def numbered(number: int) -> bytes:
    return event({f"k{number}": ["x"] * 30})


SHAPES: dict[str, Any] = {
    "a letter on each foreign line": lambda _: b"x\n\n",
    "a control character": lambda _: b"\x01\n\n",
    "one letter": lambda _: event({"a": "x"}),
    "a list of letters": lambda _: event({"a": ["x"] * 31}),
    "more letters than are apart": lambda number: event({"a": ["x"] * 40}) if number < 4000 else event({"a": "x"}),
    "places of their own": lambda number: numbered(number) if number < 130 else event({"a": "x"}),
    "choices with refusals": lambda _: event({"choices": [{"index": 0, "delta": {"refusal": "x"}}]}),
    "letters of three bytes": lambda _: event({"a": "\u4e00"}),
}


def stream_of(name: str, size: int) -> list[bytes]:
    events: list[bytes] = []
    held = 0
    while held < size:
        events.append(SHAPES[name](len(events)))
        held += len(events[-1])
    return events


@pytest.mark.parametrize("size", [KIB_64 + 1, 200_000])
@pytest.mark.parametrize("name", SHAPES)
def test_stream_sends_at_most_eight_times_its_bytes(name: str, size: int) -> None:
    path = "/v1/chat/completions" if "refusals" in name else "/unknown"
    it = World(policy(hooks={Hook.OUTPUT})).request(b"{}", path=path).head("text/event-stream", "200")
    body = stream_of(name, size)
    sent = 0
    for start in range(0, len(body), 50):
        for command in it.send(BodyReceived(Leg.RESPONSE, b"".join(body[start : start + 50]))):
            if isinstance(command, SubmitChunk):
                sent += len(command.chunk.encode())
        it.verify_all()
    for command in it.send(BodyReceived(Leg.RESPONSE, DONE)):
        if isinstance(command, SubmitChunk):
            sent += len(command.chunk.encode())
    it.verify_all().done()
    assert it.response.body == b"".join(body) + DONE
    assert sent <= 8 * len(it.response.body)


def test_silence_of_aim_is_not_counted_while_texts_are_deferred() -> None:
    it = deferring()
    assert it.verify_all().due_in == 0.25  # not the timeout of a verdict
    deferred = it.exchange.held_bodies
    it.body(b": more\n\n" * 30)
    assert it.exchange.held_bodies > deferred > 0


def test_deferred_texts_leave_although_nothing_follows_them() -> None:
    it = deferring()
    for joined in ("xy", "y", "y"):
        it.body(b"y\n\n")
        assert not it.chunks
        it.wait(0.25)
        assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == [joined]
        it.verify_all()
        assert it.response.body.endswith(b"y\n\n")
        assert it.exchange.held_bodies == 0
        assert it.due_in is None


def test_texts_wait_for_a_quarter_of_a_second_in_all() -> None:
    it = deferring().wait(0.125).body(b"y\n\n")
    assert it.due_in == 0.125
    it.wait(0.125)
    assert it.chunks[0]["choices"][0]["delta"]["content"] == "xy"


def test_rows_of_a_silent_stream_leave() -> None:
    """MCP's answers come in one event stream that stays open: no bytes follow the last answer."""
    row = {"jsonrpc": "2.0", "id": 1, "result": {"structuredContent": {"rows": [["Ann", "red car"]] * 12}}}
    answer = event(row)
    it = World(policy()).request(None, ("accept", "text/event-stream"), path="/sse", method="GET").head()
    for sent in range(1, 401):
        it.body(answer).verify_all()
        it.wait(0.25).verify_all()
        assert it.response.body == answer * sent
    assert it.due_in is None


def test_first_text_of_a_silent_stream_is_submitted_at_its_end_though_it_was_deferred() -> None:
    """The escapes of control characters are longer than 6 times the text."""
    line = b"\x01" * 100_000 + b"\n\n"
    it = World(policy()).request(None, ("accept", "text/event-stream"), path="/sse", method="GET").head()
    it.body(line)
    assert not it.opened
    it.body(b"", end=True).verify_all().done()
    assert it.response.body == line
    assert it.is_complete


def deferring() -> World:
    """Return a stream whose last texts are deferred."""
    it = World(policy(hooks={Hook.OUTPUT}, failure_mode_allow=True)).request(b"{}", path="/unknown").head()
    while it.body(b"x\n\n").chunks:
        it.verify_all()
    return it


@pytest.mark.parametrize("said", ["xxx", "[X]", "xx[X]"])
def test_texts_that_were_submitted_together_are_settled_together(said: str) -> None:
    it = deferring()
    before = len(it.response.body)
    it.body(b"x\n\n" * 2 + DONE)
    (chunk,) = it.chunks
    (choice,) = chunk["choices"]
    assert choice["delta"]["content"] == "xxx"
    it.verify(said, choice["index"], chunk[MARK]).done()
    assert it.response.body[before:].replace(b"\n", b"").replace(b":", b"") == said.encode() + DONE.strip().replace(
        b":", b""
    )
    assert it.is_complete or it.session is None


def test_deferred_texts_are_submitted_when_the_stream_ends_without_a_mark() -> None:
    it = deferring().body(b"y\n\n", end=True)
    (chunk,) = it.chunks
    assert chunk["choices"][0]["delta"]["content"] == "xy"
    it.verify_all().done()
    assert it.response.is_ended
    assert it.response.body.endswith(b"x\n\ny\n\n")


def test_text_that_was_not_submitted_cannot_be_verified() -> None:
    it = deferring()
    it.verify("x", 1024)
    assert it.record.outcome == "failed_open"
    it.body(b"x\n\n", end=True)
    assert it.response.body.endswith(b"x\n\nx\n\n")


def test_deferred_texts_leave_as_they_came_if_the_policy_opens() -> None:
    it = deferring().body(b"y\n\n").lose()
    assert it.response.body.endswith(b"x\n\nx\n\ny\n\n")
