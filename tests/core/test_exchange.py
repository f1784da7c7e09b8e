"""Transcripts of exchanges: events, and the commands that follow from them."""

from __future__ import annotations

import gc
import gzip
import json
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from extproc.core.commands import CancelDetection, ReportFailOpen, ReportVerdict
from extproc.core.errors import Reason
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
from extproc.core.exchange import misconfigured
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor
from extproc.core.vocabulary import BodyMode, Headers, Hook, Input, Leg
from tests.fakes.rig import chat_answer, chat_event, chat_request
from tests.fakes.world import World, policy

REQUEST = json.dumps(chat_request("Hello")).encode()
DUPLEX = BodyMode.FULL_DUPLEX_STREAMED


def world(mode: BodyMode = BodyMode.BUFFERED, limits: dict[str, int] | None = None, **profile: Any) -> World:
    return World(policy(**profile), Limits(**(limits or {})), mode)


def answered(contents: tuple[str, ...] = ("Hi",), **profile: Any) -> World:
    """Return an exchange whose answer is being judged."""
    return world(**profile).request(REQUEST).judge().head("application/json").body(chat_answer(*contents), end=True)


class TestRequest:
    def test_headers_are_released_at_once_and_the_body_after_the_verdict(self) -> None:
        it = world().request(REQUEST, ("x-aim-user-email", "a@b.c"), ("X-Other".lower(), "1"), ("x-cato-x", "1"))
        assert it.upstream.headers is not None
        assert it.upstream.headers.remove == ("x-aim-user-email", "x-cato-x", "accept-encoding")
        assert it.upstream.buffered is None
        (question,) = it.asked
        assert question.hook is Hook.PRE_CALL
        assert question.inputs == (Input(({"role": "user", "content": "Hello"},)),)
        it.judge()
        assert it.upstream.buffered is not None
        assert it.upstream.buffered.body is None
        assert it.reports == [ReportVerdict(Leg.REQUEST, Hook.PRE_CALL, (Allow(),), 7)]

    def test_full_duplex_holds_headers_too(self) -> None:
        it = world(DUPLEX)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        it.send(BodyReceived(Leg.REQUEST, REQUEST[:9]))
        it.send(BodyReceived(Leg.REQUEST, REQUEST[9:], end_of_stream=True))
        assert it.upstream.headers is None
        it.judge()
        assert (it.upstream.body, it.upstream.is_ended) == (REQUEST, True)

    def test_full_duplex_request_ends_with_its_trailers(self) -> None:
        it = world(DUPLEX).request(REQUEST, trailers=True).judge()
        assert (it.upstream.body, it.upstream.is_ended) == (REQUEST, True)

    def test_a_buffered_body_with_trailers_is_whole(self) -> None:
        it = world().request(REQUEST, trailers=True)
        assert len(it.asked) == 1
        it.judge()
        assert it.upstream.buffered is not None
        assert it.upstream.is_ended

    def test_trailers_after_the_release_are_released(self) -> None:
        it = world(hooks=["output"])
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        it.send(BodyReceived(Leg.REQUEST, REQUEST))
        it.send(TrailersReceived(Leg.REQUEST))
        assert it.upstream.is_ended

    @pytest.mark.parametrize("body", [b"", b"  \n", b'{"messages":[]}', b'{"model":"x"}'])
    def test_request_without_text_starts_no_detection(self, body: bytes) -> None:
        it = world().request(body)
        assert it.asked == []
        assert it.upstream.buffered is not None

    def test_matched_request_without_a_body_is_released(self) -> None:
        it = world().request(None).head("application/json", end=True)
        assert it.asked == []
        assert it.response.headers is not None

    def test_monitor_verdict_releases_the_request(self) -> None:
        it = world().request(REQUEST).judge(Monitor(("p",)))
        assert it.upstream.buffered is not None
        assert it.record.as_fields()["request"] == {"action": "monitor", "policies": ["p"], "ms": 7}

    @pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.KEY_REFUSED])
    def test_refusal_names_its_reason(self, reason: Reason) -> None:
        it = world().request(REQUEST).judge(Failed(reason))
        assert (it.record.outcome, it.record.code, it.record.reason) == ("refused", "guardrail_unavailable", reason)

    def test_unreadable_body_names_its_reason(self) -> None:
        for encoding, reason in (("x", "unsupported_encoding"), ("gzip", "body_unreadable")):
            it = world().request(REQUEST, ("content-encoding", encoding))
            assert (it.record.outcome, it.record.code, it.record.reason) == ("refused", "invalid_body", reason)

    def test_open_failure_names_its_reason(self) -> None:
        it = world(failure_mode_allow=True).request(REQUEST).judge(Failed(Reason.TIMEOUT))
        assert (it.record.outcome, it.record.reason) == ("failed_open", "timeout")

    def test_block_is_an_immediate_response(self) -> None:
        it = world().request(REQUEST).judge(Block("No."))
        assert it.reply is not None
        assert (it.reply.status, it.reply.details) == (400, "aim_content_policy_violation")
        assert ("x-aim-call-id", "call-1") in it.reply.headers
        assert json.loads(it.reply.body)["error"]["message"] == "No."
        assert it.record.outcome == "blocked"
        assert it.send(BodyReceived(Leg.REQUEST, b"x")) == []

    @pytest.mark.parametrize(
        ("setting", "message", "expected"),
        [
            ("", None, "The request was blocked by the organization's AI security policy."),
            ("Ours", "Aim's", "Ours"),
        ],
    )
    def test_block_has_the_right_message(self, setting: str, message: str | None, expected: str) -> None:
        it = world(block_message=setting).request(REQUEST).judge(Block(message))
        assert it.reply is not None
        assert json.loads(it.reply.body)["error"]["message"] == expected

    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_redaction_changes_only_its_text(self, mode: BodyMode) -> None:
        body = b'{ "messages":[{"content" : "I am Jane", "x": 1.0}],"n":[1 ,2] }'
        it = world(mode).request(body, ("content-encoding", "identity")).judge(Anonymize(("I am [N]",)))
        expected = body.replace(b"I am Jane", b"I am [N]")
        if mode is BodyMode.BUFFERED:
            buffered = it.upstream.buffered
            assert buffered is not None
            assert buffered.body == expected
            assert buffered.set == (("content-length", str(len(expected))),)
            assert "content-encoding" in buffered.remove
        else:
            assert it.upstream.body == expected
            assert it.upstream.headers is not None
            assert {"content-length", "content-encoding"} <= set(it.upstream.headers.remove)
        it.head("application/json").body(chat_answer("Hi"), end=True)
        assert it.asked[-1].inputs[0].messages == ({"content": "I am [N]", "x": 1.0, "role": "user"},)
        assert it.record.outcome == "redacted"

    def test_messages_without_a_text_survive_a_redaction(self) -> None:
        call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "{}"}}]}
        body = json.dumps({"messages": [call, {"role": "user", "content": "Jane"}]}).encode()
        it = world().request(body).judge(Anonymize((None, "[N]")))
        it.head("application/json").body(chat_answer("Hi"), end=True)
        assert it.asked[-1].inputs[0].messages == (call, {"role": "user", "content": "[N]"})

    @pytest.mark.parametrize("texts", [(), ("a", "b"), (None,), ("Hello",)])
    def test_doubtful_redaction_is_refused(self, texts: tuple[str | None, ...]) -> None:
        it = world(failure_mode_allow=True).request(REQUEST).judge(Anonymize(texts))
        assert it.reply is not None
        assert (it.status, it.code) == (400, "redaction_failed")

    def test_failure_is_refused_by_default(self) -> None:
        it = world().request(REQUEST).judge(Failed(Reason.TIMEOUT))
        assert it.reply is not None
        assert (it.status, it.code) == (503, "guardrail_unavailable")

    def test_failing_open_is_counted(self) -> None:
        it = world(failure_mode_allow={"request": ["timeout"]}).request(REQUEST).judge(Failed(Reason.TIMEOUT))
        assert it.upstream.buffered is not None
        assert ReportFailOpen(Leg.REQUEST, Reason.TIMEOUT) in it.reports
        assert it.record.outcome == "failed_open"

    @pytest.mark.parametrize(
        ("body", "headers", "status", "code"),
        [
            (b"{", (), 400, "invalid_body"),
            (b"\xff", (), 400, "invalid_body"),
            (b"[]", (), 400, "invalid_body"),
            (b'{"messages":[],"messages":[]}', (), 400, "invalid_body"),
            (REQUEST, (("content-encoding", "gzip, br"),), 400, "invalid_body"),
            (REQUEST, (("content-encoding", "gzip"),), 400, "invalid_body"),
            (REQUEST, (("content-type", "application/json; charset=utf-7"),), 400, "invalid_body"),
            (REQUEST, (("content-type", 'application/json;charset="utf-8"; Charset=UTF-7'),), 400, "invalid_body"),
            (REQUEST, (("content-type", "application/json ; charset=utf-16"),), 400, "invalid_body"),
            (b" " * 2000, (), 413, "request_too_large"),
            (gzip.compress(bytes(200_000)), (("content-encoding", "gzip"),), 413, "request_too_large"),
            (b"{}", (("content-length", "2000"),), 413, "request_too_large"),
        ],
    )
    def test_unreadable_request_is_refused_or_released_by_policy(
        self, body: bytes, headers: Headers, status: int, code: str
    ) -> None:
        it = world(limits={"request_bytes": 1024}).request(body, *headers)
        assert it.reply is not None
        assert (it.status, it.code) == (status, code)
        for mode in BodyMode:
            it = world(mode, limits={"request_bytes": 1024}, failure_mode_allow=True).request(body, *headers)
            assert it.reply is None
            assert it.asked == []
            if mode is DUPLEX:
                assert it.upstream.body == body
                assert it.upstream.is_ended

    @pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "iso-8859-1", ""])
    def test_request_in_a_charset_that_keeps_ascii_is_read(self, charset: str) -> None:
        it = world().request(REQUEST, ("content-type", f"application/json; charset={charset}"))
        assert it.reply is None
        assert len(it.asked) == 1

    def test_request_that_grows_too_large_fails_open_in_pieces(self) -> None:
        it = world(DUPLEX, limits={"request_bytes": 1024}, failure_mode_allow=True)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        for _ in range(3):
            it.send(BodyReceived(Leg.REQUEST, b"x" * 1000))
        it.send(BodyReceived(Leg.REQUEST, b"", end_of_stream=True))
        assert (len(it.upstream.body), it.upstream.is_ended) == (3000, True)

    def test_request_is_only_context_under_output_alone(self) -> None:
        it = world(hooks=["output"]).request(REQUEST)
        assert it.asked == []
        it.head("application/json").body(chat_answer("Hi"), end=True)
        assert it.asked[0].inputs[0].messages == ({"role": "user", "content": "Hello"},)
        for body, headers in ((b"{", ()), (b"{}", (("content-length", "99999999"),))):
            it = world(hooks=["output"]).request(body, *headers)
            assert it.reply is None

    def test_overloaded_process_refuses_requests(self) -> None:
        it = World(is_overloaded=True)
        it.request(REQUEST)
        assert it.reply is not None
        assert (it.status, it.code) == (503, "guardrail_overloaded")
        passing = World(is_overloaded=True)
        passing.request(b"x", path="/other")
        assert passing.reply is None

    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_request_body_is_refused_in_an_overloaded_process(self, mode: BodyMode) -> None:
        it = World(mode=mode)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        it.send(LoadChanged(is_overloaded=True))
        it.send(BodyReceived(Leg.REQUEST, b"{}", end_of_stream=True))
        assert (it.status, it.code) == (503, "guardrail_overloaded")
        assert it.held == 0

    def test_answer_is_refused_if_the_process_becomes_overloaded(self) -> None:
        it = World().request(REQUEST).judge().head("application/json").body(b"{")
        it.send(LoadChanged(is_overloaded=True))
        it.body(b"}", end=True)
        assert (it.status, it.code) == (503, "guardrail_overloaded")
        assert it.held == 0

    def test_body_after_the_end_is_ignored(self) -> None:
        it = world().request(REQUEST)
        assert it.send(BodyReceived(Leg.REQUEST, b"more", end_of_stream=True)) == []


class TestUnmatched:
    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_unmatched_exchange_passes(self, mode: BodyMode) -> None:
        it = world(mode)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/files"), ("x-aim-y", "1"))))
        assert it.upstream.headers is not None
        assert it.upstream.headers.remove == ("x-aim-y",)
        assert it.upstream.headers.replace_body is (mode is BodyMode.BUFFERED)
        it.send(BodyReceived(Leg.REQUEST, b"abc", end_of_stream=True))
        if mode is DUPLEX:
            assert it.upstream.body == b"abc"
        it.head("text/plain").body(b"de").body(b"f", end=True)
        assert (it.response.body, it.response.is_ended) == (b"def", True)
        assert it.response.headers is not None
        assert it.response.headers.set == ()
        assert it.record.outcome == "unmatched"

    def test_trailers_of_an_unmatched_exchange_pass(self) -> None:
        it = world(DUPLEX).request(b"x", path="/other", trailers=True).head("text/plain").body(b"x").trailers()
        assert it.upstream.is_ended
        assert it.response.is_ended

    def test_headers_without_a_body_pass(self) -> None:
        it = world().request(None, path="/v1/models", method="GET")
        assert it.upstream.headers is not None
        assert not it.upstream.headers.replace_body

    def test_unmatched_path_can_be_blocked(self) -> None:
        it = world(unmatched="block").request(b"x", path="/other")
        assert it.reply is not None
        assert (it.status, it.code) == (403, "path_not_allowed")

    def test_without_hooks_nothing_is_inspected(self) -> None:
        it = world(hooks=[]).request(REQUEST).head("application/json").body(b"x", end=True)
        assert it.asked == []
        assert it.response.body == b"x"

    @pytest.mark.parametrize("head", [((":method", "GET"), ("upgrade", "websocket")), ((":method", "CONNECT"),)])
    def test_upgrade_on_a_dialects_path_is_refused(self, head: Headers) -> None:
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, (*head, (":path", "/v1/chat/completions"))))
        assert it.code == "upgrade_not_inspected"
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, (*head, (":path", "/socket"))))
        assert it.upstream.headers is not None
        assert it.upstream.headers.replace_body


class TestModeration:
    def test_request_is_released_at_once_and_the_response_waits(self) -> None:
        it = world(hooks=["moderation", "output"]).request(REQUEST)
        assert it.upstream.buffered is not None
        it.head("application/json", "500").body(b'"sorry"', end=True)
        assert it.response.headers is None
        assert it.exchange.held_bodies == 7 + sys.getsizeof('"sorry"')
        it.judge().judge()
        assert (it.response.body, it.response.is_ended) == (b'"sorry"', True)
        assert it.held == 0

    @pytest.mark.parametrize("has_answered", [False, True])
    @pytest.mark.parametrize(
        ("outcome", "status", "code"),
        [
            (Block("No."), 400, "content_policy_violation"),
            (Anonymize(("x",)), 400, "redaction_failed"),
            (Failed(Reason.TIMEOUT), 503, "guardrail_unavailable"),
        ],
    )
    def test_moderation_refuses_at_any_time(self, outcome: Any, status: int, code: str, has_answered: bool) -> None:
        it = world(hooks=["moderation"]).request(REQUEST)
        if has_answered:
            it.head("application/json").body(b"{}", end=True)
        it.judge(outcome)
        assert it.reply is not None
        assert (it.status, it.code) == (status, code)
        assert it.response.headers is None

    def test_moderation_may_fail_open(self) -> None:
        it = world(hooks=["moderation"], failure_mode_allow={"request": True}).request(REQUEST)
        it.head("application/json").body(b"{}", end=True).judge(Failed(Reason.TIMEOUT))
        assert it.response.body == b"{}"

    def test_moderation_after_pre_call_sees_the_redacted_request(self) -> None:
        it = world(hooks=["pre_call", "moderation"]).request(REQUEST)
        assert [question.hook for question in it.asked] == [Hook.PRE_CALL]
        it.judge(Anonymize(("[X]",)))
        assert it.asked[1].hook is Hook.MODERATION
        assert it.asked[1].inputs[0].messages == ({"role": "user", "content": "[X]"},)

    def test_block_of_the_answer_does_not_wait_for_moderation(self) -> None:
        it = world(hooks=["moderation", "output"]).request(REQUEST)
        it.head("application/json").body(chat_answer("Hi"), end=True)
        output = it.asked[1].detection
        commands = it.send(VerdictReached(output, (Block("No."),)))
        assert it.reply is not None
        assert CancelDetection(it.asked[0].detection) in commands

    def test_a_passing_response_pauses_while_much_waits(self) -> None:
        it = world(hooks=["moderation"], limits={"held_bytes": 1024}).request(REQUEST)
        it.head("application/json").body(b"x" * 2000)
        assert it.is_paused
        it.judge()
        assert not it.is_paused


class TestAnswer:
    def test_allowed_answer_is_released_unchanged(self) -> None:
        it = answered()
        assert it.response.headers is None
        it.judge()
        assert it.response.body == chat_answer("Hi")
        assert it.response.headers is not None
        assert it.response.headers.set == (("x-aim-call-id", "call-1"),)
        assert it.record.outcome == "allowed"

    def test_answer_is_judged_text_by_text(self) -> None:
        it = answered(("one", "two"))
        messages = ({"role": "user", "content": "Hello"},)
        assert it.asked[1].inputs == (Input(messages, "one"), Input(messages, "two"))
        it.judge(Allow(), Block("No.", ("p",)))
        assert it.code == "content_policy_violation"
        assert it.record.legs["response"].policies == ("p",)

    def test_message_that_quotes_the_answer_is_replaced(self) -> None:
        it = answered(("the Password is swordfish",)).judge(Block("Found 'password'"))
        assert it.reply is not None
        assert "assword" not in it.reply.body.decode()

    def test_redaction_changes_only_its_text(self) -> None:
        it = answered(("keep", "Jane")).judge(Allow(), Anonymize(("Hello", "[N]")))
        assert it.response.body == chat_answer("keep", "[N]")
        assert it.response.headers is not None
        assert "content-encoding" in it.response.headers.remove

    @pytest.mark.parametrize("texts", [(), ("Hello", None), ("Hello", "Hi")])
    def test_doubtful_redaction_is_refused(self, texts: tuple[str | None, ...]) -> None:
        it = answered(failure_mode_allow=True).judge(Anonymize(texts))
        assert it.reply is not None
        assert (it.status, it.code) == (502, "redaction_failed")

    def test_failure_is_refused_or_released_by_policy(self) -> None:
        it = answered().judge(Failed(Reason.UNREACHABLE))
        assert it.code == "guardrail_unavailable"
        it = answered(("a", "b"), failure_mode_allow=True).judge(Failed(Reason.UNREACHABLE), Anonymize(("x", "[B]")))
        assert it.response.body == chat_answer("a", "[B]")
        assert it.record.outcome == "failed_open"

    @pytest.mark.parametrize("body", [b"", b"  ", b'{"id":1}', chat_answer(), b"[]"])
    def test_answer_without_text_passes(self, body: bytes) -> None:
        it = world().request(REQUEST).judge().head("text/plain").body(body, end=True)
        assert len(it.asked) == 1
        assert (it.response.body, it.response.is_ended) == (body, True)

    def test_trailers_end_the_answer(self) -> None:
        it = world().request(REQUEST).judge().head("application/json").body(chat_answer("Hi")).trailers()
        assert not it.response.is_ended
        it.judge()
        assert (it.response.body, it.response.is_ended) == (chat_answer("Hi"), True)
        it = world().request(REQUEST).judge().head("application/json").trailers()
        assert (it.response.body, it.response.is_ended) == (b"", True)

    @pytest.mark.parametrize(
        ("content_type", "body", "headers"),
        [
            ("text/html", b"<p>", ()),
            ("application/json", b'{"choices":[],"choices":[]}', ()),
            ("application/json", b"{}", (("content-encoding", "x"),)),
            ("application/json", b"x" * 2000, ()),
            ("application/json", b"{}", (("content-length", "2000"),)),
        ],
    )
    def test_unreadable_answer_is_refused_or_released_by_policy(
        self, content_type: str, body: bytes, headers: Headers
    ) -> None:
        limits = {"response_bytes": 1024}
        it = world(limits=limits).request(REQUEST).judge().head(content_type, "200", *headers).body(body, end=True)
        assert it.reply is not None
        assert (it.status, it.code) == (502, "guardrail_unreadable_response")
        for pieces in ([body], [body[:1500], body[1500:]]):
            it = world(limits=limits, failure_mode_allow=True).request(REQUEST).judge()
            it.head(content_type, "200", *headers)
            for piece in pieces[:-1]:
                it.body(piece)
            it.body(pieces[-1], end=True)
            assert (it.response.body, it.response.is_ended) == (body, True)

    def test_large_answer_fails_open_before_its_trailers(self) -> None:
        it = world(limits={"response_bytes": 1024}, failure_mode_allow=True).request(REQUEST).judge()
        it.head("application/json").body(b"x" * 2000).trailers()
        assert (len(it.response.body), it.response.is_ended) == (2000, True)

    @pytest.mark.parametrize(
        ("status", "content_type"), [("404", "text/html"), ("302", "application/json"), ("503", "")]
    )
    def test_other_statuses_and_errors_of_other_types_pass_unread(self, status: str, content_type: str) -> None:
        it = world().request(REQUEST).judge().head(content_type, status).body(b"x", end=True)
        assert it.response.body == b"x"
        assert it.response.headers is not None
        assert it.response.headers.set == (("x-aim-call-id", "call-1"),)

    def test_answer_passes_without_the_output_hook(self) -> None:
        it = world(hooks=["pre_call"]).request(REQUEST).judge().head("application/json").body(b"{}", end=True)
        assert it.response.body == b"{}"

    def test_body_during_the_detection_is_ignored(self) -> None:
        it = answered()
        assert it.send(BodyReceived(Leg.RESPONSE, b"x", end_of_stream=True)) == []


class TestLocalReplies:
    def test_envoys_own_answer_cancels_the_detection(self) -> None:
        it = world().request(REQUEST).head("text/plain", "504").body(b"timeout", end=True)
        assert it.detections == {}
        assert it.response.body == b"timeout"
        assert not it.exchange.is_request_unreleased

    def test_envoys_413_is_replaced_by_the_sidecars(self) -> None:
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        it.head("text/plain", "413")
        assert it.reply is not None
        assert (it.status, it.code) == (413, "request_too_large")

    def test_local_reply_may_be_the_first_message(self) -> None:
        it = world().head("text/plain", "400").body(b"bad", end=True)
        assert it.response.body == b"bad"


class TestProtocol:
    def test_an_unknown_profile_has_an_answer(self) -> None:
        reply = misconfigured()
        assert (reply.status, reply.details) == (500, "aim_guardrail_misconfigured")
        assert json.loads(reply.body)["error"]["code"] == "guardrail_misconfigured"

    def test_exchange_is_complete_after_the_last_verdict(self) -> None:
        it = answered()
        assert not it.is_complete
        it.judge()
        assert it.is_complete

    @pytest.mark.parametrize(
        "event",
        [
            HeadersReceived(Leg.REQUEST, ()),
            HeadersReceived(Leg.RESPONSE, ()),
            TrailersReceived(Leg.RESPONSE),
        ],
    )
    def test_repeated_message_is_an_error(self, event: Any) -> None:
        it = answered()
        it.send(event)
        assert it.reset is not None
        assert it.is_closed
        assert it.detections == {}

    @pytest.mark.parametrize(
        "event",
        [BodyReceived(Leg.REQUEST, b""), BodyReceived(Leg.RESPONSE, b""), TrailersReceived(Leg.RESPONSE)],
    )
    def test_message_out_of_order_is_an_error(self, event: Any) -> None:
        it = world()
        it.send(event)
        assert it.reset is not None

    def test_request_after_its_response_is_an_error(self) -> None:
        it = world().head("text/plain", "400")
        it.send(HeadersReceived(Leg.REQUEST, ()))
        assert it.reset is not None

    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_trailers_after_the_end_are_an_error(self, mode: BodyMode) -> None:
        it = world(mode).request(REQUEST)
        it.send(TrailersReceived(Leg.REQUEST))
        assert it.reset is not None

    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_passing_leg_ends_once(self, mode: BodyMode) -> None:
        it = world(mode).request(b"a", path="/other")
        assert it.send(BodyReceived(Leg.REQUEST, b"b", end_of_stream=True)) == []

    def test_a_second_buffered_body_is_ignored(self) -> None:
        it = world().request(b"a", path="/other", trailers=True)
        assert it.upstream.is_ended
        it = world().request(None, path="/other")
        assert it.send(BodyReceived(Leg.REQUEST, b"b")) == []

    def test_bytes_of_a_stream_after_its_end_are_ignored(self) -> None:
        it = world().request(REQUEST).judge().head().body(b": ping\n\n", end=True)
        assert it.send(BodyReceived(Leg.RESPONSE, b": more\n\n")) == []
        assert it.held == 0

    def test_trailers_are_dropped_if_envoy_has_answered_the_request(self) -> None:
        it = world(DUPLEX)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        it.head("text/plain", "408", end=True)
        assert it.send(TrailersReceived(Leg.REQUEST)) == []

    def test_verdict_of_an_unknown_detection_is_ignored(self) -> None:
        it = world().request(REQUEST)
        assert it.send(VerdictReached(99, (Block(),))) == []

    def test_event_of_an_unknown_session_is_ignored(self) -> None:
        it = world().request(REQUEST)
        assert it.send(SessionDone(99)) == []
        assert it.send(Woken()) == []


class TestTrailersAlone:
    """A request of headers and trailers, without a body between them."""

    def _world(self) -> World:
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
        return it

    def test_trailers_are_released(self) -> None:
        it = self._world()
        it.send(TrailersReceived(Leg.REQUEST))
        assert it.upstream.is_ended

    @pytest.mark.parametrize("are_seen", [False, True])
    def test_answer_is_judged(self, are_seen: bool) -> None:
        it = self._world()
        if are_seen:
            it.send(TrailersReceived(Leg.REQUEST))
        it.head("application/json").body(chat_answer("SECRET"), end=True)
        assert it.response.headers is None
        it.judge(Block("No."))
        assert it.code == "content_policy_violation"


class TestDisguise:
    @pytest.mark.parametrize(
        "body",
        [
            {"MESSAGES": []},
            {"messages": [], "Messages": [{"role": "user", "content": "SECRET"}]},
            {"me\u017f\u017fages": []},
            {"messages": [{"role": "user", "Content": "SECRET"}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "Text": "SECRET"}]}]},
        ],
    )
    def test_keys_in_another_case_are_refused(self, body: Any) -> None:
        assert world().request(json.dumps(body).encode()).code == "invalid_body"

    def test_input_of_a_tool_may_have_any_keys(self) -> None:
        block = {"type": "tool_use", "id": "1", "name": "f", "input": {"Text": "x"}}
        body = {"messages": [{"role": "assistant", "content": [block]}], "metadata": {"Text": "x"}}
        assert world().request(json.dumps(body).encode(), path="/v1/messages").reply is None


class TestBounds:
    @pytest.mark.parametrize("is_open", [False, True])
    def test_too_many_headers_are_refused_whatever_the_policy(self, is_open: bool) -> None:
        head = [("x", "1")] * 15
        it = world(limits={"headers": 16}, failure_mode_allow=is_open).request(REQUEST, *head)
        assert (it.reply and it.reply.status, it.code) == (413, "request_too_large")
        it = world(limits={"headers": 16}, failure_mode_allow=is_open).request(REQUEST).judge()
        it.head("application/json", "200", *head)
        assert (it.reply and it.reply.status, it.code) == (502, "guardrail_unreadable_response")

    def test_uninspected_exchange_may_have_many_headers(self) -> None:
        head = [("x", "1")] * 100
        it = world(limits={"headers": 16}).request(b"a", *head, path="/other").head("text/plain", "200", *head)
        assert it.response.headers is not None

    def test_incomplete_event_does_not_pause_reading(self) -> None:
        it = world(limits={"held_bytes": 1024}).request(REQUEST).judge().head().body(b"data: " + b"x" * 2000)
        assert it.held > 1024
        assert not it.is_paused

    def test_parsed_document_counts_as_held_and_its_values_are_freed(self) -> None:
        body = gzip.compress(json.dumps(chat_request("Hello" * 1000)).encode())
        it = world().request(body, ("content-encoding", "gzip"))
        assert it.held > 5000
        it.judge()
        it.head("application/json").body(chat_answer("Hi" * 1000), end=True)
        assert it.held > 4000
        it.judge()
        assert it.held == 0

    def test_messages_and_the_call_with_their_texts_count_as_held(self) -> None:
        text = "x" * 10_000
        it = world().request(json.dumps(chat_request(text)).encode())
        assert 4 * len(text) < it.held < 4 * len(text) + 2000  # the body, its text, the message and the call
        assert it.exchange.held_bodies < 2 * len(text) + 500
        it.judge()
        assert len(text) < it.held < len(text) + 1000  # the message: the answer's context
        it.head("application/json").body(chat_answer("Hi", "Ho"), end=True)
        assert 2 * len(text) < it.held < 2 * len(text) + 4000  # both inputs share it
        it.judge()
        assert it.held == 0

    def test_many_small_messages_count_more_than_their_texts(self) -> None:
        it = world().request(json.dumps({"messages": [{"role": "user", "content": "x"}] * 1000}).encode()).judge()
        assert it.held > 500_000

    @pytest.mark.parametrize(
        ("content_type", "status", "body"), [("text/event-stream", "200", b""), ("text/html", "502", b"<p>")]
    )
    def test_messages_are_freed_if_the_answer_needs_none(self, content_type: str, status: str, body: bytes) -> None:
        it = world().request(REQUEST).judge()
        assert it.held > 0
        it.head(content_type, status).body(body)
        assert it.held == 0

    def test_messages_do_not_pause_reading(self) -> None:
        it = world(hooks=["moderation"], limits={"held_bytes": 1024}).request(
            json.dumps(chat_request("x" * 5000)).encode()
        )
        it.head("text/plain", "500").body(b"x")
        assert it.held > 5000
        assert not it.is_paused

    @pytest.mark.parametrize("is_open", [False, True])
    def test_only_an_event_stream_yields_room(self, is_open: bool) -> None:
        it = world(failure_mode_allow=is_open).request(REQUEST)
        steps: list[Callable[[], object]] = [
            it.judge,
            lambda: it.head("application/json"),
            lambda: it.body(chat_answer("Hi"), end=True),
            it.judge,
        ]
        for step in steps:
            assert it.yields == 0
            assert it.send(RoomDemanded()) == []
            step()
        assert it.response.is_ended

    @pytest.mark.parametrize("last", [StreamEnded(), BodyReceived(Leg.REQUEST, b"?"), RoomDemanded()])
    @pytest.mark.parametrize("steps", range(6))
    def test_nothing_stays_held_after_any_end(self, steps: int, last: Event) -> None:
        it = world(hooks=["pre_call", "moderation", "output"])
        all_steps: list[Callable[[], object]] = [
            lambda: it.request(json.dumps(chat_request("Hello", stream=True)).encode()),
            it.judge,
            it.head,
            lambda: it.body(chat_event("Hi") + b"data: {"),
            it.judge,
            lambda: it.verify("Hi"),
        ]
        for step in all_steps[:steps]:
            step()
        it.send(last)
        it.send(StreamEnded())
        assert it.is_closed
        assert (it.held, it.yields) == (0, 0)

    def test_an_answer_of_many_texts_makes_a_bounded_number_of_inputs(self) -> None:
        said = [f"text {n}" for n in range(1025)]
        it = world().request(REQUEST).judge().head("application/json").body(chat_answer(*said), end=True)
        inputs = it.asked[-1].inputs
        assert len(inputs) == 63  # one input has judged the request
        assert "\n".join(str(each.output) for each in inputs).split("\n") == said
        redacted = [Anonymize((None, str(each.output).replace("text 1000", "[X]"))) for each in inputs]
        it.judge(*(new if "[X]" in str(new.texts[1]) else Allow() for new in redacted))
        assert it.response.body == chat_answer(*said).replace(b"text 1000", b"[X]")

    def test_many_parts_with_large_other_fields_are_sent_without_them(self) -> None:
        message = {"role": "user", "content": [{"type": "text", "text": "x"}] * 1000, "extra": "y" * 10_000}
        it = world().request(json.dumps({"messages": [message]}).encode())
        (sent,) = it.asked[-1].inputs
        assert len(sent.messages) == 258
        assert len(json.dumps(sent.messages)) < 30_000

    @pytest.mark.parametrize("length", ["9" * 5000, "99999999999"])
    def test_huge_content_length_is_too_large(self, length: str) -> None:
        assert world().request(REQUEST, ("content-length", length)).code == "request_too_large"
        it = world().request(REQUEST).judge().head("application/json", "200", ("content-length", length))
        assert it.code == "guardrail_unreadable_response"

    @pytest.mark.parametrize("length", ["", "x", "-1", "\xb2"])
    def test_invalid_content_length_is_ignored(self, length: str) -> None:
        assert world().request(REQUEST, ("content-length", length)).reply is None

    def test_exchange_is_not_complete_while_a_detection_runs(self) -> None:
        it = world(hooks=["moderation"]).request(REQUEST).head("application/json").body(b"{}", end=True)
        assert not it.is_complete
        it.judge()
        assert it.is_complete


def test_finished_exchange_needs_no_garbage_collector() -> None:
    it = answered()
    leg = weakref.ref(it.exchange._request)
    it.send(StreamEnded())
    gc.disable()
    try:
        del it
        assert leg() is None
    finally:
        gc.enable()
