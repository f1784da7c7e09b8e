"""Dry runs without I/O: everything passes at once, and a shadow exchange performs the detections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.commands import (
    CancelDetection,
    Close,
    CloseSession,
    Command,
    Complete,
    Detect,
    Hold,
    OpenSession,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    ReportGivenUp,
    ReportOutcome,
    ReportVerdict,
    SubmitChunk,
)
from extproc.core.dry_run import DryRun
from extproc.core.events import (
    BodyReceived,
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
from extproc.core.exchange import Exchange
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Block
from extproc.core.vocabulary import BodyMode, Headers, Leg
from tests.fakes.rig import DONE, chat_answer, chat_event, chat_request
from tests.fakes.world import VERDICT_TIMEOUT, policy

REQUEST = json.dumps(chat_request("Hello")).encode()
STREAMED = json.dumps(chat_request("Hello", stream=True)).encode()
HEAD: Headers = ((":method", "POST"), (":path", "/v1/chat/completions"), ("x-aim-user-email", "a@b.c"))
LIMITS = Limits()
DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
JSON: Headers = ((":status", "200"), ("content-type", "application/json"))
SSE: Headers = ((":status", "200"), ("content-type", "text/event-stream"))


class Run:
    """A dry run and all its commands so far."""

    def __init__(self, limits: Limits = LIMITS, mode: BodyMode = BodyMode.BUFFERED, **more: Any) -> None:
        self.dry_run = DryRun("call-1", policy(**more), limits, request_mode=mode)
        self.now = 1000.0
        self.commands: list[Command] = []

    def send(self, *events: Event) -> list[Command]:
        """Handle events; return the commands of the last one."""
        commands: list[Command] = []
        for event in events:
            commands = self.dry_run.handle(event, self.now)
            self.commands += commands
        return commands

    def all_of(self, kind: type) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def held(self) -> int:
        return int(self.all_of(Hold)[-1].size) if self.all_of(Hold) else 0


def asked(body: bytes = REQUEST, limits: Limits = LIMITS, **more: Any) -> Run:
    """Return a dry run whose request is being judged."""
    run = Run(limits, **more)
    run.send(HeadersReceived(Leg.REQUEST, HEAD), BodyReceived(Leg.REQUEST, body, end_of_stream=True))
    return run


def test_request_passes_at_once_and_is_detected() -> None:
    run = asked()
    assert run.commands[0] == Complete()
    (headers,) = run.all_of(ReleaseHeaders)
    assert headers == ReleaseHeaders(Leg.REQUEST, remove=("x-aim-user-email",))
    assert run.all_of(ReleaseBuffered) == [ReleaseBuffered(Leg.REQUEST)]
    assert len(run.all_of(Detect)) == 1


def test_block_is_reported_and_changes_nothing() -> None:
    run = asked()
    commands = run.send(VerdictReached(1, (Block("no"),), 7))
    assert {type(command) for command in commands} == {ReportVerdict, ReportOutcome, Hold}
    assert run.send(HeadersReceived(Leg.RESPONSE, JSON)) == [
        ReleaseHeaders(Leg.RESPONSE, set=(("x-aim-call-id", "call-1"),))
    ]
    body = BodyReceived(Leg.RESPONSE, b"x", end_of_stream=True)
    assert run.send(body) == [ReleaseBody(Leg.RESPONSE, b"x", end_of_stream=True)]
    assert run.send(StreamEnded()) == [Close()]


@pytest.mark.parametrize(
    "signed",
    [
        ("authorization", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;x-aim-session-id, Signature=ab12"),
        (":path", "/v1/chat/completions?X-Amz-SignedHeaders=host%3Bx-aim-session-id&X-Amz-Signature=ab12"),
    ],
)
def test_headers_that_the_client_has_signed_stay(signed: tuple[str, str]) -> None:
    run = Run()
    head = (*(each for each in HEAD if each[0] != signed[0]), signed, ("x-aim-session-id", "s-1"))
    run.send(HeadersReceived(Leg.REQUEST, head), BodyReceived(Leg.REQUEST, REQUEST, end_of_stream=True))
    (headers,) = run.all_of(ReleaseHeaders)
    assert headers.remove == ("x-aim-user-email",)
    assert [each.code for each in run.all_of(ReportOutcome)][-1] == "signed_header"  # as it would be refused


def test_only_the_shadow_holds_the_response_until_the_requests_verdict() -> None:
    run = asked()
    run.send(HeadersReceived(Leg.RESPONSE, JSON), BodyReceived(Leg.RESPONSE, chat_answer("Hi"), end_of_stream=True))
    assert run.all_of(ReleaseBody)[-1].data == chat_answer("Hi")
    assert len(run.all_of(Detect)) == 1
    assert run.held > len(chat_answer("Hi"))
    run.send(VerdictReached(1, (Allow(),)))
    assert len(run.all_of(Detect)) == 2


def test_dry_run_outlives_its_stream_until_aim_has_answered() -> None:
    run = asked()
    run.send(HeadersReceived(Leg.RESPONSE, JSON), BodyReceived(Leg.RESPONSE, chat_answer("Hi"), end_of_stream=True))
    assert run.send(StreamEnded()) == []
    assert Close() not in run.send(VerdictReached(1, (Allow(),)))
    assert run.send(VerdictReached(2, (Allow(),)))[-2:] == [Close(), Hold(0)]
    assert run.dry_run.handle(Woken(), run.now) == []


def test_silent_session_ends_a_dry_run_that_outlives_its_stream() -> None:
    run = asked(STREAMED)
    run.send(VerdictReached(1, (Allow(),)), HeadersReceived(Leg.RESPONSE, SSE))
    run.send(BodyReceived(Leg.RESPONSE, chat_event("Hi"), end_of_stream=True), StreamEnded())
    assert run.all_of(SubmitChunk)
    assert Close() not in run.commands
    run.now += VERDICT_TIMEOUT
    assert run.dry_run.deadline is not None
    assert Close() in run.send(Woken())


def test_session_of_a_whole_stream_is_closed() -> None:
    run = asked(STREAMED)
    run.send(VerdictReached(1, (Allow(),)), HeadersReceived(Leg.RESPONSE, SSE))
    run.send(BodyReceived(Leg.RESPONSE, DONE, end_of_stream=True))
    assert len(run.all_of(OpenSession)) == len(run.all_of(CloseSession)) == 1
    session = run.all_of(OpenSession)[0].session
    assert run.send(SessionDone(session), StreamEnded()) == [Close()]


@pytest.mark.parametrize("mode", BodyMode)
def test_unmatched_body_bypasses_the_sidecar(mode: BodyMode) -> None:
    run = Run(mode=mode, unmatched="block")
    (*_, headers) = run.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/other"))))
    assert headers == ReleaseHeaders(Leg.REQUEST, replace_body=mode is BodyMode.BUFFERED)


@pytest.mark.parametrize(
    ("kind", "body", "is_read"),
    [
        ("application/json", b'{"q":"Hello you"}', True),
        ("text/plain", b'{"q":"Hello you"}', True),
        ("text/plain", b"Hello you", False),
    ],
)
def test_json_on_an_unmatched_path_is_read_in_the_shadow_alone(kind: str, body: bytes, is_read: bool) -> None:
    run = Run()
    head: Headers = ((":method", "PUT"), (":path", "/x"), ("content-type", kind), ("content-length", str(len(body))))
    (*_, headers) = run.send(HeadersReceived(Leg.REQUEST, head))
    assert headers == ReleaseHeaders(Leg.REQUEST)
    run.send(BodyReceived(Leg.REQUEST, body, end_of_stream=True))
    assert run.all_of(ReleaseBuffered) == [ReleaseBuffered(Leg.REQUEST)]
    assert len(run.all_of(Detect)) == is_read
    if is_read:
        run.send(VerdictReached(1, (Block("no"),)))
        assert run.all_of(ReportOutcome)[-1].outcome == "blocked"
    (headers,) = run.send(HeadersReceived(Leg.RESPONSE, ((":status", "200"),)))
    assert bool(headers.set) is is_read  # type: ignore[union-attr]


def test_upload_on_an_unmatched_path_bypasses_the_sidecar() -> None:
    run = Run()
    head: Headers = ((":method", "POST"), (":path", "/x"), ("content-type", "multipart/form-data"))
    assert run.send(HeadersReceived(Leg.REQUEST, head))[-1] == ReleaseHeaders(Leg.REQUEST, replace_body=True)


def test_answer_that_only_the_shadow_reads_has_the_call_id() -> None:
    run = Run()
    stored: Headers = ((":method", "GET"), (":path", "/v1/responses/resp_1"))
    run.send(HeadersReceived(Leg.REQUEST, stored, end_of_stream=True))
    assert run.send(HeadersReceived(Leg.RESPONSE, JSON)) == [
        ReleaseHeaders(Leg.RESPONSE, set=(("x-aim-call-id", "call-1"),))
    ]


def test_body_that_is_too_large_bypasses_the_sidecar() -> None:
    run = Run(Limits(request_bytes=1024))
    run.send(HeadersReceived(Leg.REQUEST, (*HEAD, ("content-length", "5000"))))
    assert run.all_of(ReleaseHeaders)[0].replace_body


def test_trailers_and_pieces_pass_in_full_duplex() -> None:
    run = Run(mode=DUPLEX)
    run.send(HeadersReceived(Leg.REQUEST, HEAD))
    assert ReleaseBody(Leg.REQUEST, b"a") in run.send(BodyReceived(Leg.REQUEST, b"a"))
    assert ReleaseTrailers(Leg.REQUEST) in run.send(TrailersReceived(Leg.REQUEST))


def test_dry_run_that_holds_too_much_gives_up() -> None:
    run = asked(limits=Limits(request_bytes=1024, response_bytes=1024))
    run.send(HeadersReceived(Leg.RESPONSE, JSON))
    commands = run.send(BodyReceived(Leg.RESPONSE, b"x" * 4096))
    assert ReportGivenUp() in commands
    assert CancelDetection(1) in commands
    assert run.held == 0
    # From now on everything passes, and the shadow gets no events.
    assert run.send(VerdictReached(1, (Allow(),))) == []
    assert run.send(LoadChanged(is_overloaded=True)) == []
    tail = BodyReceived(Leg.RESPONSE, b"y", end_of_stream=True)
    assert run.send(tail) == [ReleaseBody(Leg.RESPONSE, b"y", end_of_stream=True)]
    assert run.send(StreamEnded()) == [Close()]
    assert not [outcome for outcome in run.all_of(ReportOutcome) if outcome.outcome == "aborted"]


def test_dry_run_yields_when_the_process_is_overloaded() -> None:
    run = asked()
    assert run.send(LoadChanged(is_overloaded=False)) == []
    assert ReportGivenUp() in run.send(LoadChanged(is_overloaded=True))
    assert run.send(StreamEnded()) == [Close()]


def test_dry_run_offers_all_that_it_holds_and_gives_it_up_on_demand() -> None:
    run = asked()
    assert run.all_of(Hold)[-1].yields == run.held > 0
    assert ReportGivenUp() in run.send(RoomDemanded())
    assert run.held == run.all_of(Hold)[-1].yields == 0
    assert run.send(RoomDemanded()) == []
    assert run.send(StreamEnded()) == [Close()]


def test_limit_of_a_dry_run_counts_bodies_alone() -> None:
    text = "x" * 900
    run = asked(json.dumps(chat_request(text)).encode(), Limits(request_bytes=1024, response_bytes=1024))
    assert run.held > 2048
    assert ReportGivenUp() not in run.commands


@pytest.mark.parametrize("has_ended", [False, True])
def test_broken_shadow_does_not_affect_the_exchange(monkeypatch: pytest.MonkeyPatch, has_ended: bool) -> None:
    run = asked()
    error = RuntimeError("a defect")

    def fail(*_: object) -> list[Command]:
        raise error

    if has_ended:
        run.send(StreamEnded())
    monkeypatch.setattr(Exchange, "handle", fail)
    commands = run.send(VerdictReached(1, (Allow(),)))
    assert commands[0] == ReportGivenUp(error)
    if has_ended:
        assert Close() in commands
        return
    body = BodyReceived(Leg.RESPONSE, b"x")
    assert run.send(body) == [ReleaseBody(Leg.RESPONSE, b"x")]
    assert run.send(StreamEnded()) == [Close()]


def test_stream_that_ends_early_is_not_counted_as_aborted() -> None:
    run = Run()
    run.send(HeadersReceived(Leg.REQUEST, HEAD))
    assert Close() in run.send(StreamEnded())
    assert [command.outcome for command in run.all_of(ReportOutcome)] == ["allowed"]


def test_response_that_waits_for_an_unfinished_request_does_not_keep_the_dry_run() -> None:
    run = Run()
    run.send(HeadersReceived(Leg.REQUEST, HEAD))
    run.send(HeadersReceived(Leg.RESPONSE, ((":status", "408"), ("content-type", "text/plain"))))
    run.send(BodyReceived(Leg.RESPONSE, b"too slow", end_of_stream=True))
    assert Close() in run.send(StreamEnded())
    assert run.held == 0


def test_broken_shadow_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    run = asked(STREAMED)
    run.send(VerdictReached(1, (Allow(),)), HeadersReceived(Leg.RESPONSE, SSE))
    run.send(BodyReceived(Leg.RESPONSE, chat_event("Hi")))
    assert run.dry_run.deadline is not None

    def fail(*_: object) -> list[Command]:
        raise RuntimeError

    monkeypatch.setattr(Exchange, "handle", fail)
    run.send(BodyReceived(Leg.RESPONSE, chat_event("you")))
    assert run.dry_run.deadline is None


def test_dry_run_of_an_overloaded_process_is_refused_in_the_shadow_alone() -> None:
    run = Run()
    run.send(LoadChanged(is_overloaded=True), HeadersReceived(Leg.REQUEST, HEAD))
    assert run.all_of(ReportOutcome)[-1] == ReportOutcome("refused", "guardrail_overloaded")
    (headers,) = run.all_of(ReleaseHeaders)
    assert headers.leg is Leg.REQUEST
    response = run.send(HeadersReceived(Leg.RESPONSE, JSON))
    assert response == [ReleaseHeaders(Leg.RESPONSE)]  # nothing was read, so there is no call id
    assert Close() in run.send(StreamEnded())


def test_overload_ends_a_dry_run_that_outlives_its_stream() -> None:
    run = asked()
    assert Close() not in run.send(StreamEnded())
    commands = run.send(LoadChanged(is_overloaded=True))
    assert {ReportGivenUp(), CancelDetection(1), Close()} <= set(commands)


def test_shadow_sends_no_pings() -> None:
    run = asked(STREAMED, stream_ping_seconds=1)
    run.send(VerdictReached(1, (Allow(),)), HeadersReceived(Leg.RESPONSE, SSE))
    run.send(BodyReceived(Leg.RESPONSE, chat_event("Hi")))
    assert run.dry_run.deadline == run.now + 2  # the head of the stream
