"""How an answer is read: by content type, by its first bytes, and under an error status."""

from __future__ import annotations

import gzip
import json
from typing import Any, ClassVar

import pytest

from extproc.core.commands import ReleaseBody, ReleaseTrailers
from extproc.core.errors import Reason
from extproc.core.events import BodyReceived, LoadChanged, TrailersReceived
from extproc.core.policy import Limits
from extproc.core.reading import Answer, Reading, Scope
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import Leg
from tests.fakes.rig import chat_answer, chat_event, chat_request
from tests.fakes.world import World, policy

REQUEST = json.dumps(chat_request("Hello")).encode()
STREAMED = json.dumps(chat_request("Hello", stream=True)).encode()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(80)


def asked(body: bytes = REQUEST, limits: dict[str, int] | None = None, **profile: Any) -> World:
    """Return an exchange whose request was released."""
    return World(policy(**profile), Limits(**(limits or {}))).request(body).judge()


class TestFraming:
    @pytest.mark.parametrize(
        "kind", ["", "text/plain", "image/png", "audio/mpeg", "application/octet-stream", "text/html"]
    )
    def test_json_of_any_type_is_judged(self, kind: str) -> None:
        it = asked().head(kind).body(b" ").body(chat_answer("Hi"), end=True)
        assert it.asked[1].inputs[0].output == "Hi"
        it.judge()
        assert it.response.body == b" " + chat_answer("Hi")

    @pytest.mark.parametrize("kind", ["", "text/plain", "image/png", "application/x-ndjson"])
    @pytest.mark.parametrize("request_body", [REQUEST, STREAMED])
    def test_event_stream_of_any_type_is_verified(self, kind: str, request_body: bytes) -> None:
        it = asked(request_body).head(kind).body(chat_event("Hi")[:3])
        assert it.response.headers is None
        it.body(chat_event("Hi")[3:]).verify_all()
        assert it.response.body == chat_event("Hi")
        assert len(it.opened) == 1

    def test_several_types_say_nothing(self) -> None:
        it = asked().head("application/json", "200", ("content-type", "text/event-stream")).body(chat_event("Hi"))
        assert len(it.chunks) == 1

    def test_first_bytes_are_those_behind_the_content_encoding(self) -> None:
        coded = gzip.compress(chat_event("Hi"))
        it = asked().head("text/plain", "200", ("content-encoding", "gzip")).body(coded[:5]).body(coded[5:])
        assert len(it.chunks) == 1
        it = asked().head("text/plain", "200", ("content-encoding", "x")).body(b"abc", end=True)
        assert it.code == "guardrail_unreadable_response"

    @pytest.mark.parametrize("kind", ["audio/mpeg", "image/png", "text/html"])
    def test_other_bodies_are_unreadable(self, kind: str) -> None:
        it = asked().head(kind).body(PNG, end=True)
        assert (it.status, it.code) == (502, "guardrail_unreadable_response")
        it = asked(failure_mode_allow=True).head(kind).body(PNG, end=True)
        assert it.response.body == PNG

    def test_trailers_end_an_undecided_answer(self) -> None:
        it = asked().head("").body(b'"').trailers()
        assert it.code == "guardrail_unreadable_response"
        it = asked().head("").trailers()
        assert it.response.is_ended
        it = asked().head("").body(b"dat").trailers()
        assert it.code == "guardrail_unreadable_response"
        it = asked(limits={"response_bytes": 1024}).head("", "200", ("content-length", "2000")).trailers()
        assert it.code == "guardrail_unreadable_response"

    def test_block_before_the_framing_is_known_is_a_status(self) -> None:
        it = asked(STREAMED).head("text/plain").block("No.")
        assert it.code == "content_policy_violation"

    def test_event_of_a_stream_of_lines_that_fails_open_at_once(self) -> None:
        it = asked(STREAMED, failure_mode_allow=True).lose(opened=False).head("text/plain").body(chat_event("Hi"))
        assert it.response.body == chat_event("Hi")

    @pytest.mark.parametrize("is_open", [False, True])
    def test_undecided_answer_is_bounded_and_follows_the_failure_policy(self, is_open: bool) -> None:
        packed = gzip.compress(b"x")
        body = packed[:3] + b"\x08" + packed[4:10] + b"n" * 2000  # a file name that does not end
        it = asked(limits={"response_bytes": 1024}, failure_mode_allow=is_open)
        it.head("text/plain", "200", ("content-encoding", "gzip")).body(body)
        if is_open:
            assert it.body(b"more", end=True).response.body == body + b"more"
        else:
            assert it.code == "guardrail_unreadable_response"

    def test_overloaded_process_refuses_an_undecided_answer(self) -> None:
        it = asked().head("text/plain")
        it.send(LoadChanged(is_overloaded=True))
        assert it.body(b" ").code == "guardrail_overloaded"

    @pytest.mark.parametrize("kind", ["application/json", "text/plain"])
    def test_lines_of_json_under_another_type_are_redacted_in_place(self, kind: str) -> None:
        body = b'{"choices":[{"index":0,"text":"I am Ja"}]}\n{"choices":[{"index":0,"text":"ne"}]}\n[DONE]\n'
        it = asked().head(kind).body(body, end=True)
        assert [one.output for one in it.asked[1].inputs] == ["I am Jane"]
        it.judge(Anonymize(("I am [N]",)))
        assert it.response.body == body.replace(b"Ja", b"[N]").replace(b'"ne"', b'""')

    def test_too_many_headers_of_an_undecided_answer_are_refused(self) -> None:
        it = asked(limits={"headers": 8}).head("", "200", *[("x", "1")] * 9)
        assert it.code == "guardrail_unreadable_response"


class TestData:
    """Dialects whose answers are data, images or sounds in general."""

    PATHS = ("/v1/images/generations", "/v1/audio/speech", "/v1/rerank")

    def asked(self, path: str, **profile: Any) -> World:
        body = b'{"prompt":"Hello","input":"Hello you","query":"Hello you","documents":["Hello you"]}'
        return World(policy(**profile)).request(body, path=path).judge()

    @pytest.mark.parametrize("path", PATHS)
    def test_json_is_judged(self, path: str) -> None:
        it = self.asked(path).head("application/json").body(b'{"new":{"key":"I am ').body(b'Jane"}}', end=True)
        assert [one.output for one in it.asked[1].inputs] == ["I am Jane"]
        it.judge(Anonymize(("I am [N]",)))
        assert it.response.body == b'{"new":{"key":"I am [N]"}}'

    @pytest.mark.parametrize("path", PATHS[:2])
    @pytest.mark.parametrize("kind", ["image/png", "audio/mpeg"])
    def test_media_pass(self, path: str, kind: str) -> None:
        it = self.asked(path).head(kind).body(PNG)
        assert it.response.body == PNG
        it.body(b"more", end=True)
        assert it.response.is_ended
        assert len(it.asked) == 1
        it = self.asked(path).head(kind).body(b'{"a":"I am Jane"}', end=True)
        assert [one.output for one in it.asked[1].inputs] == ["I am Jane"]

    def test_media_are_unreadable_where_the_dialect_has_none(self) -> None:
        it = self.asked("/v1/rerank").head("image/png").body(PNG, end=True)
        assert it.code == "guardrail_unreadable_response"


class TestMedia:
    def answer(self, kind: str, *, has_media: bool = True) -> Answer:
        return Answer(Scope.KNOWN, "200", (kind,), has_media=has_media)

    @pytest.mark.parametrize("kind", ["audio/mpeg", "image/png"])
    def test_media_pass_where_the_dialect_has_such_answers(self, kind: str) -> None:
        assert self.answer(kind).reading(b"\xff\xfb", is_all=False) is Reading.UNDECIDED
        assert self.answer(kind).reading(b"\xff\xfb", is_all=True) is Reading.UNREAD
        assert self.answer(kind).reading(b"ID3\x03\x00", is_all=True) is Reading.UNREAD
        assert self.answer(kind, has_media=False).reading(b"\xff\xfb", is_all=True) is Reading.WHOLE

    @pytest.mark.parametrize("first", [b"plain text", b'{"a":1}', b"<svg>", "é".encode()[:1], b""])
    def test_texts_called_media_do_not_pass(self, first: bytes) -> None:
        assert self.answer("image/png").reading(first, is_all=True) is Reading.WHOLE

    def test_other_types_are_read(self) -> None:
        assert self.answer("text/html").reading(b"\xff\xfb", is_all=True) is Reading.WHOLE


class TestError:
    """Answers with status 4xx and 5xx."""

    BODY = b'{"error":{"content":"I am Jane"}}'

    def judged(self, kind: str = "application/json", body: bytes = BODY, **profile: Any) -> World:
        return asked(**profile).head(kind, "422", ("x-request-id", "r1"), ("etag", "1")).body(body, end=True)

    def replaced(self, it: World) -> dict[str, Any]:
        """Return the error object that replaces the body."""
        assert it.reply is None
        assert it.is_complete
        assert it.response.is_ended
        headers = it.response.headers
        assert headers is not None
        assert {"content-length", "content-encoding", "etag"} <= set(headers.remove)
        assert headers.set == (("x-aim-call-id", "call-1"),)
        error: dict[str, Any] = json.loads(it.response.body)["error"]
        return error

    def test_allowed_error_is_unchanged(self) -> None:
        it = self.judged()
        assert it.asked[1].inputs[0].output == "I am Jane"
        it.judge()
        assert it.response.body == self.BODY
        assert it.record.outcome == "allowed"

    def test_redaction_is_put_back(self) -> None:
        it = self.judged().judge(Anonymize(("I am [N]",)))
        assert it.response.body == self.BODY.replace(b"Jane", b"[N]")
        assert it.record.outcome == "redacted"

    @pytest.mark.parametrize(("setting", "message"), [("", "The response was blocked by"), ("Ours.", "Ours.")])
    def test_block_replaces_the_body_with_a_fixed_message(self, setting: str, message: str) -> None:
        it = self.judged(block_message=setting).judge(Block("Found Jane"))
        error = self.replaced(it)
        assert error["code"] == "content_policy_violation"
        assert error["message"].startswith(message)
        assert it.record.outcome == "blocked"

    def test_doubtful_redaction_replaces_the_body(self) -> None:
        assert self.replaced(self.judged().judge(Anonymize(())))["code"] == "redaction_failed"

    def test_failure_follows_the_policy(self) -> None:
        it = self.judged().judge(Failed(Reason.TIMEOUT))
        assert self.replaced(it)["code"] == "guardrail_unavailable"
        assert it.record.outcome == "refused"
        it = self.judged(failure_mode_allow=True).judge(Failed(Reason.TIMEOUT))
        assert it.response.body == self.BODY

    @pytest.mark.parametrize("body", [b"{oops", b"\xff", b'{"a":1,"a":1,"content":"x"}'])
    def test_unreadable_error_is_replaced(self, body: bytes) -> None:
        assert self.replaced(self.judged(body=body))["code"] == "guardrail_unreadable_response"
        assert self.judged(body=body, failure_mode_allow=True).response.body == body

    def test_anthropic_error_has_the_type_of_its_status(self) -> None:
        it = World().request(REQUEST, path="/v1/messages").judge().head("application/json", "500")
        it.body(b'{"content":[{"type":"text","text":"Hi"}]}', end=True).judge(Block())
        assert json.loads(it.response.body)["error"]["type"] == "api_error"

    @pytest.mark.parametrize("kind", ["application/json", "text/plain"])
    def test_trailers_are_released(self, kind: str) -> None:
        it = asked().head(kind, "500").body(self.BODY).trailers().judge(Block())
        assert it.response.is_ended
        assert b"content_policy_violation" in it.response.body

    def test_trailers_of_an_undecided_error_are_released_after_what_replaces_it(self) -> None:
        it = asked(limits={"response_bytes": 1024}).head("", "500", ("content-length", "2000")).body(b"\n")
        *_, body, trailers = [
            command
            for command in it.send(TrailersReceived(Leg.RESPONSE))
            if isinstance(command, ReleaseBody | ReleaseTrailers)
        ]
        assert self.replaced_code(it) == "guardrail_unreadable_response"
        assert isinstance(body, ReleaseBody)
        assert not body.end_of_stream
        assert trailers == ReleaseTrailers(Leg.RESPONSE)

    @pytest.mark.parametrize("kind", ["text/html", "text/plain", "image/png", ""])
    def test_other_types_pass(self, kind: str) -> None:
        it = asked().head(kind, "502").body(b"<p>Bad gateway", end=True)
        assert it.response.body == b"<p>Bad gateway"
        assert len(it.asked) == 1

    def test_json_of_another_type_is_judged(self) -> None:
        it = self.judged("text/plain").judge(Block())
        assert self.replaced(it)["code"] == "content_policy_violation"

    def test_larger_errors_pass(self) -> None:
        large = b'{"content":"' + b"x" * 65_536 + b'"}'
        it = asked().head("application/json", "500", ("content-length", str(len(large)))).body(large[:9])
        assert it.response.body == large[:9]
        for pieces in ([large], [large[:65_536], large[65_536:]], [large[:65_536], large[65_536:], b""]):
            it = asked().head("application/json", "500")
            for piece in pieces[:-1]:
                it.body(piece)
            it.body(pieces[-1], end=True)
            assert (it.response.body, it.response.is_ended) == (large, True)
            assert len(it.asked) == 1

    def test_event_stream_is_judged_whole(self) -> None:
        body = b": note\n\n" + chat_event("I am Ja") + b"data: \n\n" + chat_event("ne") + b"data: [DONE]\n\n"
        it = asked(STREAMED).head("text/event-stream", "500").body(body, end=True)
        assert it.session is None
        assert [one.output for one in it.asked[1].inputs] == ["I am Jane"]
        it.judge(Anonymize(("I am [N]",)))
        expected = body.replace(b": note", b":").replace(b"I am Ja", b"I am [N]").replace(b'"ne"', b'""')
        assert it.response.body == expected
        it = asked(STREAMED).head("text/event-stream", "500").body(body, end=True).judge(Block())
        assert it.response.body.startswith(b"data: {")
        assert it.response.body.endswith(b"data: [DONE]\n\n")

    @pytest.mark.parametrize(
        ("line", "text", "redacted"),
        [
            (b"error: Jane\n\n", "error: Jane", b"error: [N]\n\n"),
            (b'error: {"message":"Jane"}\n\n', "Jane", b'error: {"message":"[N]"}\n\n'),
            (b"Jane\n", "Jane", b"[N]\n"),
        ],
    )
    def test_foreign_line_of_an_event_stream_is_judged(self, line: bytes, text: str, redacted: bytes) -> None:
        it = asked().head("text/event-stream", "500").body(line, end=True)
        assert [one.output for one in it.asked[1].inputs] == [text]
        it.judge(Anonymize((text.replace("Jane", "[N]"),)))
        assert it.response.body == redacted

    def test_comments_that_may_hold_text_are_emptied_whatever_the_verdict(self) -> None:
        body = b": I am Jane\n\n" + chat_event("Hi")
        it = asked().head("text/event-stream", "500").body(body, end=True).judge()
        assert it.response.body == b":\n\n" + chat_event("Hi")
        assert it.response.headers is not None
        assert "content-length" in it.response.headers.remove
        assert it.record.outcome == "allowed"
        it = asked().head("text/event-stream", "500").body(b": I am Jane\n\n", end=True)
        assert (it.response.body, it.response.is_ended) == (b":\n\n", True)
        assert len(it.asked) == 1

    def test_arguments_in_pieces_are_one_text_with_decoded_escapes(self) -> None:
        pieces = ['{"to":"J\\u00', '61ne"}']
        body = b"".join(
            b"data: "
            + json.dumps(
                {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}]}
            ).encode()
            + b"\n\n"
            for piece in pieces
        )
        it = asked().head("text/event-stream", "500").body(body, end=True)
        assert [one.output for one in it.asked[1].inputs] == ['{"to":"Jane"}']
        it.judge(Anonymize(('{"to":"[N]"}',)))
        events = [json.loads(line[6:]) for line in it.response.body.splitlines() if line]
        calls = [event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] for event in events]
        assert calls == ['{"to":"[N]"}', ""]
        it = asked().head("text/event-stream", "500").body(body, end=True).judge(Anonymize(('{"from":"[N]"}',)))
        assert b"redaction_failed" in it.response.body

    def test_unnamed_texts_of_one_event_are_judged_and_redacted(self) -> None:
        body = b'data: {"object":"x","a":"one two","b":{"c":"Jane Doe"},"logprobs":{"x":"Jane"}}\n\n'
        it = asked().head("text/event-stream", "500").body(body, end=True)
        said = "\n".join(str(one.output) for one in it.asked[1].inputs)
        assert "one two" in said
        assert "Jane Doe" in said
        it.judge(
            *(
                Anonymize((str(one.output).replace("Jane", "[N]"),)) if "Jane" in str(one.output) else Allow()
                for one in it.asked[1].inputs
            )
        )
        assert b"Jane" not in it.response.body
        assert b"one two" in it.response.body

    def test_stream_that_repeats_and_signs_is_redacted_everywhere(self) -> None:
        events: list[dict[str, Any]] = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Ja"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "ne"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "signature_delta", "signature": "b3Ro"}},
        ]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        it = World().request(REQUEST, path="/v1/messages").judge().head("text/event-stream", "529").body(body, end=True)
        assert [one.output for one in it.asked[1].inputs] == ["Jane"]
        it.judge(Anonymize(("[N]",)))
        assert it.response.body == body.replace(b'"Ja"', b'"[N]"').replace(b'"ne"', b'""').replace(b"c2ln", b"")

    def test_whole_text_after_its_deltas_is_another_text(self) -> None:
        events = [
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Jane"},
            {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Jane"},
        ]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        request = json.dumps({"input": "Hello"}).encode()
        it = (
            World().request(request, path="/v1/responses").judge().head("text/event-stream", "500").body(body, end=True)
        )
        assert [one.output for one in it.asked[1].inputs] == ["Jane", "Jane"]
        it.judge(Anonymize(("[N]",)), Anonymize(("[N]",)))
        assert it.response.body == body.replace(b"Jane", b"[N]")

    def test_logprobs_of_later_pieces_are_removed(self) -> None:
        event = b'data: {"choices":[{"index":0,"delta":{"content":"Ja"},"logprobs":{"x":"Ja"}}]}\n\n'
        it = asked().head("text/event-stream", "500").body(event * 2, end=True).judge(Anonymize(("[N]",)))
        assert b"Ja" not in it.response.body

    def test_logprobs_of_other_choices_stay(self) -> None:
        logprobs = {"content": [{"token": "Ja", "logprob": -1.0}]}
        events = [
            {"choices": [{"index": index, "delta": {"content": text}, "logprobs": logprobs}]}
            for index, text in enumerate(("Jane", "Hi"))
        ]
        first, second = (b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        it = asked().head("text/event-stream", "500").body(first + second, end=True)
        assert [one.output for one in it.asked[1].inputs] == ["Jane", "Hi"]
        it.judge(Anonymize(("[N]",)), Allow())
        assert it.response.body.endswith(b"\n\n" + second)
        assert b"Ja" not in it.response.body.removesuffix(second)

    def test_json_lines_are_judged_whole(self) -> None:
        body = b'{"choices":[{"text":"I am"}]}\n{"choices":[{"text":" Jane"}]}\n'
        it = asked().head("application/jsonl", "500").body(body, end=True)
        assert [one.output for one in it.asked[1].inputs] == ["I am Jane"]
        it.judge(Block())
        assert json.loads(it.response.body)["error"]["code"] == "content_policy_violation"

    def test_envoys_own_reply_passes(self) -> None:
        it = World().request(REQUEST).head("application/json", "504").body(self.BODY, end=True)
        assert it.response.body == self.BODY
        assert it.detections == {}

    def test_overload_replaces_the_body_and_the_rest_is_ignored(self) -> None:
        for rest in (BodyReceived(Leg.RESPONSE, b"}", end_of_stream=True), TrailersReceived(Leg.RESPONSE)):
            it = asked().head("application/json", "500").body(b"{")
            it.send(LoadChanged(is_overloaded=True))
            it.body(b"x")
            assert self.replaced_code(it) == "guardrail_overloaded"
            assert it.send(rest) == []

    def test_too_many_headers_replace_the_body(self) -> None:
        it = asked(limits={"headers": 8}).head("application/json", "500", *[("x", "1")] * 9)
        assert self.replaced_code(it) == "guardrail_unreadable_response"

    def test_verdict_of_moderation_still_counts(self) -> None:
        it = World(policy(hooks=["moderation", "output"])).request(REQUEST)
        it.head("application/json", "500").body(self.BODY, end=True)
        it.judge(Block("No."))
        assert (it.status, it.code) == (400, "content_policy_violation")

    def test_answer_is_unread_without_the_output_hook(self) -> None:
        it = self.judged(hooks=["pre_call"])
        assert it.response.body == self.BODY

    @staticmethod
    def replaced_code(it: World) -> str:
        return str(json.loads(it.response.body)["error"]["code"])


class TestTokensAlone:
    """Tokens leave only with a text of their choice or part, which Aim has judged."""

    TOKENS: ClassVar[dict[str, Any]] = {"content": [{"token": "Ja", "logprob": -1.0}, {"token": "ne", "logprob": -1.0}]}

    def test_choice_without_a_text_loses_its_tokens(self) -> None:
        choices = [{"message": {"content": text}, "logprobs": self.TOKENS} for text in ("", "Jane")]
        it = asked().head("application/json").body(json.dumps({"choices": choices}).encode(), end=True)
        assert [one.output for one in it.asked[1].inputs] == ["Jane"]
        it.judge(Allow())
        assert json.loads(it.response.body) == {"choices": [{**choices[0], "logprobs": None}, choices[1]]}

    def test_redaction_of_another_choice_changes_nothing_of_that(self) -> None:
        choices = [{"message": {"content": text}, "logprobs": self.TOKENS} for text in ("", "Jane")]
        it = asked().head("application/json").body(json.dumps({"choices": choices}).encode(), end=True)
        it.judge(Anonymize(("[N]",)))
        assert json.loads(it.response.body)["choices"] == [
            {"message": {"content": text}, "logprobs": None} for text in ("", "[N]")
        ]

    def test_answer_without_any_text_loses_all_tokens(self) -> None:
        answer = {"choices": [{"message": {"content": None}, "logprobs": self.TOKENS, "token_ids": [1, 2]}]}
        it = asked().head("application/json").body(json.dumps(answer).encode(), end=True)
        assert len(it.asked) == 1
        (choice,) = json.loads(it.response.body)["choices"]
        assert choice == {"message": {"content": None}, "logprobs": None, "token_ids": None}

    def test_tokens_of_the_prompt_stay(self) -> None:
        answer = {"choices": [{"message": {"content": None}, "prompt_logprobs": [7]}], "prompt_token_ids": [1, 2]}
        body = json.dumps(answer).encode()
        it = asked().head("application/json").body(body, end=True)
        assert it.response.body == body
        events = [{"choices": [{"index": 0, "delta": {}}], "prompt_token_ids": [1, 2]}, {"choices": []}]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        it = World().request(json.dumps(chat_request("hi", stream=True)).encode()).judge().head().body(body).wait(10)
        assert it.response.body == body

    def test_calls_are_a_text_that_tokens_spell(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "Jane"}'}}
        message = {"content": None, "tool_calls": [call]}
        body = json.dumps({"choices": [{"message": message, "logprobs": self.TOKENS}]}).encode()
        it = asked().head("application/json").body(body, end=True).judge(Allow())
        assert it.response.body == body

    def test_array_of_gemini(self) -> None:
        tokens = {"chosenCandidates": [{"token": "Jane", "tokenId": 7}]}
        body = json.dumps([{"candidates": [{"content": {"parts": []}, "logprobsResult": tokens}]}]).encode()
        it = World().request(b'{"contents": "Hi"}', path="/v1/models/m:generateContent").judge()
        it.head("application/json", "400").body(body, end=True)
        assert json.loads(it.response.body)[0]["candidates"][0]["logprobsResult"] is None

    @pytest.mark.parametrize(("text", "is_kept"), [("", False), ("Jane", True)])
    def test_event_stream_that_is_held(self, text: str, is_kept: bool) -> None:
        events = [
            {"choices": [{"index": 0, "delta": {"content": content}, "logprobs": self.TOKENS}]}
            for content in ("", text)
        ]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        it = asked().head("text/event-stream", "500").body(body, end=True)
        if is_kept:
            it.judge(Allow())
        assert (it.response.body == body) is is_kept
        assert (b"Ja" in it.response.body) is is_kept

    def test_context_of_ollama_is_that_of_all_its_events(self) -> None:
        events = [{"response": "Jane", "done": False}, {"response": "", "done": True, "context": [1, 2, 3]}]
        body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        it = World().request(b'{"prompt": "Hi"}', path="/api/generate").judge().head("application/x-ndjson")
        it.body(body, end=True).verify_all().done()
        assert it.response.body == body
