"""OpenAI's SDK with audio, images and batches: the same objects as without Envoy, and errors that its users know."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from tests.conformance import files
from tests.conformance.harness import MESSAGE, blocks_answers, blocks_requests, collect, same_with_and_without
from tests.conformance.test_openai_sdk import client as client
from tests.envoy.case import redacts
from tests.fakes.envoy import needs_envoy
from tests.fakes.forms import PNG
from tests.fakes.rig import Rig

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]

WAV = ("a.wav", b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + bytes(range(256)))
PICTURE = ("a.png", PNG)
_COMMON: Any = {"model": "whisper-1", "file": WAV}


async def _transcripts(client: openai.AsyncOpenAI) -> list[Any]:
    create = client.audio.transcriptions.create
    formats: list[Any] = ["json", "text", "srt", "verbose_json"]
    told = [await create(**_COMMON, prompt="Hello", response_format=each) for each in formats]
    translated = await client.audio.translations.create(**_COMMON, prompt="Hello")
    events = [event async for event in await create(**_COMMON, prompt="Hello", stream=True)]
    return [*told, translated, events]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of one of the formats
async def test_transcripts_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = files.transcriptions
    plain, text, subtitles, verbose, translated, events = await same_with_and_without(_transcripts, guarded, direct)
    assert plain.text == verbose.segments[0].text.strip() == translated.text == text.strip() == files.SAID
    assert subtitles == files.SRT
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert len(chain.aim.asked("pre_call")) == 6
    assert len([session for session in chain.aim.sessions if session.is_done]) == 1
    sent, got = chain.upstream.requests[0].body, chain.upstream.requests[6].body
    assert WAV[1] in sent
    assert WAV[1] in got


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_transcripts_are_redacted(redacting: Rig, redacted: openai.AsyncOpenAI) -> None:
    redacting.upstream.answer = files.transcriptions
    redacts("Oslo", "[CITY]")(redacting.aim)
    create = redacted.audio.transcriptions.create
    said = files.SAID.replace("Oslo", "[CITY]")
    assert (await create(**_COMMON, response_format="srt")) == files.SRT.replace("Oslo", "[CITY]")
    verbose = await create(**_COMMON, response_format="verbose_json", prompt="Near Oslo")
    assert (verbose.text, verbose.segments[0].text, verbose.words) == (said, f" {said}", None)
    assert b"Near [CITY]" in redacting.upstream.requests[-1].body
    events = [event async for event in await create(**_COMMON, stream=True)]
    assert events[-1].text == said


async def _images(client: openai.AsyncOpenAI) -> list[Any]:
    one = await client.images.edit(model="m", image=PICTURE, prompt="Hello", n=2)
    two = await client.images.edit(model="m", image=[PICTURE, PICTURE], mask=PICTURE, prompt="Hello")
    return [one, two]


async def test_images_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = files.images
    one, _ = await same_with_and_without(_images, guarded, direct)
    assert one.data[0].b64_json
    assert [question.body["messages"] for question in chain.aim.asked("pre_call")] == [
        [{"role": "user", "content": "Hello"}]
    ] * 2


def _lines(*texts: str) -> bytes:
    urls = {"method": "POST", "url": "/v1/chat/completions"}
    bodies = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in texts]
    return b"".join(
        json.dumps({"custom_id": name, **urls, "body": body}).encode() + b"\n"
        for name, body in zip("abcd", bodies, strict=False)
    )


async def _batch(client: openai.AsyncOpenAI) -> list[Any]:
    file = await client.files.create(file=("in.jsonl", _lines("Hello", "Bye")), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"note": "nightly"}
    )
    content = await client.files.content("file-2")
    return [file, batch, content.text]


async def test_batches_are_the_same(chain: Rig, guarded: openai.AsyncOpenAI, direct: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = files.files
    file, batch, content = await same_with_and_without(_batch, guarded, direct)
    assert (file.purpose, batch.endpoint) == ("batch", "/v1/chat/completions")
    assert content.encode() == files.output(["a", "b"])
    asked = sorted(question.body["messages"][0]["content"] for question in chain.aim.asked("pre_call"))
    assert asked == ["Bye", "Hello", "nightly"]
    assert len([session for session in chain.aim.sessions if session.is_done]) == 1


async def test_batch_is_redacted(redacting: Rig, redacted: openai.AsyncOpenAI) -> None:
    redacting.upstream.answer = files.files
    redacts("Jane", "[NAME]")(redacting.aim)
    await redacted.files.create(file=("in.jsonl", _lines("I am Jane", "Bye")), purpose="batch")
    assert _lines("I am [NAME]", "Bye") in redacting.upstream.requests[-1].body


_CALLS: dict[str, Callable[[openai.AsyncOpenAI], Awaitable[Any]]] = {
    "transcription": lambda client: client.audio.transcriptions.create(**_COMMON, prompt="my secret"),
    "stream": lambda client: client.audio.transcriptions.create(**_COMMON, prompt="my secret", stream=True),
    "image": lambda client: client.images.edit(model="m", image=PICTURE, prompt="my secret"),
    "batch": lambda client: client.files.create(file=("in.jsonl", _lines("Hello", "my secret")), purpose="batch"),
}


@pytest.mark.parametrize("call", list(_CALLS))
async def test_a_blocked_request(chain: Rig, guarded: openai.AsyncOpenAI, call: str) -> None:
    blocks_requests(chain)
    with pytest.raises(openai.BadRequestError) as caught:
        await _CALLS[call](guarded)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"] == (f"{MESSAGE} (custom_id: b)" if call == "batch" else MESSAGE)
    assert caught.value.code == "content_policy_violation"
    assert chain.upstream.requests == []


@pytest.mark.parametrize("kind", ["json", "text", "srt", "verbose_json"])
async def test_a_blocked_transcript(chain: Rig, guarded: openai.AsyncOpenAI, kind: Any) -> None:
    chain.upstream.answer = files.transcriptions
    blocks_answers(chain)
    with pytest.raises(openai.BadRequestError) as caught:
        await guarded.audio.transcriptions.create(**_COMMON, response_format=kind)
    assert MESSAGE in caught.value.message


async def test_a_transcript_that_is_blocked_in_its_midst(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = files.transcriptions
    blocks_answers(chain)
    events: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        await collect(await guarded.audio.transcriptions.create(**_COMMON, stream=True), events)
    assert [event.delta for event in events] == ["It "]
    assert caught.value.message == MESSAGE


async def test_results_that_are_blocked(chain: Rig, guarded: openai.AsyncOpenAI) -> None:
    chain.upstream.answer = files.files
    blocks_answers(chain)
    with pytest.raises(openai.BadRequestError) as caught:
        await guarded.files.content("file-2")
    assert MESSAGE in caught.value.message
