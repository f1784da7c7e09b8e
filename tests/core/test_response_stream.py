"""Transcripts of streamed answers."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from extproc.aim.protocol import Verified, frame
from extproc.core.chunk import MARK
from extproc.core.commands import ReportChunks, ReportFailOpen, ReportVerdict, SubmitChunk
from extproc.core.content.document import Document
from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.errors import Reason
from extproc.core.events import BodyReceived, ChunkVerified, RoomDemanded, SessionDone
from extproc.core.held_event import short_place
from extproc.core.policy import Limits
from extproc.core.release_queue import ReleaseQueue
from extproc.core.verdict import Allow, Block, Failed
from extproc.core.vocabulary import Hook, Leg
from tests.fakes.rig import DONE, chat_event, chat_request, chat_stream
from tests.fakes.world import VERDICT_TIMEOUT, World, policy

REQUEST = json.dumps(chat_request("Hello", stream=True)).encode()
ROLE = chat_event(role="assistant", text="")
PART = {"output_index": 0, "content_index": 0}


def begun(*headers: tuple[str, str], limits: dict[str, int] | None = None, **profile: Any) -> World:
    """Return an exchange whose streamed answer has begun."""
    return (
        World(policy(**profile), Limits(**(limits or {})))
        .request(REQUEST)
        .judge()
        .head("text/event-stream", "200", *headers)
    )


def call(arguments: str, index: int = 0) -> bytes:
    return chat_event(tool_calls=[{"index": index, "function": {"arguments": arguments}}])


def data_of(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def error_code(body: bytes) -> str:
    """Return the code in the error event that ends a stream."""
    assert body.endswith(DONE)
    event = body.removesuffix(DONE).rsplit(b"data: ", 1)[1]
    return str(json.loads(event)["error"]["code"])


class TestLostSession:
    def test_session_lost_after_the_end_without_text_does_not_matter(self) -> None:
        it = begun().body(ROLE + DONE).wake()
        assert it.is_submitted_done
        it.lose()
        assert it.response.body == ROLE + DONE
        assert len(it.opened) == 1


class TestPing:
    PING = b": ping\n\n"

    def test_a_waiting_client_hears_pings_between_events(self) -> None:
        it = begun(stream_ping_seconds=3).body(chat_event("a") + chat_event("b")).verify("a")
        assert it.due_in == 3
        it.wait(3)
        it.wait(3).verify("b")
        assert it.response.body == chat_event("a") + 2 * self.PING + chat_event("b")

    def test_pings_stop_when_no_event_waits(self) -> None:
        it = begun(stream_ping_seconds=3).body(chat_event("a")).verify("a")
        assert it.due_in is None
        it.body(chat_event("b"))
        assert it.due_in == 3
        it.body(DONE).verify("b").done()
        assert it.due_in is None

    def test_each_release_restarts_the_clock(self) -> None:
        it = begun(stream_ping_seconds=3).body(chat_event("a") + chat_event("b"))
        it.wait(2).verify("a")
        assert it.due_in == 3

    def test_ping_waits_for_the_head_so_that_an_early_block_is_an_error_status(self) -> None:
        it = begun(stream_ping_seconds=3, stream_head_seconds=300).body(chat_event("a")).wait(3)
        assert it.response.headers is None
        assert it.due_in == 3
        it.block()
        assert it.status == 400

    def test_first_ping_after_the_head_releases_the_headers(self) -> None:
        it = begun(stream_ping_seconds=3).body(chat_event("a")).wait(3)
        assert it.response.headers is not None
        assert it.response.body == self.PING
        assert error_code(it.block().response.body.removeprefix(self.PING)) == "content_policy_violation"

    def test_byte_order_mark_after_a_ping_is_removed(self) -> None:
        it = begun(stream_ping_seconds=3).body(b"\xef\xbb\xbf" + chat_event("a"))
        it.wait(3).verify("a")
        assert it.response.body == self.PING + chat_event("a")

    def test_byte_order_mark_without_a_ping_is_kept(self) -> None:
        it = begun(stream_ping_seconds=3).body(b"\xef\xbb\xbf" + chat_event("a")).verify("a")
        it.body(chat_event("b")).wait(3)
        assert it.response.body == b"\xef\xbb\xbf" + chat_event("a") + self.PING

    def test_ping_does_not_pass_the_gate_of_moderation(self) -> None:
        profile = policy(stream_ping_seconds=3, hooks=frozenset({Hook.MODERATION, Hook.OUTPUT}))
        it = World(profile).request(REQUEST).head().body(chat_event("a")).wait(3)
        assert it.due_in == 3
        it.judge().verify("a")
        assert it.response.body == chat_event("a")

    def test_clients_that_cannot_read_pings_get_none(self) -> None:
        it = World(policy(stream_ping_seconds=3)).request(
            b'{"contents": []}', path="/v1beta/models/m:streamGenerateContent?alt=sse"
        )
        it.head().body(b'data: {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}\n\n')
        assert it.wait(14).response.headers is None

    def test_pings_are_off_by_default(self) -> None:
        assert begun().body(chat_event("a")).wait(14).response.headers is None


class TestRelease:
    def test_text_is_released_only_when_verified(self) -> None:
        it = begun().body(ROLE + chat_event("a") + chat_event("b"))
        assert it.response.headers is None
        it.verify("a")
        assert it.response.body == ROLE + chat_event("a")
        it.verify("b")
        assert it.response.body == ROLE + chat_event("a") + chat_event("b")

    def test_events_without_text_wait_behind_text(self) -> None:
        it = begun().body(chat_event("a")).verify("a").body(chat_event("b") + b": ping\n\n" + ROLE)
        assert it.response.body == chat_event("a")
        it.verify("b")
        assert it.response.body == chat_event("a") + chat_event("b") + b": ping\n\n" + ROLE

    def test_head_waits_for_the_first_verdict_for_a_bounded_time(self) -> None:
        it = begun(stream_head_seconds=1.5).body(ROLE)
        assert it.due_in == 1.5
        it.wake()
        assert it.response.body == ROLE
        it.body(chat_event("a")).block()
        assert error_code(it.response.body) == "content_policy_violation"

    def test_head_is_opened_once(self) -> None:
        it = begun().body(chat_event("a")).wake()
        assert it.response.headers is None
        assert it.due_in == VERDICT_TIMEOUT - 2

    def test_merged_chunks_are_all_verified(self) -> None:
        it = begun().body(chat_event("a") + chat_event("b") + chat_event("c")).verify("ab")
        assert it.response.body == chat_event("a") + chat_event("b")

    def test_skipped_chunk_is_released_empty(self) -> None:
        it = begun().body(chat_event("a") + chat_event("b")).verify("b", mark=2)
        assert it.response.body == chat_event("") + chat_event("b")

    def test_skipped_chunk_without_marks_is_found_at_the_end(self) -> None:
        it = begun().body(chat_event("a") + chat_event("b"), end=True).verify("b")
        assert it.response.body == chat_event("b")
        it.done()
        assert it.response.body == chat_event("b") + chat_event("")

    def test_text_longer_than_all_waiting_texts_is_a_rewrite(self) -> None:
        it = begun().body(chat_event("a") + chat_event("b")).verify("abX")
        assert it.response.body == chat_event("abX")

    def test_a_rewrite_replaces_the_oldest(self) -> None:
        it = begun().body(chat_event("secret") + chat_event("b")).verify("[X]")
        assert it.response.body == chat_event("[X]")
        it.verify("b")
        assert it.response.body == chat_event("[X]") + chat_event("b")

    def test_a_rewritten_choice_loses_its_logprobs(self) -> None:
        chunk = {
            "choices": [{"index": 0, "delta": {"content": "secret"}, "logprobs": {"content": [{"token": "secret"}]}}]
        }
        it = begun().body(b"data: " + json.dumps(chunk).encode() + b"\n\n").verify("[X]")
        assert b"secret" not in it.response.body
        assert json.loads(it.response.body[6:])["choices"][0]["logprobs"] is None

    def test_an_emptied_chunk_is_a_rewrite(self) -> None:
        it = begun().body(ROLE + chat_event("secret")).verify_chunk(it_chunk("", role="assistant"))
        assert it.response.headers is None
        it.verify("")
        assert it.response.body == ROLE + chat_event("")

    def test_echo_without_text_may_be_late_and_have_nulls(self) -> None:
        it = begun().body(ROLE + chat_event(finish="x") + chat_event("a"))
        it.verify_chunk({"choices": [{"index": 0, "delta": {"tool_calls": None}, "finish_reason": "x"}]})
        assert it.response.headers is None
        it.verify("a")
        assert it.response.body == ROLE + chat_event(finish="x") + chat_event("a")

    def test_one_choice_of_a_chunk_may_have_no_text(self) -> None:
        it = begun().body(chat_event("a"))
        it.verify_chunk({"choices": [{"index": 1, "delta": {"content": ""}}, {"index": 0, "delta": {"content": "a"}}]})
        assert it.response.body == chat_event("a")

    def test_unknown_chunk_without_text_is_ignored(self) -> None:
        it = begun().body(chat_event("a")).verify(None)
        assert it.response.headers is None
        it.verify("a").verify("")
        assert it.response.body == chat_event("a")

    def test_other_texts_have_indices_of_their_own(self) -> None:
        it = begun().body(chat_event("a", refusal="b", reasoning="c"))
        whole, refusal, reasoning = it.chunks
        assert whole["choices"][0]["delta"]["refusal"] == "b"
        assert [chunk["id"] for chunk in it.chunks] == ["c1"] * 3
        assert [chunk["choices"][0]["delta"] for chunk in (refusal, reasoning)] == [{"content": "b"}, {"content": "c"}]
        assert len({refusal["choices"][0]["index"], reasoning["choices"][0]["index"], 0}) == 3
        it.verify("a").verify("[B]", refusal["choices"][0]["index"])
        assert it.response.headers is None
        it.verify("c", reasoning["choices"][0]["index"])
        assert it.response.body == chat_event("a", refusal="[B]", reasoning="c")

    def test_end_waits_for_aims_done(self) -> None:
        events = chat_stream("a", "b")
        it = begun().body(b"".join(events), end=True)
        assert it.is_submitted_done
        it.verify_all()
        assert it.response.body == b"".join(events[:-1])
        assert it.due_in == VERDICT_TIMEOUT
        it.done()
        assert (it.response.body, it.response.is_ended) == (b"".join(events), True)
        assert it.due_in is None
        assert ReportVerdict(Leg.RESPONSE, Hook.OUTPUT, (Allow(),), 7) in it.reports
        assert ReportChunks("verified", 2) in it.reports
        assert it.record.outcome == "allowed"
        assert it.is_complete

    def test_unverified_texts_are_released_empty_after_done(self) -> None:
        it = begun().body(chat_event("a") + chat_event("b"), end=True).verify("a").done()
        assert it.response.body == chat_event("a") + chat_event("")
        assert it.record.outcome == "redacted"

    def test_trailers_end_the_stream(self) -> None:
        it = begun().body(chat_event("a")).trailers()
        it.verify("a")
        assert not it.response.is_ended
        it.done()
        assert it.response.is_ended

    def test_stream_without_text_needs_no_answer_of_aim(self) -> None:
        body = ROLE + b"data:\n\ndata: {}\n\n" + DONE
        it = begun().body(body, end=True)
        assert (it.response.body, it.response.is_ended) == (body, True)
        assert it.session is None
        assert not it.is_submitted_done

    def test_empty_stream_is_released(self) -> None:
        it = begun().body(b"", end=True)
        assert it.response.is_ended

    def test_unknown_events_are_inspected(self) -> None:
        event = b'data: {"type":"x","inner":[{"text":"a"}],"delta":["b",1,{"content":"c"}],"n":"d"}\n\n'
        it = begun().body(event)
        assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["a", "b", "c", "d"]
        it.verify_all()
        assert it.response.body == event

    def test_texts_behind_the_first_256_of_a_list_are_one_and_put_back_by_line(self) -> None:
        calls = [{"index": n, "function": {"arguments": f"text {n}"}} for n in range(257)]
        calls.append({"index": 257, "function": {"arguments": "Tom"}})
        event = {"choices": [{"index": 0, "delta": {"tool_calls": calls}}], "zq": ["a", "Tom"]}
        it = begun().body(f"data: {json.dumps(event)}\n\n".encode())
        said = [chunk["choices"][0]["delta"].get("content", "") for chunk in it.chunks]
        assert said[-2:] == ["text 256\nTom", "a\nTom"]
        for chunk in list(it.chunks):
            text, index = chunk["choices"][0]["delta"].get("content"), chunk["choices"][0]["index"]
            if text:
                it.verify(text.replace("Tom", "[N]"), index)
        assert it.response.body == f"data: {json.dumps(event)}\n\n".replace("Tom", "[N]").encode()

    def test_a_chunk_of_another_shape_is_submitted_by_its_texts(self) -> None:
        event = b'data: {"id":7,"choices":[{"index":5000,"delta":{"content":[{"type":"text","text":"a"},"b"]}}]}\n\n'
        it = begun().body(event)
        assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["a", "b"]
        assert it.chunks[0]["id"] == "chatcmpl-call-1"
        it.verify_all()
        assert it.response.body == event

    def test_compressed_stream_is_decoded_event_by_event(self) -> None:
        encoder = zlib.compressobj(wbits=31)
        first = encoder.compress(chat_event("a")) + encoder.flush(zlib.Z_SYNC_FLUSH)
        rest = encoder.compress(chat_event("b") + DONE) + encoder.flush()
        it = begun(("content-encoding", "gzip")).body(first).verify("a")
        assert it.response.headers is not None
        assert {"content-encoding", "etag", "content-digest"} <= set(it.response.headers.remove)
        assert it.response.body == chat_event("a")
        it.body(rest, end=True).verify("b").done()
        assert it.response.body == chat_event("a") + chat_event("b") + DONE


def it_chunk(text: str, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **delta}}]}


class TestMarks:
    def test_chat_event_is_submitted_as_it_came_with_its_mark(self) -> None:
        data = '{ "choices":[{"index":0,"delta":{"content":"\\u0061","refusal":"b"}}] }'
        commands = begun().send(BodyReceived(Leg.RESPONSE, f"data: {data}\n\n".encode()))
        whole, refusal = (command.chunk for command in commands if isinstance(command, SubmitChunk))
        assert whole == data[:-1] + ',"x_aim_extproc":1}'
        assert refusal.endswith(', "x_aim_extproc": 2}')

    def test_event_with_a_mark_of_its_own_is_unreadable(self) -> None:
        it = begun().body(b'data: {"choices":[],"x_aim_extproc":1}\n\n')
        assert it.code == "guardrail_unreadable_response"

    def test_marks_are_ignored_if_the_first_chunk_has_none(self) -> None:
        it = begun().body(chat_event("a") + chat_event("b") + chat_event("c")).verify("a").verify("[X]", mark=3)
        assert it.response.body == chat_event("a") + chat_event("[X]")

    def test_unknown_mark_is_a_violation(self) -> None:
        assert begun().body(chat_event("a")).verify("a", mark=2).code == "guardrail_unavailable"

    def test_emptied_chunk_is_found_by_its_mark(self) -> None:
        it = begun().body(ROLE + chat_event("a") + chat_event("b"))
        it.verify("", mark=1)
        assert it.response.headers is None
        it.verify("", mark=3)
        assert it.response.body == ROLE + chat_event("") + chat_event("")
        it.verify("", mark=2).verify_chunk(it_chunk("", more=1) | {"x_aim_extproc": 2})
        assert it.reply is None
        assert it.session is not None

    def test_placeholder_that_the_model_says_itself_stays_in_its_event(self) -> None:
        it = begun().body(chat_event("secret") + chat_event("[X]") + chat_event("b"))
        it.verify("[X]", mark=1).verify("[X]", mark=2).verify("b", mark=3)
        assert it.response.body == chat_event("[X]") + chat_event("[X]") + chat_event("b")

    @pytest.mark.parametrize("index", [None, "0", 1.0, -1, 1024, True, [0]])
    def test_chunk_with_an_odd_index_is_submitted_by_its_texts(self, index: Any) -> None:
        choices = [
            {"index": index, "delta": {"content": "a"}},
            {"index": 1, "delta": {"content": "b", "refusal": "c"}},
        ]
        event = f"data: {json.dumps({'choices': choices})}\n\n".encode()
        it = begun().body(event + chat_event("d", index=1))
        assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["a", "b", "c", "d"]
        indices = [chunk["choices"][0]["index"] for chunk in it.chunks]
        assert (min(indices[:3]) > 1023, indices[3]) == (True, 1)
        it.verify_all()
        assert it.response.body == event + chat_event("d", index=1)

    def test_chunk_that_repeats_an_index_is_submitted_by_its_texts(self) -> None:
        choices = [{"delta": {"content": "a"}}, {"index": 0, "delta": {"content": "b"}}]
        event = f"data: {json.dumps({'choices': choices})}\n\n".encode()
        it = begun().body(event)
        assert [chunk["choices"][0]["delta"] for chunk in it.chunks] == [{"content": "a"}, {"content": "b"}]
        assert it.verify_all().response.body == event


class TestArguments:
    def _split(self, *pieces: str) -> tuple[World, int]:
        it = begun().body(b"".join(map(call, pieces)))
        return it, next(chunk["choices"][0]["index"] for chunk in it.chunks if chunk["choices"][0]["index"])

    @staticmethod
    def _sent(it: World) -> list[str]:
        return [text for chunk in it.chunks if (text := chunk["choices"][0]["delta"].get("content"))]

    def test_aim_reads_escapes_decoded_and_a_redaction_keeps_the_spelling(self) -> None:
        it, index = self._split(r'{"q": "caf\u00e9 bob@x.com"}')
        assert self._sent(it) == ['{"q": "café bob@x.com"}']
        it.verify('{"q": "café [EMAIL]"}', index)
        assert it.response.body == call(r'{"q": "caf\u00e9 [EMAIL]"}')

    def test_event_within_an_escape_waits_for_the_one_that_completes_it(self) -> None:
        pieces = ['{"q": "b\\', "u", "00", "6fb", '"}']
        it, index = self._split(*pieces)
        assert self._sent(it) == ['{"q": "b', "ob", '"}']
        it.verify('{"q": "b', index)
        assert it.response.headers is None
        it.verify("ob", index)
        assert it.response.body == b"".join(map(call, pieces[:4]))
        it.verify('"}', index)
        assert it.response.body == b"".join(map(call, pieces))

    def test_rewrite_takes_the_escape_out_of_the_earlier_events(self) -> None:
        it, index = self._split('{"q": "b\\', "u00", "6fb\\", 'n"}')
        assert self._sent(it) == ['{"q": "b', "ob", '\n"}']
        it.verify('{"q": "[X]', index).verify('"', index)
        assert it.response.body == call('{"q": "[X]') + call("")
        it.verify('\n"}', index)
        assert it.response.body == call('{"q": "[X]') + call("") + call('"\\') + call('n"}')
        it, index = self._split('{"q": "b\\', 'u006fb"}')
        it.verify('{"q": "b', index).verify('[X]"}', index)
        assert it.response.body == call('{"q": "b') + call('[X]"}')

    @pytest.mark.parametrize("is_ended", [True, False])
    def test_escape_that_nothing_completes_leaves_as_it_is(self, is_ended: bool) -> None:
        body = call("{\\ud83d\\ude0") + (b"" if is_ended else DONE)
        it = begun().body(body, end=is_ended)
        assert self._sent(it) == ["{"]
        it.verify_all()
        assert it.is_submitted_done
        assert it.done().response.body == body

    def test_arguments_that_go_on_after_the_end_within_an_escape_are_unreadable(self) -> None:
        it = begun().body(call("{\\") + DONE + call("n}"))
        assert it.code == "guardrail_unreadable_response"

    def test_half_of_a_pair_that_stands_alone_stays_as_it_is(self) -> None:
        pieces = ['{"\\ud83d\\', "u00", 'e9"}']
        it, _ = self._split(*pieces)
        assert self._sent(it) == ['{"', "\\ud83d\\u00", 'e9"}']
        assert it.verify_all().response.body == b"".join(map(call, pieces))

    def test_events_without_text_wait_until_rewritten_arguments_are_whole(self) -> None:
        it, index = self._split('{"a":"secret', '"}')
        it.verify('{"a":"[X]', index).body(ROLE)
        assert it.response.body == call('{"a":"[X]')
        it.verify('"}', index)
        assert it.response.body == call('{"a":"[X]') + call('"}') + ROLE
        it.body(call(" ")).verify(" ", index).body(ROLE)
        assert it.response.body == call('{"a":"[X]') + call('"}') + ROLE + call(" ") + ROLE

    @pytest.mark.parametrize("said", [r'{"q": "b\u006fb"}', '{"q": "[X]"}'])
    def test_repeat_has_the_spelling_of_its_deltas(self, said: str) -> None:
        def event(kind: str, **more: str) -> bytes:
            data = {"type": f"response.function_call_arguments.{kind}", "output_index": 0, **more}
            return f"data: {json.dumps(data)}\n\n".encode()

        request = json.dumps({"stream": True, "input": "Hello"}).encode()
        it = World().request(request, path="/v1/responses").judge().head()
        spelt = r'{"q": "b\u006fb"}'
        it.body(event("delta", delta=spelt[:10]) + event("delta", delta=spelt[10:]) + event("done", arguments=spelt))
        first, second = (chunk["choices"][0]["delta"]["content"] for chunk in it.chunks)
        assert (first, second) == ('{"q": "b', 'ob"}')
        index = it.chunks[0]["choices"][0]["index"]
        if said == spelt:
            it.verify_all()
        else:
            it.verify('{"q": "', index).verify('[X]"}', index)
        assert it.response.body.endswith(event("done", arguments=said))

    def test_repeat_of_arguments_that_differs_is_decoded_too(self) -> None:
        request = json.dumps({"stream": True, "input": "Hello"}).encode()
        it = World().request(request, path="/v1/responses").judge().head()
        events = [("delta", "delta", "{\\"), ("done", "arguments", r'{"q": "b\u006fb\u00')]
        body = b"".join(
            b"data: "
            + json.dumps({"type": f"response.function_call_arguments.{kind}", "output_index": 0, key: text}).encode()
            + b"\n\n"
            for kind, key, text in events
        )
        it.body(body)
        assert self._sent(it) == ["{", r'{"q": "bob\u00']
        assert it.verify_all().response.body == body

    def test_redaction_that_changes_the_structure_ends_in_the_error_event(self) -> None:
        it = begun().body(call('{"a":["b","secret"]}') + DONE, end=True)
        it.verify('{"a":["b"]}', it.chunks[1]["choices"][0]["index"]).done()
        assert error_code(it.response.body) == "redaction_failed"

    def test_a_redaction_that_leaves_json_passes(self) -> None:
        it = begun().body(call('{"a":"') + call("secret") + call('"}') + chat_event(finish="tool_calls"))
        index = it.chunks[1]["choices"][0]["index"]
        it.verify('{"a":"', index).verify("[X]", index)
        assert it.response.body == call('{"a":"') + call("[X]")
        it.verify('"}', index)
        assert it.response.body == call('{"a":"') + call("[X]") + call('"}') + chat_event(finish="tool_calls")

    def test_redaction_that_breaks_json_ends_in_the_error_event(self) -> None:
        it = begun().body(call('{"a":"secret"}') + chat_event(finish="tool_calls") + DONE, end=True)
        index = it.chunks[1]["choices"][0]["index"]
        it.verify("[X", index)
        assert it.response.body == call("[X")
        it.done()
        assert error_code(it.response.body) == "redaction_failed"

    def test_redaction_of_arguments_that_never_were_json_passes(self) -> None:
        it = begun().body(call("{secret") + DONE, end=True)
        it.verify("{[X]", it.chunks[1]["choices"][0]["index"]).done()
        assert it.response.body == call("{[X]") + DONE

    @pytest.mark.parametrize(("text", "code"), [("x" * 9_000_000, ""), ("[X]", "redaction_failed")])
    def test_very_long_arguments_cannot_be_redacted(self, text: str, code: str) -> None:
        piece = "x" * 9_000_000
        it = begun(limits={"event_bytes": 10_000_000, "held_bytes": 100_000_000}).body(call(piece) + call(piece))
        index = it.chunks[1]["choices"][0]["index"]
        it.verify(piece, index).verify(text, index)
        if code:
            assert error_code(it.response.body) == code
        else:
            assert it.response.body == call(piece) + call(piece)

    def test_a_spoken_answer_cannot_be_redacted(self) -> None:
        it = begun().body(chat_event(audio={"transcript": "secret"}))
        it.verify("[X]", it.chunks[1]["choices"][0]["index"])
        assert it.code == "redaction_failed"
        it = begun().body(chat_event(audio={"transcript": "secret"}), end=True).done()
        assert it.code == "redaction_failed"


class TestSeals:
    def _begun(self) -> World:
        request = json.dumps({"stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()
        return World().request(request, path="/v1/messages").judge().head()

    @staticmethod
    def _event(**delta: str) -> bytes:
        data = {"type": "content_block_delta", "index": 0, "delta": delta}
        return b"event: content_block_delta\ndata: " + json.dumps(data).encode() + b"\n\n"

    def test_signature_without_a_text_passes(self) -> None:
        signature = self._event(type="signature_delta", signature="sig")
        it = self._begun().body(signature, end=True)
        assert it.chunks == []
        assert it.response.body == signature

    @pytest.mark.parametrize(("said", "signature"), [("hm", "sig"), ("[X]", "")])
    def test_signature_of_a_rewritten_text_is_emptied(self, said: str, signature: str) -> None:
        thought = self._event(type="thinking_delta", thinking="hm")
        it = self._begun().body(thought + self._event(type="signature_delta", signature="sig"), end=True)
        it.verify(said, it.chunks[0]["choices"][0]["index"]).done()
        expected = self._event(type="thinking_delta", thinking=said)
        assert it.response.body == expected + self._event(type="signature_delta", signature=signature)


class TestBlock:
    def test_block_before_the_first_release_is_an_immediate_response(self) -> None:
        it = begun().body(ROLE + chat_event("secret")).block("Found 'secret'")
        assert it.reply is not None
        assert it.status == 400
        assert b"secret" not in it.reply.body
        assert it.session is None

    def test_block_in_a_running_stream_is_the_last_event(self) -> None:
        it = begun().body(chat_event("a")).verify("a").body(chat_event("secret")).block("Not that.")
        assert it.response.body.startswith(chat_event("a"))
        assert error_code(it.response.body) == "content_policy_violation"
        assert b"secret" not in it.response.body
        assert it.response.is_ended
        assert it.record.legs["response"].action == "block"

    def test_block_after_trailers_ends_with_the_trailers(self) -> None:
        it = begun().body(chat_event("a")).verify("a").body(chat_event("b")).trailers().block()
        assert error_code(it.response.body) == "content_policy_violation"
        assert it.response.is_ended

    def test_block_before_the_stream_arrives_counts(self) -> None:
        it = World().request(REQUEST).judge().block()
        assert it.code == "content_policy_violation"
        assert it.reports[-1] == ReportVerdict(Leg.RESPONSE, Hook.OUTPUT, (Block(),), 7)


class TestSession:
    def test_session_is_opened_when_the_request_is_released(self) -> None:
        it = World().request(REQUEST)
        assert it.opened == []
        it.judge()
        assert len(it.opened) == 1

    def test_session_for_an_unrequested_stream_is_opened_late(self) -> None:
        it = World().request(json.dumps(chat_request("x")).encode()).judge()
        assert it.opened == []
        it.head()
        assert len(it.opened) == 1

    def test_json_answer_does_not_need_the_session(self) -> None:
        it = World().request(REQUEST).judge().lose(Reason.UNREACHABLE, opened=False)
        it.head("application/json").body(b"{}", end=True)
        assert it.response.is_ended
        it = World().request(REQUEST).judge().head("application/json").body(b"{}", end=True)
        assert it.session is None

    def test_policy_for_an_unopened_session_applies_when_the_stream_arrives(self) -> None:
        it = World().request(REQUEST).judge().lose(Reason.KEY_REFUSED, opened=False)
        assert it.reply is None
        it.head()
        assert it.code == "guardrail_unavailable"

    def test_failed_session_may_fail_open_before_the_stream_arrives(self) -> None:
        it = World(policy(failure_mode_allow=True)).request(REQUEST).judge().lose(Reason.TIMEOUT, opened=False)
        it.head().body(b"any").body(b"thing", end=True)
        assert (it.response.body, it.response.is_ended) == (b"anything", True)

    def test_session_lost_before_the_stream_is_opened_again(self) -> None:
        it = World().request(REQUEST).judge().lose().head().body(chat_event("a")).verify("a")
        assert len(it.opened) == 2
        assert it.response.body == chat_event("a")

    def test_session_lost_before_any_text_is_opened_again_once(self) -> None:
        it = begun().body(ROLE).lose()
        assert len(it.opened) == 2
        it.lose()
        assert it.code == "guardrail_unavailable"

    def test_done_before_the_stream_is_a_violation(self) -> None:
        it = World().request(REQUEST).judge().done()
        assert it.session is None
        it.head()
        assert it.code == "guardrail_unavailable"

    @pytest.mark.parametrize("index", [0, 5])
    def test_text_that_was_not_submitted_is_a_violation(self, index: int) -> None:
        it = begun().body(chat_event("a")).verify("a").verify("more", index)
        assert error_code(it.response.body) == "guardrail_unavailable"

    def test_an_early_done_is_a_violation(self) -> None:
        it = begun().body(chat_event("a")).done()
        assert it.code == "guardrail_unavailable"

    def test_event_of_a_lost_session_is_ignored(self) -> None:
        it = begun().body(ROLE).lose().body(chat_event("a"))
        assert it.send(SessionDone(it.opened[0])) == []

    def test_silence_is_bounded_from_submission_and_by_each_frame(self) -> None:
        it = begun(stream_head_seconds=300).body(chat_event("a") + chat_event("b"))
        assert it.due_in == VERDICT_TIMEOUT
        it.wait(14).body(chat_event("c"))
        assert it.due_in == VERDICT_TIMEOUT - 14
        it.verify("a")
        assert it.due_in == VERDICT_TIMEOUT
        it.verify("bc")
        assert it.due_in is None
        it.body(chat_event("d")).wake()
        assert error_code(it.response.body) == "guardrail_unavailable"

    def test_rest_of_a_stream_that_fails_open_is_released_unread(self) -> None:
        it = begun(failure_mode_allow=True).body(chat_event("a") + chat_event("b")[:9]).lose()
        assert it.response.body == chat_event("a") + chat_event("b")[:9]
        it.body(chat_event("b")[9:]).body(b"junk")
        it.send(BodyReceived(Leg.RESPONSE, b"", end_of_stream=True))
        assert it.response.body == chat_event("a") + chat_event("b") + b"junk"
        assert it.response.is_ended
        assert it.record.outcome == "failed_open"

    def test_open_stream_with_broken_compression_ends_in_the_error_event(self) -> None:
        data = gzip.compress(chat_event("a"))
        it = begun(("content-encoding", "gzip"), failure_mode_allow=True).body(data[:-4]).lose()
        assert it.response.body == chat_event("a")
        it.body(b"", end=True)
        assert error_code(it.response.body) == "guardrail_unreadable_response"

    def test_two_deadlines_at_once_are_one_failure(self) -> None:
        it = begun(failure_mode_allow=True, limits={"held_bytes": 1024}).body(chat_event("x" * 2000))
        it.wait(VERDICT_TIMEOUT)
        assert it.response.body == chat_event("x" * 2000)
        assert [report for report in it.reports if isinstance(report, ReportFailOpen)] == [
            ReportFailOpen(Leg.RESPONSE, Reason.TIMEOUT)
        ]

    def test_two_deadlines_at_once_are_one_refusal(self) -> None:
        it = begun(limits={"held_bytes": 1024}).body(chat_event("x" * 2000)).wait(VERDICT_TIMEOUT)
        assert it.code == "guardrail_unavailable"

    def test_stream_may_fail_open_after_its_end(self) -> None:
        it = begun(failure_mode_allow=True).body(chat_event("a"), end=True).lose()
        assert (it.response.body, it.response.is_ended) == (chat_event("a"), True)


class TestHold:
    def test_reading_pauses_while_too_much_waits(self) -> None:
        events = [chat_event("x" * 500), chat_event("y" * 500)]
        it = begun(limits={"held_bytes": 4096}).body(events[0])
        assert not it.is_paused
        it.body(events[1])
        assert it.is_paused
        it.wait(10).verify("x" * 500)
        assert not it.is_paused
        assert it.wait(14).reply is None

    def test_full_hold_without_a_release_is_a_failure(self) -> None:
        it = begun(limits={"held_bytes": 1024}).body(chat_event("x" * 2000) + chat_event("y", index=1))
        it.wait(10).verify("y", 1)  # this frame frees nothing
        it.wait(5)
        assert it.code == "guardrail_overloaded"

    def test_stream_is_released_when_moderation_opens_the_gate(self) -> None:
        it = World(policy(hooks=["moderation", "output"]), Limits(held_bytes=1024)).request(REQUEST).head()
        it.body(chat_event("x" * 2000)).verify("x" * 2000)
        assert it.is_paused
        assert it.response.headers is None
        it.judge()
        assert not it.is_paused
        assert it.response.body == chat_event("x" * 2000)

    def test_only_streams_and_passing_responses_pause(self) -> None:
        it = World(policy(), Limits(held_bytes=1024)).request(REQUEST).judge()
        it.head("application/json").body(b"x" * 2000)
        assert it.exchange.held_bodies == 2000
        assert not it.is_paused

    def test_stream_that_yields_room_is_refused(self) -> None:
        it = begun().body(chat_event("x" * 2000))
        assert it.yields > 2000
        it.send(RoomDemanded())
        assert (it.status, it.code) == (503, "guardrail_overloaded")
        assert (it.held, it.yields) == (0, 0)

    def test_stream_that_yields_room_after_a_release_ends_with_an_error(self) -> None:
        it = begun().body(chat_event("a")).verify("a").body(chat_event("b"))
        it.send(RoomDemanded())
        assert it.response.body.startswith(chat_event("a"))
        assert error_code(it.response.body) == "guardrail_overloaded"
        assert it.held == 0

    def test_stream_that_yields_room_may_fail_open(self) -> None:
        it = begun(failure_mode_allow={"response": ["held_bytes"]}).body(chat_event("a"))
        it.send(RoomDemanded())
        assert it.response.body == chat_event("a")
        assert ReportFailOpen(Leg.RESPONSE, Reason.HELD_BYTES) in it.reports
        assert (it.held, it.yields) == (0, 0)
        it.body(chat_event("b"))
        assert it.send(RoomDemanded()) == []
        assert it.response.body == chat_event("a") + chat_event("b")

    def test_large_incomplete_event_yields_room_even_after_the_last_verdict(self) -> None:
        it = begun().body(chat_event("a") + DONE).verify("a").done().body(b"data: " + b"x" * 2000)
        assert it.yields > 2000
        it.send(RoomDemanded())
        assert error_code(it.response.body.replace(chat_event("a") + DONE, b"")) == "guardrail_overloaded"
        assert it.held == 0


class TestUnreadable:
    @pytest.mark.parametrize(
        "body",
        [
            b"data: not json\n\n",
            b"data: \xff\n\n",
            b'data: {"choices":[],"choices":[]}\n\n',
            b"data: " + b"x" * 2000,
            b"data: " + b"x" * 2000 + b"\n\n",
        ],
    )
    def test_unreadable_event_is_refused(self, body: bytes) -> None:
        limits = {"event_bytes": 1024}
        it = begun(limits=limits).body(body, end=True)
        assert it.code == "guardrail_unreadable_response"
        tail = chat_event("b") + DONE
        it = begun(limits=limits, failure_mode_allow=True).body(chat_event("a") + body + tail, end=True)
        assert (it.response.body, it.response.is_ended) == (chat_event("a") + body + tail, True)

    def test_unreadable_last_event_may_fail_open(self) -> None:
        it = begun(failure_mode_allow=True).body(b"data: \xff")
        it.send(BodyReceived(Leg.RESPONSE, b"", end_of_stream=True))
        assert (it.response.body, it.response.is_ended) == (b"data: \xff", True)

    def test_running_stream_ends_in_the_error_event(self) -> None:
        it = begun().body(chat_event("a")).verify("a").body(b"data: junk\n\n")
        assert error_code(it.response.body) == "guardrail_unreadable_response"

    def test_stream_with_too_many_texts_is_unreadable(self) -> None:
        it = begun()
        for first in range(0, 5000, 200):
            if not it.is_closed:
                calls = [{"index": first + n, "function": {"arguments": "x"}} for n in range(200)]
                it.body(chat_event(tool_calls=calls))
        assert it.code == "guardrail_unreadable_response"

    def test_stream_in_an_unknown_encoding_is_unreadable(self) -> None:
        it = begun(("content-encoding", "x"))
        assert it.code == "guardrail_unreadable_response"
        assert it.session is None
        it = begun(("content-encoding", "x"), failure_mode_allow=True).body(b"raw", end=True)
        assert (it.response.body, it.response.is_ended) == (b"raw", True)

    @pytest.mark.parametrize("data", [b"not gzip", gzip.compress(b"data: {}\n\n", mtime=0)[:-1]])
    def test_broken_compression_is_refused_whatever_the_policy(self, data: bytes) -> None:
        it = begun(("content-encoding", "gzip"), failure_mode_allow=True).body(data, end=True)
        assert it.code == "guardrail_unreadable_response"

    def test_stream_that_fails_open_is_still_decoded(self) -> None:
        data = gzip.compress(b"data: junk\n\nmore")
        it = begun(("content-encoding", "gzip"), failure_mode_allow=True).body(data[:-1])
        it.send(BodyReceived(Leg.RESPONSE, data[-1:], end_of_stream=True))
        assert (it.response.body, it.response.is_ended) == (b"data: junk\n\nmore", True)

    @pytest.mark.parametrize("opened", [b"data: junk\n\ndata: {", b"data: junk\n\ndata: {}\r\n", b"data: junk\r\n\r\n"])
    def test_refusal_after_failing_open_is_a_separate_event(self, opened: bytes) -> None:
        coder = zlib.compressobj(wbits=31)
        data = coder.compress(opened) + coder.flush(zlib.Z_SYNC_FLUSH)
        it = begun(("content-encoding", "gzip"), failure_mode_allow=True).body(data).body(b"\xff" * 100)
        sent, error, _ = it.response.body.rpartition(b'data: {"error"')
        assert error
        assert sent == (opened if opened.endswith(b"\r\n\r\n") else opened + b"\n\n")
        assert error_code(it.response.body) == "guardrail_unreadable_response"

    @pytest.mark.parametrize("line_end", [b"", b"\n", b"\r", b"\r\n"])
    def test_refusal_follows_a_blank_line(self, line_end: bytes) -> None:
        last = chat_event("a").rstrip() + line_end
        it = begun().body(last, end=True).verify("a")
        assert it.response.body == last
        it.block()
        assert it.response.body.startswith(last + b"\n\ndata: ")
        assert error_code(it.response.body) == "content_policy_violation"


class TestForeign:
    @pytest.mark.parametrize(
        ("body", "rewritten"),
        [
            (b"DATA: SECRET\n\n", b"[X]\n\n"),
            (b"SECRET plain\ntext\n\n", b"[X]\n\n"),
            (b"x\xe2\x80\xa8data: SECRET\n\n", b"[X]\n\n"),
            (b'error: {"message":"SECRET",\n\n', b"error: [X]\n\n"),
            (b'error: {"text":"SECRET"}\n\n', b'error: {"text":"[X]"}\n\n'),
            (b'error: {"text":"\\u0053ECRET"}\r\n', b'error: {"text":"[X]"}\r\n'),
            (b' data: {"text":"SECRET"}\n\n', b' data: {"text":"[X]"}\n\n'),
            (b"event: message\n\xef\xbb\xbfdata: SECRET\n\n", b"event: message\n[X]\n\n"),
            (b"hello there\n\xef\xbb\xbfdata: SECRET\n\n", b"[X]\n\n"),
            (
                b'{"choices":[{"index":0,"delta":{"content":"SECRET"}}]}',
                b'{"choices":[{"index":0,"delta":{"content":"[X]"}}]}',
            ),
        ],
    )
    def test_line_that_is_no_field_is_inspected(self, body: bytes, rewritten: bytes) -> None:
        it = begun().body(body, end=True)
        assert it.response.body == b""
        (chunk,) = it.chunks
        assert "SECRET" in chunk["choices"][0]["delta"]["content"]
        assert it.verify_all().done().response.body == body
        it = begun().body(body, end=True).verify("[X]", chunk["choices"][0]["index"]).done()
        assert it.response.body == rewritten
        it = begun().body(body, end=True).block()
        assert it.status == 400

    def test_lines_of_json_are_inspected_one_by_one(self) -> None:
        it = begun().body(b'{"text":"a"}\n').verify_all()
        assert it.response.body == b'{"text":"a"}\n'
        it.body(b'{"text":"b"}\n').verify_all()
        assert it.response.body == b'{"text":"a"}\n{"text":"b"}\n'

    def test_line_that_is_not_utf8_is_unreadable(self) -> None:
        assert begun().body(b"x: \xff\n\n").code == "guardrail_unreadable_response"
        assert begun(failure_mode_allow=True).body(b"x: \xff\n\n").response.body == b"x: \xff\n\n"

    def test_comments_and_names_with_text_leave_without_it(self) -> None:
        it = begun().body(b": x\xe2\x80\xa8data: SECRET\n\nevent: my SECRET\nid: 1\n\n", end=True)
        assert it.response.body == b":\n\n:\nid: 1\n\n"

    def test_every_field_of_the_standard_is_known(self) -> None:
        body = b"\xef\xbb\xbf: ok\nid: 1\nevent: e\nretry: 5\ndata\ndata:\n\n"
        it = begun().body(body, end=True)
        assert it.response.body == body

    def test_byte_order_mark_before_the_json_of_an_event_is_not_submitted(self) -> None:
        body = b"data: \xef\xbb\xbf" + chat_event("a").removeprefix(b"data: ")
        it = begun().body(body)
        assert it.chunks == [json.loads(chat_event("a").removeprefix(b"data: ")) | {MARK: 1}]
        assert it.verify("b").response.body == body.replace(b'"a"', b'"b"')


class TestEndMark:
    def test_aim_is_told_at_the_mark_and_the_client_gets_it(self) -> None:
        it = begun().body(chat_event("a") + DONE).verify("a")
        assert it.is_submitted_done
        assert it.due_in == VERDICT_TIMEOUT
        it.done()
        assert it.response.body == chat_event("a") + DONE
        assert it.due_in is None
        assert not it.response.is_ended
        it.body(b": stream complete\n\n")
        it.body(b"", end=True)
        assert (it.response.body, it.response.is_ended) == (chat_event("a") + DONE + b": stream complete\n\n", True)

    @pytest.mark.parametrize("is_done", [False, True])
    def test_text_after_the_mark_is_unreadable(self, is_done: bool) -> None:
        it = begun().body(chat_event("a") + DONE).verify("a")
        if is_done:
            it.done()
        it.body(chat_event("SECRET"))
        assert error_code(it.response.body) == "guardrail_unreadable_response"
        assert b"SECRET" not in it.response.body

    @pytest.mark.parametrize("ends", [["stop", "done"], ["done"], ["done", "done"], ["stop", "stop"]])
    def test_any_marks_of_the_end_may_follow_each_other(self, ends: list[str]) -> None:
        request = json.dumps({"stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()
        it = World().request(request, path="/v1/messages").judge().head()
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
        marks = {"stop": b'event: message_stop\ndata: {"type": "message_stop"}\n\n', "done": DONE}
        body = f"data: {json.dumps(delta)}\n\n".encode() + b"".join(marks[end] for end in ends)
        it.body(body).verify_all()
        assert it.is_submitted_done
        it.done()
        assert it.response.body == body
        it.body(DONE, end=True)
        assert (it.response.body, it.response.is_ended) == (body + DONE, True)


class TestTokens:
    """Tokens that spell a rewritten text become null, in its event and in later ones."""

    @staticmethod
    def _queue(*events: dict[str, Any]) -> tuple[ReleaseQueue, list[int]]:
        queue = ReleaseQueue(TokenDialect(), "c1")
        chunks: list[str] = []
        for event in events:
            chunks += queue.add(ServerSentEvent(b"data: x\n\n", json.dumps(event)))
        return queue, [json.loads(chunk)["choices"][0]["index"] for chunk in chunks]

    @staticmethod
    def _read(data: bytes) -> list[Any]:
        return [json.loads(line[6:]) for line in data.decode().split("\n\n") if line and line != "data: x"]

    def test_tokens_of_the_unit_become_null_from_then_on(self) -> None:
        event = {"a": "x", "b": "y", "tokens": {"a": [1], "b": [2], "all": [3]}}
        queue, (a, b, *_) = self._queue(event, event)
        for index, text in ((a, "[X]"), (b, "y"), (a, "x"), (b, "y")):
            queue.verified(((index, text),), {"choices": []})
        assert self._read(queue.take_ready()) == [
            {"a": "[X]", "b": "y", "tokens": {"a": None, "b": [2], "all": None}},
            {"a": "x", "b": "y", "tokens": {"a": None, "b": [2], "all": None}},
        ]
        queue.add(ServerSentEvent(b"data: x\n\n", json.dumps({"b": "y", "tokens": {"a": [4], "b": [5]}})))
        queue.verified(((b, "y"),), {"choices": []})
        assert self._read(queue.take_ready()) == [{"b": "y", "tokens": {"a": None, "b": [5]}}]

    def test_tokens_without_a_text_of_their_unit_become_null(self) -> None:
        queue, (a, *_) = self._queue({"a": "x", "tokens": {"a": [1], "b": [2], "all": [3]}}, {"tokens": {"all": [4]}})
        queue.verified(((a, "x"),), {"choices": []})
        assert self._read(queue.take_ready()) == [
            {"a": "x", "tokens": {"a": [1], "b": None, "all": [3]}},
            {"tokens": {"all": None}},
        ]

    def test_empty_places_of_tokens_stay(self) -> None:
        """Some servers send them with each event."""
        empty: dict[str, Any] = {"content": [], "refusal": None, "more": {"a": ""}}
        role = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "logprobs": empty}]}
        it = begun().body(f"data: {json.dumps(role)}\n\n".encode() + chat_event("a")).verify_all()
        assert json.loads(it.response.body.split(b"\n")[0][6:]) == role

    @pytest.mark.parametrize(("count", "is_lost"), [(4, False), (5, True)])
    def test_unit_whose_tokens_run_ahead_of_its_text_loses_them(self, count: int, is_lost: bool) -> None:
        """As with a server that holds text back while it looks for a stop sequence."""
        text = {"a": "x", "tokens": {"a": [1]}}
        queue, (a,) = self._queue(text)
        queue.verified(((a, "x"),), {"choices": []})
        assert queue.take_ready() == b"data: x\n\n"
        for event in (*[{"tokens": {"a": [2]}}] * count, text, text):
            queue.add(ServerSentEvent(b"data: x\n\n", json.dumps(event)))
        for _ in range(2):
            queue.verified(((a, "x"),), {"choices": []})
        released = queue.take_ready().decode().split("\n\n")
        assert list(map(json.loads, (line[6:] for line in released[:count]))) == [{"tokens": {"a": None}}] * count
        lost = f"data: {json.dumps({'a': 'x', 'tokens': {'a': None}})}"
        assert released[count:] == [*[lost if is_lost else "data: x"] * 2, ""]

    def test_tokens_of_unchanged_texts_stay(self) -> None:
        queue, (a,) = self._queue({"a": "x", "tokens": {"a": [1], "all": [2]}})
        queue.verified(((a, "x"),), {"choices": []})
        assert queue.take_ready() == b"data: x\n\n"

    def test_text_without_a_unit_belongs_to_every_unit(self) -> None:
        queue, (other,) = self._queue({"other": "x", "tokens": {"a": [1]}})
        queue.verified(((other, "[X]"),), {"choices": []})
        assert self._read(queue.take_ready()) == [{"other": "[X]", "tokens": {"a": None}}]

    def test_beyond_many_units_all_tokens_become_null(self) -> None:
        queue = ReleaseQueue(TokenDialect(), "c1")
        for number in range(4098):
            raw = b"data: x\n\n".ljust(200)  # a short event's chunk would wait to be joined with others
            (chunk,) = queue.add(ServerSentEvent(raw, json.dumps({"texts": {str(number): "x"}})))
            queue.verified(((json.loads(chunk)["choices"][0]["index"], "[X]"),), {"choices": []})
        queue.take_ready()
        queue.add(ServerSentEvent(b"data: x\n\n", json.dumps({"tokens": {"b": [1]}})))
        assert self._read(queue.take_ready()) == [{"tokens": {"b": None}}]


class TokenDialect(OpenAIChat):
    """An API whose events have texts under `a`, `b` and `other`, and tokens of each."""

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        root = document.root
        texts = [
            Leaf((key,), root[key], place=key, unit=key if key != "other" else None)
            for key in ("a", "b", "other")
            if key in root
        ]
        more = [Leaf(("texts", key), text, place="texts", unit=key) for key, text in root.get("texts", {}).items()]
        tokens = [
            Leaf(("tokens", key), "", kind=Kind.TOKENS, unit=key if key != "all" else None)
            for key in root.get("tokens", {})
        ]
        return texts + more + tokens


class TestOpening:
    """What leaves if a policy opens: nothing that Aim took out, and all else once."""

    def test_rewritten_text_stays_rewritten_and_the_rest_leaves_as_it_came(self) -> None:
        it = begun(failure_mode_allow=True).body(chat_event("a", index=1) + chat_event("secret") + chat_event("b"))
        it.verify("[X]", mark=2).lose()
        assert it.response.body == chat_event("a", index=1) + chat_event("[X]") + chat_event("b")

    @pytest.mark.parametrize("marks", [(3, 4), (None, None)])
    @pytest.mark.parametrize("said", [["[X] b"], ["[X]", " b"]])
    def test_end_passes_behind_all_texts_and_what_was_redacted_behind_a_waiting_choice_stays_so(
        self, marks: tuple[int | None, int | None], said: list[str]
    ) -> None:
        """Choice 0 waits in front of choice 1, which Aim has redacted, joined or not."""
        it = begun(failure_mode_allow=True)
        it.body(chat_event("first") + chat_event("second") + chat_event("secret", index=1) + chat_event(" b", index=1))
        it.body(DONE, end=True)
        for text, mark in zip(said, marks, strict=False):
            it.verify(text, 1, mark)
        it.lose()
        last = [chat_event(text, index=1) for text in (said if len(said) == 2 else ["[X] b", ""])]
        assert it.response.body == chat_event("first") + chat_event("second") + b"".join(last) + DONE
        assert it.response.is_ended

    def test_text_that_aim_split_is_whole_before_the_end(self) -> None:
        it = begun(failure_mode_allow=True).body(chat_event("wait") + chat_event("hello", index=1))
        it.body(chat_event("next", index=1) + chat_event("last", index=1) + DONE, end=True)
        it.verify("he", 1, mark=2).verify("llo", 1, mark=2).lose()
        texts = [chat_event(text, index=1) for text in ("he", "llo", "nextlast")]
        assert it.response.body == chat_event("wait") + b"".join(texts) + DONE

    @pytest.mark.parametrize(
        ("path", "texts", "end"),
        [
            ("/v1/chat/completions", [chat_event("a"), chat_event("b")], DONE),
            (
                "/v1/messages",
                [
                    data_of({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}),
                    data_of({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}}),
                ],
                b'data: {"type": "message_stop"}\n\n',
            ),
            (
                "/v1/responses",
                [
                    data_of(
                        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"}
                    ),
                    data_of(
                        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "b"}
                    ),
                ],
                b'data: {"type": "response.completed", "response": {"status": "completed"}}\n\n',
            ),
        ],
    )
    @pytest.mark.parametrize("is_early", [True, False])
    def test_end_never_passes_without_the_texts_before_it(
        self, path: str, texts: list[bytes], end: bytes, is_early: bool
    ) -> None:
        """Aim has verified one of two texts when its session ends, too early or lost."""
        it = World(policy(hooks={Hook.OUTPUT}, failure_mode_allow=True))
        it.request(b'{"stream": true}', path=path).head().body(b"".join(texts) + end)
        it.verify("a", it.chunks[0]["choices"][0]["index"])
        assert it.response.body == texts[0]
        if is_early:
            it.done()
        else:
            it.lose()
        assert it.response.body == b"".join(texts) + end

    def test_text_that_was_joined_to_a_rewritten_one_does_not_leave_again(self) -> None:
        it = begun(failure_mode_allow=True).body(chat_event("secret") + chat_event(" b") + chat_event(" c"))
        it.verify("[X] b", mark=1).lose()
        assert it.response.body == chat_event("[X] b") + chat_event("") + chat_event(" c")

    def test_text_whose_place_was_taken_is_in_the_next_event(self) -> None:
        it = begun(failure_mode_allow=True).body(b"".join(map(chat_event, ["hello", "next", "b"])))
        it.verify("he", mark=1).verify("llo", mark=1).lose()
        assert it.response.body == chat_event("he") + chat_event("llo") + chat_event("nextb")

    def test_text_of_the_model_that_equals_a_part_of_another_leaves_once(self) -> None:
        """Aim splits "on", and replaces the next text by one that the model says itself."""
        it = begun(failure_mode_allow=True).body(ROLE + b"".join(map(chat_event, ["on", "secret", "on", "n", "last"])))
        it.verify("o", mark=2).verify("n", mark=2).verify("on", mark=3).lose()
        texts = ["o", "n", "on", "onn", "last"]
        assert it.response.body == ROLE + b"".join(map(chat_event, texts))

    def test_rest_of_a_text_that_aim_has_begun_leaves(self) -> None:
        it = begun(failure_mode_allow=True).body(ROLE + chat_event("my name is Jo") + chat_event("hn"))
        it.verify("my name is ", mark=2).lose()
        assert it.response.body == ROLE + chat_event("my name is ") + chat_event("John")

    def test_rest_that_no_event_is_left_for_never_fails_open(self) -> None:
        it = begun(failure_mode_allow=True).body(ROLE + chat_event("my name is Jo"))
        it.verify("my name is ", mark=2).lose()
        assert error_code(it.response.body) == "redaction_failed"

    def test_text_that_aim_has_dropped_does_not_leave_although_its_place_was_taken(self) -> None:
        it = begun(failure_mode_allow=True).body(ROLE + b"".join(map(chat_event, ["on", "secret", "last"])))
        it.verify("o", mark=2).verify("n", mark=2).verify("", mark=3).lose()
        assert it.response.body == ROLE + b"".join(map(chat_event, ["o", "n", "last"]))

    def test_rest_takes_the_place_of_a_text_that_aim_has_said(self) -> None:
        it = begun(failure_mode_allow=True).body(ROLE + b"".join(map(chat_event, ["he", "hello", "b", "c"])))
        it.verify("he", mark=3).lose()
        assert it.response.body == ROLE + b"".join(map(chat_event, ["he", "llo", "b", "c"]))

    def test_rest_of_arguments_keeps_its_escapes(self) -> None:
        it = begun(failure_mode_allow=True).body(ROLE + call('{"a":"1\\n2') + call('\\n3"}'))
        index = it.chunks[2]["choices"][0]["index"]
        it.verify('{"a":"1', index, mark=3).lose()
        assert it.response.body == ROLE + call('{"a":"1') + call('\\n2\\n3"}')

    @pytest.mark.parametrize("is_lost", [True, False])
    def test_texts_of_one_chunk_are_counted_in_each_choice(self, is_lost: bool) -> None:
        two = [data_of({"choices": [{"index": each, "delta": {"content": text}} for each in (0, 1)]}) for text in "abc"]
        it = begun(failure_mode_allow=True).body(b"".join(two))
        it.verify_chunk({"choices": [{"index": 0, "delta": {"content": "ab"}}], MARK: 2})
        it.verify_chunk({"choices": [{"index": 1, "delta": {"content": "[X]"}}], MARK: 1})
        if is_lost:
            it.lose()
        else:
            it.verify_chunk({"choices": [{"index": 1, "delta": {"content": "b"}}], MARK: 2})
        first = data_of(
            {"choices": [{"index": each, "delta": {"content": text}} for each, text in ((0, "a"), (1, "[X]"))]}
        )
        assert it.response.body == first + (two[1] + two[2] if is_lost else two[1])

    def test_mark_that_a_verified_chunk_lacks_is_that_of_the_oldest_text(self) -> None:
        it = begun(failure_mode_allow=True).body(ROLE + b"".join(map(chat_event, ["a", "secret", "c", "d"])))
        it.verify("a", mark=2).verify("[X]").verify("[Y]", mark=4).verify("d").verify_chunk(json.loads(ROLE[6:]))
        it.body(DONE, end=True).done()
        assert it.response.body == ROLE + b"".join(map(chat_event, ["a", "[X]", "[Y]", "d"])) + DONE

    @pytest.mark.parametrize("mark", [1, None])
    @pytest.mark.parametrize("texts", [["hello"], ["hello", "next"]])
    def test_text_that_no_event_is_left_for_never_fails_open(self, texts: list[str], mark: int | None) -> None:
        it = begun(failure_mode_allow=True).body(b"".join(map(chat_event, texts)))
        it.verify("he", mark=mark).verify("llo", mark=mark)
        if not it.is_closed:
            it.lose()
        assert error_code(it.response.body) == "redaction_failed"
        assert it.record.outcome == "refused"

    @pytest.mark.parametrize(
        ("text", "said", "rest", "code"),
        [
            ('{"a":"secret', '{"a":"[X]', '"}', ""),
            ('{"a":"secret', "{[X]", '"}', "redaction_failed"),
            ('{"a":1}', '{"a":[X}', "", "redaction_failed"),
            ('{"a":1}', '{"a":[X]}', "", "redaction_failed"),
            ('{"a":"secret\\', '{"a":"[X]', 'n"}', ""),
        ],
    )
    def test_arguments_that_a_rewrite_broke_do_not_leave(self, text: str, said: str, rest: str, code: str) -> None:
        it = begun(failure_mode_allow=True).body(call(text) + ROLE)
        it.verify(said, it.chunks[1]["choices"][0]["index"]).lose()
        it.body(call(rest) if rest else b"", end=True)
        if code:
            assert error_code(it.response.body if it.reply is None else it.reply.body + DONE) == code
        else:
            last = "\\" if text.endswith("\\") else ""
            assert it.response.body == call(said + last) + ROLE + call(rest)

    @staticmethod
    def _responses() -> World:
        request = json.dumps({"stream": True, "input": "Hello"}).encode()
        return World(policy(failure_mode_allow=True)).request(request, path="/v1/responses").judge().head()

    @staticmethod
    def _event(kind: str, **more: str) -> bytes:
        event = {"type": f"response.output_text.{kind}", "output_index": 0, "content_index": 0, **more}
        return f"data: {json.dumps(event)}\n\n".encode()

    def test_later_repeat_does_not_bring_a_rewritten_text_back(self) -> None:
        delta, done = self._event("delta", delta="secret"), self._event("done", text="secret and more")
        it = self._responses().body(delta)
        it.verify("[X]", it.chunks[0]["choices"][0]["index"]).lose()
        it.body(self._event("delta", delta=" and more") + b"data: {}\n\n" + done[:20]).body(done[20:])
        it.body(b": ping", end=True)
        assert b"secret" not in it.response.body
        expected = [self._event("delta", delta="[X]"), self._event("delta", delta=" and more"), b"data: {}\n\n"]
        assert it.response.body == b"".join([*expected, self._event("done", text="[X] and more"), b": ping"])

    def test_rest_is_read_to_its_end_if_the_upstream_has_ended(self) -> None:
        it = self._responses().body(self._event("delta", delta="secret"))
        it.verify("[X]", it.chunks[0]["choices"][0]["index"])
        it.body(
            self._event("done", text="secret") + b"data: {}\n\n" + self._event("done", text="secret")[:-2], end=True
        ).lose()
        done = self._event("done", text="[X]")
        assert it.response.body == self._event("delta", delta="[X]") + done + b"data: {}\n\n" + done[:-2]
        assert it.response.is_ended

    @pytest.mark.parametrize("unread", [b"data: \xff\n\n", b"data: junk\n\n", b'data: {"a":"secret","a":"x"}\n\n'])
    def test_what_cannot_be_read_after_a_rewrite_does_not_leave(self, unread: bytes) -> None:
        for is_lost in (True, False):
            it = self._responses().body(self._event("delta", delta="secret"))
            it.verify("[X]", it.chunks[0]["choices"][0]["index"])
            if is_lost:
                it.lose()
            it.body(unread).body(b"data: more\n\n")
            assert b'"code": "redaction_failed"' in it.response.body
            assert unread not in it.response.body

    def test_rewritten_arguments_that_grow_too_long_never_leave_unchecked(self) -> None:
        it = begun(failure_mode_allow=True, limits={"event_bytes": 10_000_000}).body(call('{"a":"secret'))
        it.verify('{"a":"[X]', it.chunks[1]["choices"][0]["index"]).lose()
        it.body(call("x" * 9_000_000))
        assert error_code(it.response.body) == "redaction_failed"


class TestStrangeWords:
    def test_an_empty_chunk_is_a_violation(self) -> None:
        assert begun().body(chat_event("a")).verify_chunk({"choices": []}).code == "guardrail_unavailable"

    def test_choice_that_was_never_submitted_is_a_violation(self) -> None:
        assert begun().body(chat_event("a")).verify("", 77).code == "guardrail_unavailable"

    @pytest.mark.parametrize("index", [-1, "0", 10**9])
    def test_invalid_choice_index_is_a_violation(self, index: Any) -> None:
        event = json.dumps({"choices": [{"index": index, "delta": {}}]}).encode()
        it = begun().body(b"data: " + event + b"\n\n" + chat_event("a"))
        it.verify_chunk({"choices": [{"index": index, "delta": {"content": ""}, "more": 1}]})
        assert it.code == "guardrail_unavailable"

    @pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63) - 1, 10**30, 10**400])
    def test_echo_with_large_numbers_is_recognised(self, number: int) -> None:
        """Aim's frames and the model's events have different parsers: one rounds numbers of more than 64 bits."""
        event = b'{"choices":[{"index":0,"delta":{"content":""},"seed":%d}]}' % number
        it = begun().body(b"data: " + event + b"\n\n" + chat_event("hello"))
        echo = frame(b'{"verified_chunk":' + event + b"}")
        assert isinstance(echo, Verified)
        it.send(ChunkVerified(it.opened[-1], echo.texts, echo.chunk))
        it.verify("hello")
        assert it.response.body.endswith(chat_event("hello"))

    def test_deeply_nested_chunk_is_a_violation(self) -> None:
        deep: Any = []
        for _ in range(900):
            deep = [deep]
        chunk = {"choices": [{"index": 0, "delta": {}, "x": deep}]}
        assert begun().body(chat_event("a")).verify_chunk(chunk).code == "guardrail_unavailable"

    def test_a_failure_in_a_stream_is_counted(self) -> None:
        it = begun().body(chat_event("a")).wait(VERDICT_TIMEOUT)
        assert ReportVerdict(Leg.RESPONSE, Hook.OUTPUT, (Failed(Reason.TIMEOUT),)) in it.reports
        assert it.record.legs["response"].action == "error"


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/v1/chat/completions", {"choices": [None]}),
        ("/v1/chat/completions", {"choices": ["x", {"index": 0, "delta": {"content": "y"}}]}),
        ("/v1/responses", {"type": {}}),
        ("/v1/responses", {"type": []}),
    ],
)
def test_event_of_another_shape_is_released_unchanged(path: str, event: Any) -> None:
    request = json.dumps({"stream": True}).encode()
    body = f"data: {json.dumps(event)}\n\n".encode()
    it = World(policy(hooks={Hook.OUTPUT})).request(request, path=path).head().body(body, end=True).verify_all()
    if it.is_submitted_done:
        it.done()
    assert (it.response.body, it.response.is_ended) == (body, True)


class TestMemory:
    """What an upstream sends either counts as held or is not kept."""

    def test_event_counts_more_than_its_bytes(self) -> None:
        it = begun().body(chat_event(role="assistant") * 10)
        assert it.held > 10 * (len(chat_event(role="assistant")) + 200)

    def test_running_text_that_is_kept_counts_until_the_stream_ends(self) -> None:
        it = begun().body(call('{"a": ') + call("1}"))
        held = it.held
        it.verify_all()
        assert 0 < it.held < held
        assert it.exchange.held_bodies == 0
        it.body(DONE).done()
        it.body(b"", end=True)
        assert it.held == 0

    def test_running_text_that_is_too_long_to_be_kept_is_freed(self) -> None:
        piece = "x" * 3_000_000
        it = begun(limits={"event_bytes": 10_000_000, "held_bytes": 100_000_000}).body(call(piece)).verify_all()
        assert it.held > 2 * len(piece)  # as the model said it, and as the client gets it
        it.body(call(piece)).verify_all()
        assert it.held < 10_000

    def test_blank_lines_join_the_entry_before_them(self) -> None:
        it = begun().body(b"\n" * 10_000 + chat_event("a"))
        assert it.held < 15_000
        it.verify("a")
        assert it.response.body == b"\n" * 10_000 + chat_event("a")

    def test_a_long_id_is_not_repeated(self) -> None:
        event = json.dumps({"id": "x" * 1000, "choices": [{"index": 0, "delta": {"refusal": "a"}}]})
        it = begun().body(f"data: {event}\n\n".encode())
        assert it.chunks[1]["id"] == "chatcmpl-call-1"

    def test_long_keys_are_not_kept(self) -> None:
        event = {"type": "x", "k" * 1000: {"text": "a"}}
        it = begun().body(f"data: {json.dumps(event)}\n\n".encode() * 2)
        # A key of such a length is a text, too.
        key, first, again, second = (chunk["choices"][0]["index"] for chunk in it.chunks)
        assert (key, first) == (again, second)
        assert short_place(("a", 1)) == ("a", 1)
        assert len(str(short_place(("k" * 1000, 1)))) < 256


def test_repeat_that_differs_is_a_separate_text() -> None:
    request = json.dumps({"stream": True, "input": "Hello"}).encode()
    it = World().request(request, path="/v1/responses").judge().head()
    where = {"output_index": 0, "content_index": 0}
    events = [
        {"type": "response.output_text.delta", **where, "delta": "a"},
        {"type": "response.output_text.done", **where, "text": "b"},
        {"type": "response.content_part.done", **where, "part": {"type": "output_text", "text": "b"}},
    ]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    it.body(body, end=True)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["a", "b"]
    first, second = (chunk["choices"][0]["index"] for chunk in it.chunks)
    it.verify("a", first).verify("[B]", second).done()
    assert it.response.body == body.replace(b'"b"', b'"[B]"')
