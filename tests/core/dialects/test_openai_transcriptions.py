"""Transcriptions: forms with audio; answers in JSON, plain text and subtitles; the event stream of a transcript."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.openai_transcriptions import OpenAITranscriptions
from extproc.core.verdict import Allow, Anonymize, Block
from extproc.core.vocabulary import BodyMode
from tests.fakes.forms import form, part
from tests.fakes.reading import asked, heard, masked, places, redacted_answer, said
from tests.fakes.world import World, policy

API = OpenAITranscriptions()
PATH = "/v1/audio/transcriptions"
WAV = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00--xYz\r\n\xff"
FORM = ("content-type", "multipart/form-data; boundary=xYz-1")
AUDIO = part("file", WAV, "Content-Type: audio/wav", more='; filename="a.wav"')


def sent(*parts: bytes, mode: BodyMode = BodyMode.BUFFERED, path: str = PATH, **profile: Any) -> World:
    return World(policy(**profile), mode=mode).request(form(AUDIO, *parts), FORM, path=path)


def answered(body: str, kind: str = "text/plain; charset=utf-8") -> World:
    return sent().head(kind).body(body.encode(), end=True)


def texts(it: World) -> list[list[str]]:
    """Return the texts of the last detection: those of its messages, or that of the answer."""
    return [
        [each.output] if each.output is not None else [message["content"] for message in each.messages]
        for each in it.asked[-1].inputs
    ]


# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [PATH, "/v1/audio/translations", "/openai/deployments/w/audio/transcriptions"])
@pytest.mark.parametrize("mode", list(BodyMode))
def test_prompt_is_judged_and_redacted_beside_the_audio(path: str, mode: BodyMode) -> None:
    fields = (
        part("model", b"whisper-1"),
        part("prompt", b"Ask Tom"),
        part("temperature", b"0"),
        part("timestamp_granularities[]", b"word"),
        part("include[]", b"logprobs"),
        part("stream", b"true"),
        part("chunking_strategy[type]", b"server_vad"),
    )
    it = sent(*fields, path=path, mode=mode)
    assert texts(it) == [["Ask Tom"]]
    assert it.record.dialect == "openai-transcriptions"
    it.judge(Anonymize(("Ask [N]",)))
    released = it.upstream.buffered.body if it.upstream.buffered is not None else it.upstream.body
    assert released == form(AUDIO, *fields).replace(b"Tom", b"[N]")


def test_request_without_a_prompt_asks_nothing() -> None:
    it = sent(part("model", b"whisper-1"))
    assert not it.asked
    assert it.record.outcome == "allowed"


def test_blocked_prompt_is_refused() -> None:
    assert sent(part("prompt", b"No")).judge(Block("No.")).code == "content_policy_violation"


def test_request_that_is_no_form_is_read_as_json() -> None:
    assert asked(API, {"file": "data:audio/wav;base64,AAAAAAAAAAAA", "prompt": "hi", "model": "m"}) == [("user", "hi")]
    it = World(policy()).request(b"hello", ("content-type", "text/plain"), path=PATH)
    assert it.code == "invalid_body"


@pytest.mark.parametrize(
    ("value", "opens"), [(b"true", True), (b"True", True), (b"1", True), (b"false", False), (b"", False)]
)
def test_session_is_opened_early_if_the_form_asks_for_a_stream(value: bytes, opens: bool) -> None:
    assert bool(sent(part("stream", value)).opened) is opens


# -- whole answers -------------------------------------------------------------------------------------------------


def test_texts_of_json() -> None:
    body = {"text": "hi a", "usage": {"type": "tokens", "input_token_details": {"audio_tokens": 3}}}
    assert said(API, body | {"logprobs": [{"token": " hi", "logprob": -0.1, "bytes": [32]}]}) == ["hi a"]
    assert redacted_answer(API, body) == masked(body)


def test_texts_of_verbose_json_and_its_words() -> None:
    body = {
        "task": "transcribe",
        "language": "english",
        "duration": 2.5,
        "text": "hi Tom hi",
        "words": [{"word": "hi", "start": 0.0, "end": 0.5}, {"word": "Tom,", "start": 0.5, "end": 1.0}],
        "segments": [
            {"id": 0, "seek": 0, "text": " hi Tom", "tokens": [50364, 7], "temperature": 0.0},
            {"id": "seg_1", "type": "transcript.text.segment", "text": " hi", "speaker": "A"},
        ],
        "note": "hi",
    }
    assert said(API, body) == ["hi Tom hi", " hi Tom\n hi\nhi"]
    redacted = redacted_answer(API, body)
    assert redacted.pop("words") is None
    assert redacted["segments"][0].pop("tokens") is None
    assert redacted["segments"][0]["text"] == " [X] Tom"
    assert redacted["segments"][1]["text"] == " [X]"
    assert said(API, {"text": "a", "words": [{"word": "hi there"}]}) == ["a", "hi there"]


@pytest.mark.parametrize(
    "text", ["It rains.", "{laughs} It rains.", '"Quoted."', "[Music]\nIt rains.", "123\n4", "1", "12 {", "a\\nb"]
)
def test_plain_text_is_one_text(text: str) -> None:
    it = answered(text)
    assert [each.output for each in it.asked[-1].inputs] == [text.replace("\\n", "\n")]
    it.judge()
    assert it.response.body == text.encode()


def test_plain_text_is_redacted() -> None:
    it = answered("Tom\nis here").judge(Anonymize(("[N] is here",)))
    assert it.response.body == b"[N] is here"


@pytest.mark.parametrize("text", ["\x00I", "I\x00t\x00"])
def test_text_with_nul_is_unreadable(text: str) -> None:
    assert answered(text).code == "guardrail_unreadable_response"


def test_text_that_is_not_utf8_is_unreadable() -> None:
    assert sent().head("text/plain").body(b"\xe9t\xe9 it rains", end=True).code == "guardrail_unreadable_response"


SRT = "1\n00:00:00,000 --> 00:00:01,000\nTom\nis here\n\n2\n00:00:01,000 --> 00:00:02,000\n2\n\n"
VTT = (
    "WEBVTT - Tom's\r\n\r\nintro\r\n00:00.000 --> 00:01.000 align:start\r\nTom\r\n\r\n"
    "00:01.000 --> 00:02.000\r\nEnd\r\n"
)


@pytest.mark.parametrize("subtitles", [SRT, VTT], ids=["srt", "vtt"])
@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "text/vtt", "application/x-subrip"])
def test_subtitles_are_one_text_whose_lines_are_redacted(subtitles: str, kind: str) -> None:
    it = answered(subtitles, kind)
    assert [each.output for each in it.asked[-1].inputs] == [subtitles]
    it.judge(Anonymize((subtitles.replace("\nTom", "\n[N]"),)))
    assert it.response.body.decode() == subtitles.replace("\nTom", "\n[N]")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Tom\nis here", "[N] is here"),
        ("Tom", "[N]\nagain"),
        ("00:00:01,000 -", "00:00:09,000 -"),
        ("1\n00:00:00", "7\n00:00:00"),
        ("2\n\n", "2\n"),
        (SRT, ""),
        (SRT, "[REDACTED]"),
    ],
)
def test_redaction_that_moves_or_changes_cues_fails(old: str, new: str) -> None:
    assert answered(SRT).judge(Anonymize((SRT.replace(old, new),))).code == "redaction_failed"
    changed = VTT.replace("WEBVTT - Tom", "WEBVTT - [N]")
    assert answered(VTT).judge(Anonymize((changed,))).code == "redaction_failed"


def test_blocked_transcript_is_refused() -> None:
    assert answered("It rains.").judge(Block("No.")).status == 400


# -- the event stream ----------------------------------------------------------------------------------------------


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": text, **more}


def done(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.done", "text": text, "usage": {"type": "tokens"}}


def segment(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.segment", "id": "seg_1", "start": 0.0, "text": text, "speaker": "A"}


def test_texts_of_events() -> None:
    tokens = {"logprobs": [{"token": "hi", "logprob": -0.1, "bytes": [1]}]}
    assert heard(API, delta("hi", **tokens)) == ["hi", "#"]
    assert heard(API, done("hi")) == ["=hi"]
    assert heard(API, segment("hi")) == ["hi"]
    assert heard(API, {"object": "transcription.chunk", "choices": [{"delta": {"content": "hi"}}]}) == ["hi"]
    assert places(API, delta("a"), done("a")) == [("transcript",)] * 2
    assert places(API, segment("a"), segment("b")) == [("transcript.text.segment", "text")] * 2


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)


def test_redacted_deltas_do_not_come_back_at_the_end() -> None:
    it = sent(part("stream", b"true")).head().body(stream(delta("I am Tom"), done("I am Tom")) + b"data: [DONE]\n\n")
    it.verify("I am [N]", index=it.chunks[0]["choices"][0]["index"])
    it.done().body(b"", end=True)
    assert it.response.body == stream(delta("I am [N]"), done("I am [N]")) + b"data: [DONE]\n\n"


def test_blocked_stream_ends_with_an_error() -> None:
    it = sent(part("stream", b"true")).head().body(stream(delta("Hello "), delta("Tom")))
    it.verify("Hello ", index=it.chunks[0]["choices"][0]["index"])
    it.block()
    assert it.response.body.startswith(stream(delta("Hello ")) + b'data: {"error": {"message": "Not that."')
    assert it.response.body.endswith(b"\n\ndata: [DONE]\n\n")


def test_answer_in_json_is_read_although_a_stream_was_asked_for() -> None:
    it = sent(part("stream", b"true")).head("application/json").body(b'{"text": "It rains."}', end=True)
    assert [each.output for each in it.asked[-1].inputs] == ["It rains."]
    it.judge(Allow())
    assert it.response.body == b'{"text": "It rains."}'
