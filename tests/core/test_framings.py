"""Streamed answers in the framings beside event streams and JSON lines: AWS event streams and growing arrays."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from extproc.core.chunk import MARK
from extproc.core.content.aws_event_stream import Frame, FrameDecoder
from extproc.core.events import BodyReceived
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Block
from extproc.core.vocabulary import Leg
from tests.fakes.aws import event, frame, string, wrapped
from tests.fakes.cuts import bytewise
from tests.fakes.recorded import FOLDERS, Recorded, recorded
from tests.fakes.world import World, policy

# -- AWS event streams -------------------------------------------------------------------------------------------------

AWS = "application/vnd.amazon.eventstream"
RECORDED = [one for one in recorded(*FOLDERS) if one.content_type == AWS]
CONVERSE = b'{"messages":[{"role":"user","content":[{"text":"Hello"}]}]}'
START = event("messageStart", {"role": "assistant"})
STOP = event("messageStop", {"stopReason": "end_turn"})


def delta(text: str) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})


def converse(path: str = "/other", **profile: Any) -> World:
    it = World(policy(**profile))
    return it.request(CONVERSE, ("content-type", "application/json"), path=path).judge().head(AWS)


def frames(body: bytes) -> list[Frame]:
    decoder = FrameDecoder(1 << 20)
    return [*decoder.feed(body), *decoder.finish()]


def said(it: World) -> list[str]:
    return [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks]


STREAM = START + delta("Hi Tom,") + wrapped('{"completion": " how are"}', p="abc") + delta(" you?") + STOP


def test_frames_are_verified_one_by_one() -> None:
    it = converse()
    it.body(START + delta("Hi Tom"))
    assert said(it) == ["Hi Tom"]
    assert it.response.body == b""
    it.verify_all()
    assert it.response.body == START + delta("Hi Tom")
    it.body(wrapped('{"completion": "Bye"}'))
    assert said(it) == ["Bye"]
    assert it.response.body == START + delta("Hi Tom")


AGENT = "/agents/A/agentAliases/B/sessions/S/text"


def test_white_space_alone_is_a_piece_of_an_agents_text() -> None:
    it = World().request(b'{"inputText": "Hello"}', path=AGENT).judge().head(AWS)
    stream = b"".join(map(wrapped, ("the", " ", "code is 7", "\n", "1")))
    it.body(stream, end=True)
    assert said(it) == ["the", " ", "code is 7", "\n", "1"]
    it.verify_all().done()
    assert it.response.body == stream
    assert it.response.is_ended


@pytest.mark.parametrize("pieces", [[STREAM], bytewise(STREAM)])
def test_verified_frames_leave_as_they_came(pieces: list[bytes]) -> None:
    it = converse()
    for piece in pieces:
        it.body(piece)
    it.body(b"", end=True)
    assert said(it) == ["Hi Tom,", " how are", " you?"]
    it.verify_all().done()
    assert it.response.body == STREAM
    assert it.response.is_ended


@pytest.mark.corpus
@pytest.mark.parametrize("recording", RECORDED, ids=lambda one: one.name)
@pytest.mark.parametrize("is_cut", [False, True])
def test_recorded_frames_leave_as_they_came(recording: Recorded, is_cut: bool) -> None:
    body = recording.response or b""
    it = converse(recording.path)
    for piece in bytewise(body) if is_cut else [body]:
        it.body(piece)
    it.body(b"", end=True).verify_all().done()
    assert it.response.body == body
    assert it.response.is_ended
    words = "".join(each.data or "" for each in frames(body))
    assert all(json.dumps(text)[1:-1] in words for text in said(it))


VALUE = "ЖЩЮЯБД"


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("split", range(len(VALUE) + 1))
@pytest.mark.parametrize(("before", "after"), [("", " b"), ("a ", " b"), ("a ", "")])
def test_no_letter_of_a_value_leaves(wrap: bool, split: int, before: str, after: str) -> None:
    """The value is at the start, in the middle or at the end of the text, and split over two frames at any place."""
    texts = [text for text in (before + VALUE[:split], VALUE[split:] + after) if text]
    spelt = [wrapped(json.dumps({"completion": text}), p="ab") if wrap else delta(text) for text in texts]
    it = converse().body(START + b"".join(spelt) + STOP, end=True)
    assert said(it) == texts
    numbers = [chunk["choices"][0]["index"] for chunk in it.chunks]
    redacted = [before + "[X]", after] if len(texts) == 2 else [before + "[X]" + after]
    for text, number, chunk in zip(redacted, numbers, it.chunks, strict=True):
        it.verify(text, number, chunk[MARK])
    it.done()
    found = [json.loads(each.data or "") for each in frames(it.response.body)]
    heard = [
        each["completion"] if wrap else each["delta"]["text"] for each in found if {"completion", "delta"} & {*each}
    ]
    assert heard == redacted
    assert it.response.is_ended


def test_rewritten_frames_have_new_checksums() -> None:
    it = converse().body(STREAM, end=True)
    first, second, _ = it.chunks
    it.verify("Hi [N],", first["choices"][0]["index"])
    it.verify(" who are", second["choices"][0]["index"])
    it.chunks = it.chunks[2:]
    it.verify_all().done()
    expected = STREAM.replace(delta("Hi Tom,"), delta("Hi [N],"))
    expected = expected.replace(
        wrapped('{"completion": " how are"}', p="abc"), wrapped('{"completion": " who are"}', p="abc")
    )
    assert it.response.body == expected


def test_block_before_the_first_frame_is_a_status() -> None:
    it = converse().body(START + delta("Hi")).block("No.")
    assert (it.status, it.code) == (400, "content_policy_violation")


def test_block_in_a_running_stream_is_an_exception() -> None:
    it = converse().body(START + delta("Hi")).verify_all().body(delta("bad")).block("No.")
    assert it.response.body.startswith(START + delta("Hi"))
    last = frames(it.response.body)[-1]
    assert (last.message_type, last.headers.get(":exception-type")) == ("exception", "validationException")
    assert json.loads(last.payload) == {"message": "No."}
    assert it.response.is_ended


@pytest.mark.parametrize("broken", [delta("bad")[:-1] + b"?", event("x", b"\xff\xfe"), b"data: {}\n\ndata: {}\n\n"])
def test_broken_frame_ends_the_stream(broken: bytes) -> None:
    assert converse().body(START + broken).code == "guardrail_unreadable_response"
    it = converse().body(delta("Hi")).verify_all().body(broken)
    assert it.response.body.startswith(delta("Hi"))
    assert frames(it.response.body)[-1].headers.get(":exception-type") == "internalServerException"
    it = converse(failure_mode_allow=True).body(START + broken).body(STOP, end=True)
    assert it.response.body == START + broken + STOP


def test_stream_that_ends_within_a_frame_is_not_presented_as_complete() -> None:
    it = converse().body(delta("Hi")).verify_all().body(delta("you")[:-1], end=True)
    assert frames(it.response.body)[-1].headers.get(":exception-type") == "internalServerException"


def test_silent_aim_ends_the_stream_with_an_exception() -> None:
    it = converse().body(delta("Hi")).verify_all().body(delta("you")).wait(20)
    assert frames(it.response.body)[-1].headers.get(":exception-type") == "serviceUnavailableException"


def test_frame_over_the_limit_is_refused_before_it_is_whole() -> None:
    it = World(policy(), Limits(event_bytes=100))
    it.request(CONVERSE, ("content-type", "application/json"), path="/model/m/x").judge().head(AWS)
    it.body(delta("x" * 200)[:12])
    assert it.code == "guardrail_unreadable_response"


def test_frames_on_the_path_of_an_api_are_read_by_its_dialect() -> None:
    it = World(policy()).request(b'{"messages":[{"role":"user","content":"Hello"}]}', path="/v1/messages").judge()
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
    it.head(AWS).body(wrapped(json.dumps(piece)))
    assert said(it) == ["Hi"]


def test_message_of_an_error_is_verified() -> None:
    failed = frame(b"", string(":message-type", "error"), string(":error-message", "Ask Tom"))
    it = converse().body(delta("Hi")).verify_all().body(failed)
    assert said(it) == ["Ask Tom"]
    it.verify("Ask [N]", it.chunks[0]["choices"][0]["index"])
    assert frames(it.response.body)[-1].headers[":error-message"] == "Ask [N]"


def test_error_answer_in_frames_is_replaced() -> None:
    it = World(policy()).request(CONVERSE, ("content-type", "application/json"), path="/model/m/x").judge()
    it.head(AWS, "400", ("content-length", str(len(STREAM)))).body(STREAM, end=True)
    (only,) = frames(it.response.body)
    assert only.message_type == "exception"


def test_no_comment_is_put_into_frames() -> None:
    it = converse(stream_ping_seconds=1).body(START + delta("Hi")).wait(10)
    assert it.response.body == START


def test_value_in_base64_does_not_leave_before_it_is_verified() -> None:
    it = converse().body(wrapped('{"completion": "secret"}'))
    assert it.response.headers is None or b64encode(b"secret")[:-2] not in it.response.body
    it.block("No.")
    assert it.response.body == b""


# -- growing arrays ----------------------------------------------------------------------------------------------------

GEMINI = "/v1beta/models/m:streamGenerateContent"
PROMPT = b'{"contents":[{"parts":[{"text":"Hello"}]}]}'


def element(text: str) -> bytes:
    part = {"parts": [{"text": text}], "role": "model"}
    return json.dumps({"candidates": [{"content": part, "index": 0}]}).encode()


def gemini(path: str = GEMINI, limits: Limits | None = None, kind: str = "application/json", **profile: Any) -> World:
    return World(policy(**profile), limits or Limits()).request(PROMPT, path=path).judge().head(kind)


ARRAY = b"[" + element("Hi Tom,") + b"\n,\r\n" + element(" how are") + b"\n,\r\n" + element(" you?") + b"\n]\n"


def test_elements_are_verified_one_by_one() -> None:
    it = gemini().body(b"[" + element("Hi"))
    assert said(it) == ["Hi"]
    assert it.response.headers is None
    it.verify_all().body(b"\n,\r\n" + element(" Tom"))
    assert it.response.body == b"[" + element("Hi")
    assert len(it.opened) == 1


@pytest.mark.parametrize("pieces", [[ARRAY], bytewise(ARRAY), [ARRAY[:100], ARRAY[100:]]])
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8", "", "text/plain"])
def test_verified_array_leaves_as_it_came(pieces: list[bytes], kind: str) -> None:
    it = gemini(kind=kind)
    for piece in pieces:
        it.body(piece)
    it.body(b"", end=True)
    assert said(it) == ["Hi Tom,", " how are", " you?"]
    it.verify_all().done()
    assert it.response.body == ARRAY
    assert it.response.is_ended
    assert it.record.outcome == "allowed"


def test_session_is_opened_with_the_request() -> None:
    it = World(policy()).request(PROMPT, path=GEMINI).judge()
    assert len(it.opened) == 1
    it.head("application/json").body(b"[" + element("Hi")).verify_all()
    assert len(it.opened) == 1


def test_rewritten_element_stays_in_its_place() -> None:
    it = gemini().body(ARRAY, end=True)
    it.verify("Hi [N],", it.chunks[0]["choices"][0]["index"])
    it.chunks = it.chunks[1:]
    it.verify_all().done()
    assert it.response.body == ARRAY.replace(b"Tom", b"[N]")
    assert json.loads(it.response.body)


def test_block_before_the_first_element_is_a_status() -> None:
    it = gemini().body(ARRAY).block("No.")
    assert it.status == 400
    assert it.reply is not None
    assert json.loads(it.reply.body)["error"]["message"] == "No."


@pytest.mark.parametrize("released", [1, 2])
def test_block_within_an_array_ends_it(released: int) -> None:
    it = gemini()
    for number, text in enumerate(["Hi", " Tom"][:released]):
        it.body((b"\n,\r\n" if number else b"[") + element(text)).verify_all()
    it.body(b"\n,\r\n" + element("bad")).block("No.")
    found = json.loads(it.response.body)
    assert len(found) == released + 1
    assert found[-1]["error"] == {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}
    assert it.response.is_ended


def test_closing_bracket_waits_for_aim() -> None:
    it = gemini().body(ARRAY).verify_all()
    assert it.is_submitted_done
    assert it.response.body == ARRAY[: ARRAY.rindex(b"\n]")]
    it.block("No.")
    assert json.loads(it.response.body)[-1]["error"]["message"] == "No."


def test_empty_array_asks_nothing() -> None:
    it = gemini().body(b"[]", end=True)
    assert it.response.body == b"[]"
    assert it.response.is_ended


@pytest.mark.parametrize("end", [b"]", b"", b"\n,", b"\n,\r\n{", b"}", b"\n,\r\n" + element("x") + b"]]"])
def test_broken_array_ends_with_an_error(end: bytes) -> None:
    it = gemini().body(b"[" + element("Hi")).verify_all()
    it.body(end, end=True)
    if end == b"]":
        it.done()
        assert json.loads(it.response.body) == [json.loads(element("Hi"))]
        return
    assert json.loads(it.response.body)[-1]["error"]["code"] == 502


def test_nothing_follows_an_array_that_has_ended() -> None:
    it = gemini().body(ARRAY).verify_all().done()
    assert it.response.body == ARRAY
    it.body(b"[", end=True)
    assert it.response.body == ARRAY
    assert it.response.is_ended


def test_array_that_fails_open_is_complete() -> None:
    it = gemini(failure_mode_allow=True).body(ARRAY[:100]).lose()
    it.body(ARRAY[100:], end=True)
    assert it.response.body == ARRAY


def test_array_may_be_larger_than_a_whole_answer() -> None:
    it = gemini(limits=Limits(response_bytes=1000, event_bytes=500))
    for number in range(30):
        it.body((b"," if number else b"[") + element("x" * 50)).verify_all()
    it.body(b"]", end=True).done()
    assert len(json.loads(it.response.body)) == 30
    it = gemini(limits=Limits(event_bytes=500)).body(b"[" + element("x" * 500))
    assert it.status == 502


@pytest.mark.parametrize("lead", [b"", b" \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf "])
@pytest.mark.parametrize("is_split", [False, True])
def test_one_object_is_held_whole(lead: bytes, is_split: bool) -> None:
    body = lead + element("Hi")
    it = gemini()
    for piece in bytewise(body) if is_split else [body]:
        it.body(piece)
    it.body(b"", end=True)
    assert it.asked[1].inputs[0].output == "Hi"
    it.judge()
    assert it.response.body == body


@pytest.mark.parametrize("lead", [b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf "])
def test_array_behind_a_mark_or_space_is_a_stream(lead: bytes) -> None:
    it = gemini()
    for piece in bytewise(lead + ARRAY):
        it.body(piece)
    it.verify_all().body(b"", end=True).done()
    assert it.response.body == lead + ARRAY


def test_array_of_an_error_is_held_whole() -> None:
    body = b'[{"error": {"code": 400, "message": "Ask Tom"}}]'
    it = World(policy()).request(PROMPT, path=GEMINI).judge()
    it.head("application/json", "400", ("content-length", str(len(body)))).body(body, end=True)
    assert it.asked[1].inputs[0].output == "Ask Tom"
    it.judge(Block("No."))
    assert json.loads(it.response.body)["error"]["code"] == 400
    assert it.record.outcome == "blocked"


def test_array_of_another_api_is_held_whole() -> None:
    it = World(policy()).request(b'{"inputs":"Hello"}', ("content-type", "application/json"), path="/x").judge()
    it.head("application/json").body(b'[{"generated_text": "Hi"}]', end=True)
    assert it.asked[1].inputs[0].output == "Hi"
    it.judge(Allow())
    assert it.response.body == b'[{"generated_text": "Hi"}]'


def test_undecided_array_ends_with_its_body() -> None:
    it = gemini()
    it.send(BodyReceived(Leg.RESPONSE, b" ", end_of_stream=False))
    it.body(b"", end=True)
    assert it.response.body == b" "


def test_digits_of_a_text_are_no_number() -> None:
    pieces = [frame(digits, string(":event-type", "piece")) for digits in (b"4111", b"1111")]
    it = converse().body(b"".join(pieces), end=True)
    assert said(it) == ["4111", "1111"]


# -- payload parts of SageMaker ----------------------------------------------------------------------------------------

SAGEMAKER = "/endpoints/e/invocations-response-stream"
CHAT = b'{"messages":[{"role":"user","content":"Hello"}],"stream":true}'


def part(payload: bytes) -> bytes:
    return frame(payload, string(":event-type", "PayloadPart"), string(":message-type", "event"))


def chunk(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


def sagemaker() -> World:
    it = World(policy()).request(CHAT, ("content-type", "application/json"), path=SAGEMAKER)
    return it.judge().head(AWS)


def joined(body: bytes) -> bytes:
    return b"".join(each.payload for each in FrameDecoder(1 << 20).feed(body))


@pytest.mark.parametrize("is_cut", [False, True])
def test_payload_parts_leave_as_they_came(is_cut: bool) -> None:
    body = b"".join(map(part, (chunk("Hi"), chunk(" Tom"), b"data: [DONE]\n\n")))
    it = sagemaker()
    for piece in bytewise(body) if is_cut else [body]:
        it.body(piece)
    it.body(b"", end=True).verify_all().done()
    assert it.response.body == body
    assert it.record.dialect == "openai-chat"


@pytest.mark.parametrize("at", range(1, len(chunk(VALUE) * 2)))
def test_no_letter_of_a_value_leaves_in_parts_that_are_cut_anywhere(at: int) -> None:
    inside = chunk(VALUE) + chunk(" b")
    it = sagemaker().body(part(inside[:at]) + part(inside[at:]), end=True)
    assert said(it) == [VALUE, " b"]
    it.verify("[X]", 0, it.chunks[0][MARK]).verify(" b", 0, it.chunks[1][MARK]).done()
    assert joined(it.response.body) == chunk("[X]") + chunk(" b")
    assert it.response.is_ended


def test_blocked_payload_parts_end_with_an_exception() -> None:
    it = sagemaker().body(part(chunk("Hi"))).verify_all().body(part(chunk("bad"))).block("No.")
    last = frames(it.response.body)[-1]
    assert joined(it.response.body).startswith(chunk("Hi"))
    assert b"bad" not in it.response.body
    assert (last.message_type, last.headers.get(":exception-type")) == ("exception", "ModelStreamError")
    assert json.loads(last.payload) == {"ErrorCode": "content_policy_violation", "Message": "No."}


def test_payload_parts_that_fail_open_are_whole() -> None:
    it = World(policy(failure_mode_allow=True)).request(CHAT, ("content-type", "application/json"), path=SAGEMAKER)
    whole = chunk("Hi") + chunk(" there")
    it.judge().head(AWS).body(part(whole[:70])).lose().body(part(whole[70:]), end=True)
    assert joined(it.response.body) == whole
