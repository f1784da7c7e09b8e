"""Transcripts of exchanges on paths that no dialect knows, and of exchanges whose route the settings name."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from extproc.core.commands import ReportUnmatched
from extproc.core.errors import Reason
from extproc.core.events import BodyReceived, HeadersReceived, LoadChanged, TrailersReceived
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import BodyMode, Headers, Hook, Leg
from tests.fakes.rig import chat_answer, chat_request
from tests.fakes.world import World, policy

DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
TEXT = b'{"model":"m","q":"Hello Jane","id":"a-1"}'
JSON = ("content-type", "application/json")


def world(mode: BodyMode = BodyMode.BUFFERED, limits: dict[str, int] | None = None, **profile: Any) -> World:
    return World(policy(**profile), Limits(**(limits or {})), mode)


def sent(it: World, body: bytes | None, *headers: tuple[str, str], path: str = "/other", method: str = "POST") -> World:
    length = () if body is None else (("content-length", str(len(body))),)
    return it.request(body, *headers, *length, path=path, method=method)


def passes(it: World) -> bool:
    """Return whether a BUFFERED request bypasses the sidecar."""
    return it.upstream.headers is not None and it.upstream.headers.replace_body


class TestRequest:
    @pytest.mark.parametrize("mode", list(BodyMode))
    @pytest.mark.parametrize(
        "kind", ["application/json; charset=utf-8", "Application/JSON", "application/x+json", "text/json"]
    )
    def test_json_is_judged_and_its_exchange_is_generic(self, mode: BodyMode, kind: str) -> None:
        it = sent(world(mode), TEXT, ("content-type", kind), ("accept-encoding", "gzip"))
        (question,) = it.asked
        assert [message["content"] for message in question.inputs[0].messages] == ["Hello Jane"]
        it.judge(Anonymize(("Hello [N]",)))
        expected = TEXT.replace(b"Jane", b"[N]")
        buffered = it.upstream.buffered
        assert (buffered.body if buffered is not None else it.upstream.body) == expected
        assert it.upstream.headers is not None
        assert "accept-encoding" not in it.upstream.headers.remove
        assert (it.record.dialect, it.record.outcome) == ("generic", "redacted")

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("path", ["/other", "/v1/chat/completions"])
    def test_json_is_judged_under_any_method(self, method: str, path: str) -> None:
        it = sent(world(), TEXT, JSON, method=method, path=path).judge(Block("No."))
        assert it.code == "content_policy_violation"
        assert it.reply is not None
        assert ("x-aim-call-id", "call-1") in it.reply.headers

    @pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded;x=y"])
    @pytest.mark.parametrize("body", [TEXT, b" \r\n\t" + TEXT, b"\xef\xbb\xbf[]", b'"text"', b" " * 70 + b"1"])
    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_body_in_disguise_is_read_if_it_begins_like_json(
        self, mode: BodyMode, kind: str | None, body: bytes
    ) -> None:
        it = sent(world(mode), body, *([("content-type", kind)] if kind else []))
        assert it.record.dialect == "generic"
        if it.detections:
            it.judge()
        assert it.upstream.body == (body if mode is DUPLEX else b"")
        assert it.upstream.is_ended is (mode is DUPLEX)
        assert it.record.outcome == "allowed"

    @pytest.mark.parametrize("body", [b"a=b&c=d", b"Hello {", b"<p>", b"\x00", b"5"])
    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_body_that_begins_otherwise_passes(self, mode: BodyMode, body: bytes) -> None:
        it = sent(world(mode), body, ("content-type", "text/plain")).head("text/plain").body(b"{}", end=True)
        assert it.asked == []
        assert it.upstream.body == (body if mode is DUPLEX else b"")
        assert (it.upstream.buffered is not None) is (mode is BodyMode.BUFFERED)
        assert it.response.body == b"{}"
        assert it.response.headers is not None
        assert it.response.headers.set == ()
        assert (it.record.dialect, it.record.outcome) == ("", "unmatched")

    @pytest.mark.parametrize("rest", [b"x", b'{"q":"Hello"}'])
    @pytest.mark.parametrize("trailers", [False, True])
    def test_white_space_is_held_until_more_comes(self, rest: bytes, trailers: bool) -> None:
        it = world(DUPLEX)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/other"), ("content-length", "99"))))
        assert it.exchange.is_request_unreleased
        it.send(BodyReceived(Leg.REQUEST, b" \n"))
        assert it.held == 2
        assert it.upstream.headers is None
        it.send(BodyReceived(Leg.REQUEST, rest, end_of_stream=not trailers))
        if trailers:
            it.send(TrailersReceived(Leg.REQUEST))
        if it.detections:
            it.judge()
        assert (it.upstream.body, it.upstream.is_ended) == (b" \n" + rest, True)
        assert it.record.outcome == ("unmatched" if rest == b"x" else "allowed")

    @pytest.mark.parametrize("mode", list(BodyMode))
    def test_white_space_alone_is_released_by_its_trailers(self, mode: BodyMode) -> None:
        it = world(mode)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/other"), ("content-length", "1"))))
        if mode is DUPLEX:
            it.send(BodyReceived(Leg.REQUEST, b" "))
        it.send(TrailersReceived(Leg.REQUEST))
        assert it.upstream.is_ended
        assert it.record.outcome == "unmatched"

    def test_compressed_body_is_known_by_its_decoded_beginning(self) -> None:
        head = (("content-type", "text/plain"), ("content-encoding", "gzip"))
        assert len(sent(world(), gzip.compress(TEXT), *head).asked) == 1
        assert sent(world(), gzip.compress(b"Hello"), *head).record.outcome == "unmatched"
        assert sent(world(), b"broken", *head).record.outcome == "unmatched"
        assert sent(world(), TEXT, ("content-type", "text/plain"), ("content-encoding", "x")).asked == []

    @pytest.mark.parametrize(
        "headers",
        [
            (("content-type", "multipart/form-data; boundary=x"),),
            (("content-type", "application/octet-stream"),),
            (("content-type", "text/plain, image/png"),),
            (("content-type", "text/csv"),),
            (("content-type", "text/plain"), ("content-length", "99999999")),
            (("content-type", "text/plain"), ("transfer-encoding", "chunked")),
            (),
        ],
    )
    def test_uploads_bypass_the_sidecar(self, headers: Headers) -> None:
        it = world()
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/files"), *headers)))
        assert passes(it)
        assert it.record.outcome == "unmatched"

    def test_json_lines_are_read_line_by_line(self) -> None:
        body = b'{"q":"Hello"}\r\n\n{"q":"J\\u0061ne"}\nfree text'
        for kind in ("application/x-ndjson", "application/json"):
            it = sent(world(), body, ("content-type", kind))
            messages = it.asked[0].inputs[0].messages
            assert [message["content"] for message in messages] == ["Hello", "Jane", "free text"]
            it.judge(Anonymize(("Hello", "[N]", "text")))
            assert it.upstream.buffered is not None
            assert it.upstream.buffered.body == b'{"q":"Hello"}\r\n\n{"q":"[N]"}\ntext'

    def test_lists_in_the_lines_of_an_answer_are_redacted(self) -> None:
        words = ",".join(f'"word {number}"' for number in range(60))
        body = f'{{"a":"Hello"}}\n{{"a":[{words},"J\\u0061ne",{{"b":"and Jane"}}]}}\n'.encode()
        it = world().request(None, path="/x").head("application/json").body(body, end=True)
        texts = [each.output or "" for each in it.asked[-1].inputs]
        redacted = [text.replace("Jane", "[N]") for text in texts]
        it.judge(*(Anonymize((new,)) if new != old else Allow() for old, new in zip(texts, redacted, strict=True)))
        assert it.response.body == body.replace(b"Jane", b"[N]").replace(b"J\\u0061ne", b"[N]")

    @pytest.mark.parametrize("body", [b"{ no json", b"[1, 2", b"a\nb", b'{"a":1}x'])
    def test_what_does_not_parse_is_one_text(self, body: bytes) -> None:
        it = sent(world(), body, JSON)
        assert it.asked[0].inputs[0].messages == ({"role": "user", "content": body.decode()},)
        it.judge(Anonymize(("\ud800x",)))
        assert it.upstream.buffered is not None
        assert it.upstream.buffered.body == b"?x"

    @pytest.mark.parametrize("body", [b"[]", b"5", b'["Hello"]', b'{"Messages":"Hello"}'])
    def test_any_json_is_readable(self, body: bytes) -> None:
        assert sent(world(), body, JSON).reply is None

    @pytest.mark.parametrize(
        ("body", "headers", "code"),
        [
            (b"\xff", (), "invalid_body"),
            (b"{}\n\xff", (("content-type", "application/jsonl"),), "invalid_body"),
            (TEXT, (("content-encoding", "gzip"),), "invalid_body"),
            (b"x" * 2000, (), "request_too_large"),
        ],
    )
    def test_failure_policy_applies(self, body: bytes, headers: Headers, code: str) -> None:
        head = headers if headers and headers[0][0] == "content-type" else (JSON, *headers)
        it = sent(world(limits={"request_bytes": 1024}), body, *head)
        assert it.code == code
        assert it.record.dialect == "generic"
        it = sent(world(limits={"request_bytes": 1024}, failure_mode_allow=True), body, *head)
        assert it.reply is None
        assert it.record.outcome == "failed_open"

    def test_json_of_unknown_length_is_bounded(self) -> None:
        it = world(DUPLEX, limits={"request_bytes": 1024})
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/other"), JSON)))
        it.send(BodyReceived(Leg.REQUEST, b"x" * 2000))
        assert it.code == "request_too_large"

    def test_request_of_inert_strings_has_no_text(self) -> None:
        body = b'{"model":"gpt-4o","id":"a.b","thread_id":"t=1","n":[1,null],"type":["x"],"name":""}'
        it = sent(world(), body, JSON)
        assert it.asked == []
        assert it.record.outcome == "allowed"
        it = sent(world(), '{"id":"\u4f60\u597d","model":"a sentence"}'.encode(), JSON)
        assert len(it.asked[0].inputs[0].messages) == 2

    def test_overloaded_process_refuses_what_it_would_read(self) -> None:
        for headers in ((JSON,), (("content-type", "text/plain"),)):
            it = World(is_overloaded=True)
            assert sent(it, TEXT, *headers).code == "guardrail_overloaded"
            assert it.reply is not None
            assert "x-aim-call-id" not in dict(it.reply.headers)
        it = World(mode=DUPLEX)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/other"), ("content-length", "9"))))
        it.send(LoadChanged(is_overloaded=True))
        it.send(BodyReceived(Leg.REQUEST, b" "))
        assert it.code == "guardrail_overloaded"

    def test_request_is_only_context_under_output_alone(self) -> None:
        it = sent(world(hooks=["output"]), TEXT, JSON)
        assert it.asked == []
        it.head("application/json").body(b'{"a":"Hi you"}', end=True)
        assert it.asked[0].inputs[0].messages[0]["content"] == "Hello Jane"
        assert sent(world(hooks=["output"]), b"\xff", JSON).reply is None
        it = world(hooks=["output"], limits={"request_bytes": 9})
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/x"), JSON, ("content-length", "10"))))
        assert passes(it)

    def test_moderation_judges_it_too(self) -> None:
        it = sent(world(hooks=["moderation"]), TEXT, JSON)
        assert it.asked[0].hook is Hook.MODERATION


class TestAnswer:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("status", ["200", "404"])
    def test_json_is_judged(self, method: str, status: str) -> None:
        it = world().request(None, path="/v1/things", method=method).head("application/json", status)
        it.body(b'{"a":"Hello ').body(b'Jane"}', end=True)
        assert it.asked[0].inputs[0].output == "Hello Jane"
        it.judge(Anonymize(("Hello [N]",)))
        assert it.response.body == b'{"a":"Hello [N]"}'
        assert it.response.headers is not None
        assert it.response.headers.set == (("x-aim-call-id", "call-1"),)
        assert (it.record.dialect, it.record.outcome) == ("generic", "redacted")

    def test_what_does_not_parse_is_one_text(self) -> None:
        it = world().request(None, path="/x").head("application/json").body(b"[oops", end=True)
        it.judge(Block("No."))
        assert it.code == "content_policy_violation"

    @pytest.mark.parametrize("kind", ["", "text/plain", "text/html", "image/png", "application/octet-stream"])
    def test_other_types_stream_past(self, kind: str) -> None:
        it = world().request(None, path="/x").head(kind, "200", ("content-encoding", "gzip")).body(b'{"a":')
        assert it.response.body == b'{"a":'
        assert it.record.outcome == "unmatched"

    def test_event_stream_is_verified_event_by_event(self) -> None:
        it = world().request(None, path="/x", method="GET").head("text/event-stream")
        it.body(b'data: {"a":"Hello Jane"}\n\ndata: no json\n\ndata: [DONE]\n\n', end=True)
        assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["Hello Jane", "no json"]
        first, second = (chunk["choices"][0]["index"] for chunk in it.chunks)
        it.verify("Hello [N]", first).verify("no words", second).done()
        assert it.response.body == b'data: {"a": "Hello [N]"}\n\ndata: no words\n\ndata: [DONE]\n\n'.replace(
            b'": "', b'":"'
        )
        assert it.record.dialect == "generic"

    def test_json_lines_are_verified_line_by_line(self) -> None:
        it = (
            world(stream_ping_seconds=1)
            .request(None, path="/x")
            .head("application/x-ndjson")
            .body(b'{"a":"one two"}\r\n')
        )
        it.body(b'\n{"a":"three four"}\nfive six', end=True)
        (first, second, third) = (chunk["choices"][0]["index"] for chunk in it.chunks)
        it.verify("one two", first).wait(1.5)
        assert it.response.body == b'{"a":"one two"}\r\n\n'
        it.verify("[X]", second).verify("[Y]", third).done()
        assert it.response.body == b'{"a":"one two"}\r\n\n{"a":"[X]"}\n[Y]'

    @pytest.mark.parametrize("kind", ["application/json-seq", "application/geo+json-seq", "application/vnd.x+ndjson"])
    def test_lines_under_other_types_are_verified(self, kind: str) -> None:
        it = (
            world()
            .request(None, path="/x")
            .head(kind)
            .body(b'\x1e{"a":"one two"}\n\x1e{"a":\n"three four"}\n', end=True)
        )
        first, second, third = (chunk["choices"][0]["delta"]["content"] for chunk in it.chunks)
        assert (first, second, third) == ("one two", '{"a":', '"three four"}')

    def test_block_in_json_lines_is_a_line(self) -> None:
        it = world().request(None, path="/x").head("application/x-ndjson").body(b'{"a":"one two"}\n')
        it.verify("one two", it.chunks[0]["choices"][0]["index"])
        it.body(b'{"a":"three"}\n').block("No.")
        *_, last = it.response.body.splitlines()
        assert json.loads(last)["error"]["message"] == "No."
        assert it.response.body.endswith(b"}\n")

    def test_event_stream_in_the_clothes_of_lines_is_recognised(self) -> None:
        it = world().request(None, path="/x").head("application/x-ndjson").body(b"dat")
        assert it.response.headers is None
        it.body(b'a: {"a":"Hello"}\n\n')
        assert len(it.chunks) == 1

    def test_failure_policy_applies(self) -> None:
        it = world().request(None, path="/x").head("application/json").body(b"\xff", end=True)
        assert it.code == "guardrail_unreadable_response"
        it = world(failure_mode_allow=True).request(None, path="/x").head("application/json").body(b"\xff", end=True)
        assert it.response.body == b"\xff"
        assert it.record.outcome == "failed_open"

    @pytest.mark.parametrize("profile", [{"unmatched": "pass"}, {"hooks": []}, {"hooks": ["pre_call"]}])
    def test_answer_passes_where_it_is_not_inspected(self, profile: dict[str, Any]) -> None:
        it = world(**profile).request(None, path="/x").head("application/json").body(b'{"a":"Hi', end=False)
        assert it.response.body == b'{"a":"Hi'
        assert it.record.outcome == "unmatched"


class TestSettings:
    def test_unmatched_path_may_pass(self) -> None:
        it = world(unmatched="pass")
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/other"), JSON)))
        assert passes(it)

    def test_known_path_may_pass_or_be_blocked(self) -> None:
        paths = {"GET /v1/models": "pass", "POST /v1/chat/completions": "pass", "/v1/responses": "block"}
        it = world(unmatched="block", paths=paths)
        it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"), JSON)))
        assert passes(it)
        it.head("application/json").body(chat_answer("Hi"), end=True)
        assert it.response.body == chat_answer("Hi")
        assert it.record.outcome == "unmatched"
        it = world(unmatched="block", paths=paths).request(None, path="/v1/models", method="GET")
        assert it.reply is None
        it = world(paths=paths).request(b"{}", path="/v1/responses")
        assert (it.status, it.code) == (403, "path_not_allowed")
        assert it.reply is not None
        assert dict(it.reply.headers) == {"content-type": "application/json"}

    def test_path_may_be_inspected_although_others_are_blocked(self) -> None:
        it = world(unmatched="block", paths={"/tools/*": "inspect"})
        assert len(sent(it, TEXT, JSON, path="/tools/x").asked) == 1
        assert sent(world(unmatched="block"), TEXT, JSON).code == "path_not_allowed"

    def test_path_of_the_generic_dialect_is_read_whatever_its_type(self) -> None:
        it = sent(world(paths={"/x": "generic"}), b"free text", ("content-type", "image/png"), path="/x")
        assert it.asked[0].inputs[0].messages[0]["content"] == "free text"
        it.judge().head("text/html").body(b"<p>Hi", end=True)
        assert it.asked[1].inputs[0].output == "<p>Hi"

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
    def test_dialect_of_the_settings_reads_every_method(self, method: str) -> None:
        it = world(paths={"/llm": "openai-chat"}).request(
            json.dumps(chat_request("Hello")).encode(), path="/llm", method=method
        )
        assert it.asked[0].inputs[0].messages == ({"role": "user", "content": "Hello"},)
        assert it.record.dialect == "openai-chat"

    @pytest.mark.parametrize("profile", [{"unmatched": "block"}, {"paths": {"*": "block"}}, {}])
    def test_preflight_always_passes(self, profile: dict[str, Any]) -> None:
        head: Headers = ((":method", "OPTIONS"), (":path", "/v1/chat/completions"), ("origin", "https://a.b"))
        asked: Headers = (*head, ("access-control-request-method", "POST"))
        it = world(**profile)
        it.send(HeadersReceived(Leg.REQUEST, asked, end_of_stream=True))
        assert it.upstream.headers is not None
        it.head("application/json").body(b'{"a":"Hi you"}', end=True)
        assert it.response.body == b'{"a":"Hi you"}'
        assert it.record.outcome == "unmatched"
        for other, has_ended in ((head, True), (asked, False)):
            it = world(unmatched="block")
            it.send(HeadersReceived(Leg.REQUEST, other, end_of_stream=has_ended))
            assert it.code == "path_not_allowed"


class TestStored:
    STORED = b'{"object":"response","output":[{"type":"message","content":[{"type":"output_text","text":"Hi Jane"}]}]}'

    def test_stored_answer_is_judged_by_its_dialect(self) -> None:
        it = world(unmatched="block").request(
            None, ("accept-encoding", "br"), path="/v1/responses/resp_1", method="GET"
        )
        assert it.upstream.headers is not None
        assert it.upstream.headers.remove == ("accept-encoding",)
        it.head("application/json").body(self.STORED, end=True)
        assert [one.output for one in it.asked[0].inputs] == ["Hi Jane"]
        assert it.asked[0].inputs[0].messages == ()
        it.judge(Anonymize(("Hi [N]",)))
        assert it.response.body == self.STORED.replace(b"Jane", b"[N]")
        assert (it.record.dialect, it.record.outcome) == ("openai-responses", "redacted")

    def test_background_answer_is_judged_when_it_is_cancelled(self) -> None:
        it = world().request(None, path="/v1/responses/resp_1/cancel").head("application/json")
        it.body(self.STORED, end=True).judge(Block("No."))
        assert it.code == "content_policy_violation"

    def test_stored_answer_may_be_an_event_stream(self) -> None:
        it = world().request(None, path="/v1/responses/resp_1?stream=true", method="GET").head("text/plain")
        it.body(b'data: {"type":"response.output_text.delta","delta":"Hello"}\n\n')
        assert len(it.chunks) == 1

    @pytest.mark.parametrize(
        ("kind", "body", "is_read"),
        [
            ("text/html", b"<p>Hi", False),
            ("", b"", False),
            ("image/png", b"\x89PNG", False),
            ("text/html", b' {"output_text":"Hi you"}', True),
            ("", b'{"output_text":"Hi you"}', True),
        ],
    )
    @pytest.mark.parametrize("trailers", [False, True])
    def test_only_json_and_streams_of_a_get_are_read(
        self, kind: str, body: bytes, is_read: bool, trailers: bool
    ) -> None:
        it = world().request(None, path="/v1/responses/resp_1", method="GET").head(kind)
        it.body(body, end=not trailers)
        if trailers:
            it.trailers()
        assert len(it.asked) == is_read
        if is_read:
            it.judge()
        assert (it.response.body, it.response.is_ended) == (body, True)
        assert it.response.headers is not None
        assert bool(it.response.headers.set) is is_read

    def test_get_of_unknown_type_and_encoding_passes(self) -> None:
        it = world().request(None, path="/v1/responses/resp_1", method="GET")
        it.head("text/html", "200", ("content-encoding", "x")).body(b"abc", end=True)
        assert it.response.body == b"abc"


class TestCallId:
    def test_only_what_was_read_has_a_call_id(self) -> None:
        it = world().request(b"{}", ("content-length", "99999999999"))
        assert it.code == "request_too_large"
        assert it.reply is not None
        assert "x-aim-call-id" not in dict(it.reply.headers)
        it = world().request(b"{")
        assert it.reply is not None
        assert "x-aim-call-id" in dict(it.reply.headers)
        it = world().request(None).head("application/json", end=True)
        assert it.response.headers is not None
        assert it.response.headers.set == ()

    def test_failure_to_ask_counts_as_asked(self) -> None:
        it = sent(world(), TEXT, JSON).judge(Failed(Reason.TIMEOUT))
        assert it.reply is not None
        assert "x-aim-call-id" in dict(it.reply.headers)
        assert sent(world(failure_mode_allow=True), TEXT, JSON).judge(Allow()).record.outcome == "allowed"


def test_call_id_of_the_upstream_is_removed_if_nothing_was_read() -> None:
    forged = ("x-aim-call-id", "forged")
    it = sent(world(), None, method="GET").head("text/html", "200", forged, end=True)
    assert it.response.headers is not None
    assert (it.response.headers.set, it.response.headers.remove) == ((), ("x-aim-call-id",))


def test_numbers_and_words_that_are_events_are_texts() -> None:
    it = sent(world(hooks=["output"]), TEXT, JSON).head()
    it.body(b"data: call\n\ndata: 731\n\ndata: true\n\ndata: null\n\n" + b'data: "a\\u0062"\n\n')
    said = [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks]
    assert said == ["call", "731", "true", "null", "ab"]


class TestReport:
    """A path that no dialect knows is reported; any other path is not."""

    @pytest.mark.parametrize("profile", [{}, {"unmatched": "pass"}, {"unmatched": "block"}, {"hooks": []}])
    @pytest.mark.parametrize("body", [None, TEXT])
    def test_unmatched_path_is_reported_once(self, body: bytes | None, profile: dict[str, Any]) -> None:
        it = sent(world(**profile), body, JSON, path="/other?q=1", method="PUT")
        assert it.unmatched == [ReportUnmatched("PUT", "/other?q=1")]

    def test_path_that_the_settings_let_pass_is_reported(self) -> None:
        it = sent(world(paths={"/v1/chat/completions": "pass"}), TEXT, JSON, path="/v1/chat/completions")
        assert it.unmatched == [ReportUnmatched("POST", "/v1/chat/completions")]

    def test_upload_that_is_refused_as_unmatched_is_reported(self) -> None:
        it = sent(world(unmatched="block"), b"x", path="/v1/files")
        assert it.code == "path_not_allowed"
        assert it.unmatched == [ReportUnmatched("POST", "/v1/files")]

    @pytest.mark.parametrize(("body", "is_reported"), [(b'{"messages": []}', False), (b'{"note": "Hi"}', True)])
    def test_path_of_several_apis_is_reported_if_the_body_is_of_none(self, body: bytes, is_reported: bool) -> None:
        it = sent(world(), body, JSON, path="/api/chat")
        assert it.unmatched == [ReportUnmatched("POST", "/api/chat")] * is_reported

    @pytest.mark.parametrize(
        ("method", "path", "profile"),
        [
            ("POST", "/v1/chat/completions", {}),
            ("POST", "/v1/embeddings", {}),
            ("GET", "/v1/responses/resp_1", {}),
            ("POST", "/mine", {"paths": {"/mine": "generic"}}),
        ],
    )
    def test_known_path_is_not_reported(self, method: str, path: str, profile: dict[str, Any]) -> None:
        assert sent(world(**profile), TEXT, JSON, method=method, path=path).unmatched == []

    def test_preflight_is_not_reported(self) -> None:
        it = sent(world(), None, ("origin", "x"), ("access-control-request-method", "POST"), method="OPTIONS")
        assert it.unmatched == []
