"""A stream of which much comes at once: it is read in turns, so that other exchanges go first in between."""

from __future__ import annotations

import gzip
import json

import brotli
import pytest
import zstandard

from extproc.core.content.framing import Framing
from extproc.core.events import BodyReceived, TrailersReceived
from extproc.core.policy import Limits
from extproc.core.stream_input import StreamInput
from extproc.core.vocabulary import Leg
from tests.fakes.rig import DONE, chat_event, chat_request
from tests.fakes.world import World, policy

REQUEST = json.dumps(chat_request("Hello", stream=True)).encode()
EVENTS = 3000
WORDS = EVENTS * chat_event("word ")
LIMITS = Limits(held_bytes=100_000_000)


def begun(*headers: tuple[str, str], opens: bool = False) -> World:
    request = World(policy(failure_mode_allow=opens), LIMITS).request(REQUEST).judge()
    return request.head("text/event-stream", "200", *headers)


def read(it: World) -> int:
    """Let the exchange go on without time passing; return in how many turns it has read everything."""
    turns = 1
    while it.due_in is not None and it.due_in <= 0:
        it.wake()
        turns += 1
    return turns


def test_each_turn_reads_a_bounded_number_of_events() -> None:
    it = begun()
    it.send(BodyReceived(Leg.RESPONSE, WORDS + DONE))
    assert len(it.chunks) == 1024
    it.wake()
    assert len(it.chunks) == 2048
    assert read(it) == 2
    assert len(it.chunks) == EVENTS
    it.verify_all().done()
    assert it.response.body == WORDS + DONE


def test_each_turn_reads_a_bounded_number_of_bytes() -> None:
    events = 9 * chat_event("x" * 100_000)
    it = begun()
    it.send(BodyReceived(Leg.RESPONSE, events))
    assert len(it.chunks) == 3
    assert read(it) == 3
    it.verify_all().body(DONE).done()
    assert it.response.body == events + DONE


def test_tiny_events_that_a_small_piece_inflates_to_are_read_in_turns() -> None:
    lines = b"".join(b'data: %d\n\n: "\n\n' % number for number in range(10_000))
    it = begun(("content-encoding", "gzip"))
    it.send(BodyReceived(Leg.RESPONSE, gzip.compress(lines), end_of_stream=True))
    assert it.held > len(lines)
    assert not it.is_complete
    assert read(it) == 19
    assert it.is_complete
    assert it.response.body == lines.replace(b': "', b":")


@pytest.mark.parametrize("trailers", [False, True])
def test_end_of_the_stream_waits_for_what_comes_before_it(trailers: bool) -> None:
    it = begun()
    if trailers:
        it.send(BodyReceived(Leg.RESPONSE, WORDS))
        it.send(TrailersReceived(Leg.RESPONSE))
    else:
        it.send(BodyReceived(Leg.RESPONSE, WORDS, end_of_stream=True))
    assert not it.is_submitted_done
    read(it)
    assert it.is_submitted_done
    it.verify_all().done()
    assert it.response.body == WORDS
    assert it.is_complete


def test_more_that_comes_meanwhile_is_read_behind_it() -> None:
    it = begun()
    for data in (WORDS, WORDS[:-3], WORDS[-3:], chat_event("last") + DONE):
        it.send(BodyReceived(Leg.RESPONSE, data))
    read(it)
    it.verify_all().done()
    assert it.response.body == 2 * WORDS + chat_event("last") + DONE


@pytest.mark.parametrize("is_altered", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_what_was_not_read_leaves_when_the_stream_fails_open(is_altered: bool, end: bool) -> None:
    it = begun(opens=True)
    it.send(BodyReceived(Leg.RESPONSE, WORDS + WORDS, end_of_stream=end))
    first = it.chunks[0]
    if is_altered:
        first["choices"][0]["delta"]["content"] = "[X] "
    it.verify_chunk(first).lose()
    assert it.due_in is None
    if not end:
        it.send(BodyReceived(Leg.RESPONSE, DONE))
    expected = 2 * WORDS if end else 2 * WORDS + DONE
    assert it.response.body == (expected.replace(b"word ", b"[X] ", 1) if is_altered else expected)
    assert it.is_complete is end


def test_what_follows_the_mark_of_the_end_is_read_although_aim_is_done() -> None:
    comments = 2 * EVENTS * b"data: {}\n\n"
    it = begun()
    it.send(BodyReceived(Leg.RESPONSE, chat_event("word ") + DONE + comments))
    it.verify_all()
    assert it.is_submitted_done
    it.send(BodyReceived(Leg.RESPONSE, b"", end_of_stream=True))
    it.done()
    assert not it.is_complete
    read(it)
    assert it.response.body == chat_event("word ") + DONE + comments
    assert it.is_complete


def test_text_behind_the_mark_of_the_end_is_found_in_a_later_turn() -> None:
    it = begun()
    it.send(BodyReceived(Leg.RESPONSE, chat_event("word ") + DONE + EVENTS * b"data: {}\n\n" + chat_event("more")))
    it.verify_all().done()
    read(it)
    assert b"guardrail_unreadable_response" in it.response.body
    assert b"more" not in it.response.body


HELD = Limits(held_bytes=100_000)
VARIED = b"".join(chat_event(f"word {number} ") for number in range(EVENTS))


def limited(*headers: tuple[str, str], opens: bool = False) -> World:
    """Return a stream within `HELD`."""
    it = World(policy(failure_mode_allow=opens), HELD).request(REQUEST).judge()
    return it.head("text/event-stream", "200", *headers)


def test_what_was_not_cut_counts_and_pauses_the_reading() -> None:
    it = limited()
    it.send(BodyReceived(Leg.RESPONSE, EVENTS * b"data: {}\n\n"))
    it.send(BodyReceived(Leg.RESPONSE, WORDS))
    assert it.held > len(WORDS) > 100_000
    assert it.is_paused


def test_an_event_without_its_end_does_not_pause_the_reading() -> None:
    it = limited()
    it.body(b"data: " + b"x" * 150_000)
    assert it.held > 150_000
    assert not it.is_paused


def test_a_full_stream_is_cut_on_only_when_aim_has_freed_something() -> None:
    it = limited().body(WORDS)
    assert it.is_paused
    assert len(it.chunks) == 1024
    assert it.held < 2_500_000
    for turn in range(1, 4):
        it.verify_all().wait(0)
        assert len(it.chunks) == (1024 if turn == 1 else EVENTS - 2048 if turn == 2 else 0)
    assert not it.is_paused
    assert it.response.body == WORDS


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_full_stream_is_inflated_on_only_when_aim_has_freed_something(coding: str) -> None:
    words = b"".join(chat_event(f"{number} ") for number in range(20_000))
    piece = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstandard.compress}[coding](words)
    it = limited(("content-encoding", coding)).body(piece)
    assert it.is_paused
    assert it.held < 2_000_000 + len(words) * (coding == "zstd")
    turns = 0
    while it.chunks:
        it.verify_all().wait(0)
        turns += 1
    assert turns >= 19
    assert it.response.body == words
    assert it.body(b"", end=True).done().is_complete


def test_text_without_an_end_is_inflated_in_turns() -> None:
    text = chat_event(" ".join(map(str, range(150_000))))
    it = begun(("content-encoding", "gzip"))
    it.send(BodyReceived(Leg.RESPONSE, gzip.compress(text, 1)))
    assert not it.chunks
    assert read(it) == 5  # the last finds that nothing is left
    it.verify_all()
    assert it.response.body == text


@pytest.mark.parametrize("opens", [False, True])
def test_encoding_that_is_broken_behind_what_fits_is_refused_in_its_turn(opens: bool) -> None:
    it = limited(("content-encoding", "gzip"), opens=opens).body(gzip.compress(VARIED) + b"no member")
    assert it.record.outcome == "allowed"
    while it.chunks:
        it.verify_all().wait(0)
    assert it.record.outcome == "refused"
    assert it.response.body.startswith(VARIED[:200_000])
    assert b"guardrail_unreadable_response" in it.response.body


@pytest.mark.parametrize("is_altered", [False, True])
def test_encoding_that_is_broken_in_what_waits_is_refused_when_the_stream_fails_open(is_altered: bool) -> None:
    it = limited(("content-encoding", "gzip"), opens=True).body(gzip.compress(VARIED) + b"no member")
    first = it.chunks[0]
    if is_altered:
        first["choices"][0]["delta"]["content"] = "[X] "
    it.verify_chunk(first).lose()
    assert b"guardrail_unreadable_response" in it.response.body
    assert it.is_complete


@pytest.mark.parametrize("is_altered", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_what_was_not_inflated_leaves_when_the_stream_fails_open(is_altered: bool, end: bool) -> None:
    it = limited(("content-encoding", "gzip"), opens=True).body(gzip.compress(VARIED), end=end)
    first = it.chunks[0]
    if is_altered:
        first["choices"][0]["delta"]["content"] = "[X] "
    it.verify_chunk(first).lose()
    assert it.response.body == (VARIED.replace(b"word 0 ", b"[X] ", 1) if is_altered else VARIED)
    assert it.is_complete is end


def test_encoding_that_is_cut_short_is_refused_at_the_end_of_a_stream_that_failed_open() -> None:
    it = limited(("content-encoding", "gzip"), opens=True).body(gzip.compress(VARIED)[:-4]).lose()
    assert it.response.body == VARIED
    it.body(b"", end=True)
    assert b"guardrail_unreadable_response" in it.response.body


def test_bytes_behind_the_end_of_a_stream_are_read_too() -> None:
    source = StreamInput((), Framing.EVENT_STREAM, Limits())
    read = []
    for piece in (b"data: 1\n\ndata: 2", b"data: 3"):
        source.add(piece)
        source.end(has_trailers=False)
        read += [unit.raw for unit in source.all_units()]
    assert read == [b"data: 1\n\n", b"data: 2", b"data: 3"]


def test_bytes_that_come_while_the_rest_of_a_stream_is_read_are_read_too() -> None:
    source = StreamInput((), Framing.EVENT_STREAM, Limits())
    source.add(b"data: 1\n\n" * 1023 + b"data: 2")
    source.end(has_trailers=False)
    assert len(list(source.units())) == 1024  # a whole turn, the last of them the rest
    source.add(b"data: 3")
    source.end(has_trailers=False)
    assert [unit.raw for unit in source.all_units()] == [b"data: 3"]
    assert source.is_over
