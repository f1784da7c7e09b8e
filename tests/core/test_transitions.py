"""The state machines as tables: every pair of state and event is handled, or is a named protocol error."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, get_args

import pytest

from extproc.core.commands import Command
from extproc.core.content.framing import Framing
from extproc.core.context import Context
from extproc.core.errors import IllegalEvent, ProtocolError
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    Event,
    HeadersReceived,
    RoomDemanded,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TrailersReceived,
    VerdictReached,
    Woken,
)
from extproc.core.exchange import _ROUTES
from extproc.core.held_answer import HELD_TABLE, HeldAnswer, HeldState
from extproc.core.policy import Limits
from extproc.core.reading import Answer, Scope
from extproc.core.request_leg import REQUEST_TABLE, RequestLeg, RequestState
from extproc.core.response_leg import RESPONSE_TABLE, ResponseLeg, ResponseState
from extproc.core.response_stream import STREAM_TABLE, ResponseStream, StreamEnd, StreamState
from extproc.core.transitions import INBOUND, Inbound, advance, find
from extproc.core.verdict import Allow
from extproc.core.vocabulary import BodyMode, Leg
from extproc.processor.driver import _ACTIONS
from tests.fakes.rig import chat_answer, chat_event, chat_request
from tests.fakes.world import policy

BODY = json.dumps(chat_request("Hello", stream=True)).encode()
HEAD = ((":method", "POST"), (":path", "/v1/chat/completions"))
OTHER = ((":method", "POST"), (":path", "/other"))
OK_JSON = ((":status", "200"), ("content-type", "application/json"))
OK_STREAM = ((":status", "200"), ("content-type", "text/event-stream"))


def context(**more: Any) -> Context:
    return Context("call-1", policy(**more), Limits())


def request_leg(state: RequestState) -> RequestLeg:
    """Return a request leg in `state` that may still get trailers."""
    leg = RequestLeg(context(), BodyMode.BUFFERED)
    match state:
        case RequestState.IDLE:
            return leg
        case RequestState.PASSING:
            leg.handle(HeadersReceived(Leg.REQUEST, OTHER))
        case RequestState.UNDECIDED:
            leg.handle(HeadersReceived(Leg.REQUEST, (*OTHER, ("content-type", "text/plain"), ("content-length", "2"))))
        case RequestState.HOLDING:
            leg.handle(HeadersReceived(Leg.REQUEST, HEAD))
        case RequestState.DETECTING:
            leg.handle(HeadersReceived(Leg.REQUEST, HEAD))
            leg.handle(BodyReceived(Leg.REQUEST, BODY))
        case RequestState.DONE:
            leg.handle(HeadersReceived(Leg.REQUEST, HEAD))
            leg.handle(BodyReceived(Leg.REQUEST, b"{}"))
        case RequestState.DROPPED:
            leg.handle(HeadersReceived(Leg.REQUEST, HEAD))
            leg.drop()
    return leg


def response_leg(state: ResponseState) -> ResponseLeg:
    """Return a response leg in `state`."""
    shared = context()
    shared.inspection.pick_dialect("POST", "/v1/chat/completions")
    leg = ResponseLeg(shared)
    match state:
        case ResponseState.IDLE:
            return leg
        case ResponseState.PASSING:
            leg.handle(HeadersReceived(Leg.RESPONSE, ((":status", "302"),)))
        case ResponseState.UNDECIDED:
            leg.handle(HeadersReceived(Leg.RESPONSE, ((":status", "200"),)))
        case ResponseState.HOLDING:
            leg.handle(HeadersReceived(Leg.RESPONSE, OK_JSON))
            leg.handle(BodyReceived(Leg.RESPONSE, chat_answer("Hi"), end_of_stream=True))
        case ResponseState.STREAMING:
            leg.handle(HeadersReceived(Leg.RESPONSE, OK_STREAM))
        case ResponseState.DONE:
            leg.handle(HeadersReceived(Leg.RESPONSE, OK_JSON, end_of_stream=True))
    return leg


def held_answer(state: HeldState) -> HeldAnswer:
    """Return a held answer in `state`."""
    shared = context()
    shared.inspection.pick_dialect("POST", "/v1/chat/completions")
    answer = HeldAnswer(shared, OK_JSON, shared.answer(OK_JSON))
    match state:
        case HeldState.HOLDING:
            pass
        case HeldState.DETECTING:
            answer.handle(BodyReceived(Leg.RESPONSE, chat_answer("Hi"), end_of_stream=True))
        case HeldState.UNREAD:
            too_large = HeldAnswer(context(failure_mode_allow=True), OK_JSON, Answer(Scope.KNOWN, "200", length=2**63))
            too_large.begin(Framing.WHOLE, has_trailers=False)
            return too_large
        case HeldState.RELEASED:
            answer.handle(BodyReceived(Leg.RESPONSE, b"{}", end_of_stream=True))
    return answer


def response_stream(state: StreamState) -> ResponseStream:
    """Return a stream in `state`."""
    shared = context(failure_mode_allow=state is StreamState.OPENED)
    shared.inspection.pick_dialect("POST", "/v1/chat/completions")
    stream = ResponseStream(shared, OK_STREAM)
    stream.begin(1)
    stream.handle(BodyReceived(Leg.RESPONSE, chat_event("Hi")))
    match state:
        case StreamState.SUBMITTING:
            pass
        case StreamState.SUBMITTED:
            stream.handle(StreamEnd(has_trailers=False))
        case StreamState.VERIFIED:
            stream.handle(ChunkVerified(1, ((0, "Hi"),), {"choices": []}))
            stream.handle(BodyReceived(Leg.RESPONSE, b"data: [DONE]\n\n"))
            stream.handle(SessionDone(1))
        case StreamState.OPENED:
            stream.handle(SessionFailed(1, "session"))  # type: ignore[arg-type]
        case StreamState.FINISHED:
            stream.drop()
    return stream


FROM_ENVOY = (
    lambda leg: HeadersReceived(leg, ()),
    lambda leg: BodyReceived(leg, b""),
    lambda leg: TrailersReceived(leg),
)
FROM_SESSION = (
    ChunkVerified(1, ((0, "Hi"),), {"choices": []}),
    StreamBlocked(1, "no"),
    SessionDone(1),
    SessionFailed(1, "session"),  # type: ignore[arg-type]
)
CASES: list[tuple[Any, Callable[[Any], Any], list[Any], Any]] = [
    (
        REQUEST_TABLE,
        request_leg,
        [*(make(Leg.REQUEST) for make in FROM_ENVOY), VerdictReached(1, (Allow(),))],
        RequestState,
    ),
    (
        RESPONSE_TABLE,
        response_leg,
        [
            *(make(Leg.RESPONSE) for make in FROM_ENVOY),
            VerdictReached(1, (Allow(),)),
            *FROM_SESSION,
            RoomDemanded(),
            Woken(),
        ],
        ResponseState,
    ),
    (
        HELD_TABLE,
        held_answer,
        [BodyReceived(Leg.RESPONSE, b""), TrailersReceived(Leg.RESPONSE), VerdictReached(1, (Allow(),))],
        HeldState,
    ),
    (
        STREAM_TABLE,
        response_stream,
        [BodyReceived(Leg.RESPONSE, b""), StreamEnd(has_trailers=False), *FROM_SESSION, RoomDemanded(), Woken()],
        StreamState,
    ),
]
PAIRS = [
    pytest.param(table, make, state, event, id=f"{kind.__name__}-{state}-{type(event).__name__}")
    for table, make, events, kind in CASES
    for state in kind
    for event in events
]


@pytest.mark.parametrize(("table", "make", "state", "event"), PAIRS)
def test_every_pair_is_handled_or_a_named_error(table: Any, make: Any, state: StrEnum, event: Any) -> None:
    machine = make(state)
    assert (machine.state if make is held_answer else machine._state) is state
    is_in_order = True
    if make in (request_leg, response_leg) and isinstance(event, HeadersReceived | BodyReceived | TrailersReceived):
        is_in_order = (machine._inbound, type(event)) in INBOUND
        is_ignored = machine._inbound is Inbound.ENDED and isinstance(event, BodyReceived)
    else:
        is_ignored = False
    if is_in_order and (is_ignored or (state, type(event)) in table):
        machine.handle(event)
    else:
        with pytest.raises(IllegalEvent):
            machine.handle(event)


@pytest.mark.parametrize(("table", "make", "events", "kind"), CASES)
def test_table_names_no_pair_beside_the_states_and_events(table: Any, make: Any, events: Any, kind: Any) -> None:
    del make
    kinds = {type(event) for event in events}
    assert all(isinstance(state, kind) and event in kinds for state, event in table)


def test_exchange_routes_every_event_and_the_driver_performs_every_command() -> None:
    assert set(_ROUTES) == set(get_args(Event))
    assert set(_ACTIONS) == set(get_args(Command))


def test_illegal_pair_is_a_protocol_error_that_names_it() -> None:
    with pytest.raises(ProtocolError, match="VerdictReached in state idle"):
        find(REQUEST_TABLE, RequestState.IDLE, VerdictReached(1, ()))


@pytest.mark.parametrize("state", Inbound)
@pytest.mark.parametrize("make", FROM_ENVOY)
def test_every_order_of_messages_has_an_outcome(state: Inbound, make: Callable[[Leg], Any]) -> None:
    event = make(Leg.REQUEST)
    if (state, type(event)) in INBOUND:
        assert advance(state, event) in Inbound
    else:
        with pytest.raises(IllegalEvent, match=f"request {type(event).__name__} when {state} had arrived"):
            advance(state, event)


def test_end_of_stream_ends_a_leg() -> None:
    assert advance(Inbound.NOTHING, HeadersReceived(Leg.REQUEST, (), end_of_stream=True)) is Inbound.ENDED
    assert advance(Inbound.OPEN, BodyReceived(Leg.REQUEST, b"", end_of_stream=True)) is Inbound.ENDED
