"""How much an exchange says that it reads for an event: the shell handles heavy ones in a thread."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from extproc.core.dry_run import DryRun
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    Event,
    HeadersReceived,
    LoadChanged,
    RoomDemanded,
    SessionDone,
    StreamEnded,
    TrailersReceived,
    VerdictReached,
    Woken,
)
from extproc.core.policy import Limits
from extproc.core.verdict import Allow
from extproc.core.vocabulary import BodyMode, Leg
from tests.fakes.rig import chat_answer, chat_event, chat_request
from tests.fakes.world import World, policy

LARGE = "x" * 100_000
REQUEST = json.dumps(chat_request(LARGE)).encode()
ANSWER = chat_answer(LARGE)
HEAD = HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions")))
VERDICT = VerdictReached(1, (Allow(),))


def world(mode: BodyMode = BodyMode.BUFFERED, **profile: Any) -> World:
    return World(policy(**profile), mode=mode)


def streamed() -> World:
    """Return an exchange whose answer is an event stream, which has begun."""
    return world(hooks=["output"]).request(json.dumps(chat_request("Hello", stream=True)).encode()).head()


class TestRequest:
    def test_buffered_body_is_whole_at_once(self) -> None:
        it = world()
        it.send(HEAD)
        assert it.exchange.weight(BodyReceived(Leg.REQUEST, REQUEST)) == len(REQUEST)

    @pytest.mark.parametrize("ends_by_trailers", [False, True])
    def test_body_in_pieces_is_read_at_its_end(self, ends_by_trailers: bool) -> None:
        it = world(BodyMode.FULL_DUPLEX_STREAMED)
        it.send(HEAD)
        first = BodyReceived(Leg.REQUEST, REQUEST[:-1])
        assert it.exchange.weight(first) == 0
        it.send(first)
        if ends_by_trailers:
            it.send(BodyReceived(Leg.REQUEST, REQUEST[-1:]))
        last: Event = TrailersReceived(Leg.REQUEST) if ends_by_trailers else BodyReceived(Leg.REQUEST, b"}", True)
        assert it.exchange.weight(last) == len(REQUEST)

    def test_compressed_body_weighs_what_it_may_become(self) -> None:
        data = gzip.compress(REQUEST)
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, (*HEAD.headers, ("content-encoding", "gzip"))))
        assert it.exchange.weight(BodyReceived(Leg.REQUEST, data)) == len(data) * Limits().inflate_ratio
        most = BodyReceived(Leg.REQUEST, b"x" * 1_000_000)
        assert it.exchange.weight(most) == Limits().request_bytes

    def test_identity_is_no_encoding(self) -> None:
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, (*HEAD.headers, ("content-encoding", "identity"))))
        assert it.exchange.weight(BodyReceived(Leg.REQUEST, REQUEST)) == len(REQUEST)

    def test_body_that_passes_is_not_read(self) -> None:
        it = world(BodyMode.FULL_DUPLEX_STREAMED, unmatched="pass")
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/elsewhere"))))
        assert it.exchange.weight(BodyReceived(Leg.REQUEST, REQUEST, True)) == 0

    def test_verdict_weighs_what_may_be_rewritten(self) -> None:
        it = world().request(REQUEST)
        assert it.exchange.weight(VERDICT) >= len(REQUEST)


class TestAnswer:
    @pytest.mark.parametrize("ends_by_trailers", [False, True])
    def test_whole_answer_is_read_at_its_end(self, ends_by_trailers: bool) -> None:
        it = world(hooks=["output"]).request(b"{}").head("application/json")
        first = BodyReceived(Leg.RESPONSE, ANSWER[:-1])
        assert it.exchange.weight(first) == 0
        it.send(first)
        if ends_by_trailers:
            it.send(BodyReceived(Leg.RESPONSE, ANSWER[-1:]))
        last: Event = TrailersReceived(Leg.RESPONSE) if ends_by_trailers else BodyReceived(Leg.RESPONSE, b"}", True)
        assert it.exchange.weight(last) == len(ANSWER)

    def test_verdict_weighs_what_may_be_rewritten(self) -> None:
        it = world(hooks=["output"]).request(b"{}").head("application/json").body(ANSWER, end=True)
        assert it.exchange.weight(VERDICT) >= len(ANSWER)

    def test_passing_answer_is_not_read(self) -> None:
        it = world(hooks=["pre_call"]).request(json.dumps(chat_request("Hello")).encode()).judge()
        it.head("application/json")
        assert it.exchange.weight(BodyReceived(Leg.RESPONSE, ANSWER, True)) == 0


class TestStream:
    def test_event_in_pieces_weighs_as_much_as_has_come(self) -> None:
        it = streamed()
        event = chat_event(LARGE)
        assert it.exchange.weight(BodyReceived(Leg.RESPONSE, event)) == len(event)
        it.body(event[:-2])
        assert it.exchange.weight(BodyReceived(Leg.RESPONSE, event[-2:])) == len(event)
        assert it.exchange.weight(TrailersReceived(Leg.RESPONSE)) == len(event) - 2

    def test_verified_chunk_weighs_the_event_that_may_leave(self) -> None:
        it = streamed()
        chunk = ChunkVerified(1, (), {})
        assert it.exchange.weight(chunk) == 0
        it.body(chat_event("small")).body(chat_event(LARGE))
        assert 0 < it.exchange.weight(chunk) < len(LARGE)

    def test_after_a_redaction_a_verified_chunk_weighs_all_that_may_leave_rewritten(self) -> None:
        it = streamed().body(chat_event("small")).body(chat_event(LARGE)).body(chat_event("other"))
        it.verify("[redacted]", mark=1)
        assert it.exchange.weight(ChunkVerified(1, (), {})) > len(LARGE)

    def test_piece_that_ends_no_line_completes_no_event(self) -> None:
        it = streamed()
        event = chat_event(LARGE)
        assert it.exchange.weight(BodyReceived(Leg.RESPONSE, event[:1000])) == 0
        assert it.exchange.weight(BodyReceived(Leg.RESPONSE, event[:1000], True)) == 1000

    def test_demand_for_room_weighs_all_that_may_leave(self) -> None:
        it = streamed().body(chat_event(LARGE))
        assert it.exchange.weight(RoomDemanded()) > len(LARGE)
        assert it.exchange.weight(Woken()) > len(LARGE)

    def test_first_bytes_may_prove_to_be_a_stream(self) -> None:
        it = world(hooks=["output"]).request(json.dumps(chat_request("Hello", stream=True)).encode()).head("text/plain")
        event = chat_event(LARGE)
        assert it.exchange.weight(BodyReceived(Leg.RESPONSE, event)) == len(event)

    def test_end_of_a_session_weighs_all_that_waits(self) -> None:
        it = streamed().body(chat_event("small")).body(chat_event(LARGE))
        assert it.exchange.weight(SessionDone(1)) > len(LARGE)


@pytest.mark.parametrize("event", [HEAD, LoadChanged(is_overloaded=True), RoomDemanded(), StreamEnded(), Woken()])
def test_other_events_weigh_nothing(event: Event) -> None:
    assert world().request(REQUEST).exchange.weight(event) == 0


def test_dry_run_weighs_the_answer_that_waits_for_the_request() -> None:
    dry = DryRun("call-1", policy(), Limits())
    for event in (HEAD, BodyReceived(Leg.REQUEST, b'{"messages": [{"role": "user", "content": "Hi"}]}')):
        dry.handle(event, 1.0)
    before = dry.weight(VERDICT)
    head = HeadersReceived(Leg.RESPONSE, ((":status", "200"), ("content-type", "application/json")))
    for event in (head, BodyReceived(Leg.RESPONSE, ANSWER, True)):
        assert dry.weight(event) < len(ANSWER)
        dry.handle(event, 1.0)
    assert dry.weight(VERDICT) > before + len(ANSWER)
