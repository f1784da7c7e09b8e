"""Chat exchanges through a real Envoy: what client, upstream and Aim get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.envoy.case import shared
from tests.fakes.aim import AimSession, anonymize, block, chunk_of, text_of
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import CHAT, DONE, Rig, Rigs, chat_answer, chat_event, chat_request, chat_stream
from tests.fakes.upstream import Received, pieces, whole

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]


@pytest_asyncio.fixture(loop_scope="package")
async def chain(rigs: Rigs) -> Rig:
    return await shared(rigs, "default")


async def test_allowed_answer_is_byte_identical(chain: Rig) -> None:
    body = b'{ "choices":[{"message":{"content":"Hi"}}], "n": 1.50 }\n'
    chain.upstream.answer = whole(body)
    answer = await chain.chat("Hello")
    assert (answer.status_code, answer.content) == (200, body)
    assert [question.texts for question in chain.aim.asked("pre_call")] == [["Hello"]]
    (output,) = chain.aim.asked("output")
    assert output.body["output"] == "Hi"
    assert output.texts == ["Hello"]
    call_ids = {question.headers["x-aim-call-id"] for question in chain.aim.questions}
    assert call_ids == {answer.headers["x-aim-call-id"]}


async def test_blocked_request_never_reaches_the_upstream(chain: Rig) -> None:
    async def judge(_: object) -> object:
        return block("No secrets, please.", PII={})

    chain.aim.judge = judge
    answer = await chain.chat("my secret")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "message": "No secrets, please.",
            "type": "invalid_request_error",
            "param": None,
            "code": "content_policy_violation",
        }
    }
    assert answer.headers["x-aim-call-id"]
    assert chain.upstream.requests == []


async def test_allowed_stream_is_byte_identical(chain: Rig) -> None:
    events = chat_stream("Hel", "lo", " world")
    chain.upstream.answer = pieces(events)
    answer = await chain.chat("Hello", stream=True)
    assert (answer.status_code, answer.content) == (200, b"".join(events))
    (session,) = chain.aim.sessions
    assert [text_of(chunk) for chunk in session.chunks] == ["", "Hel", "lo", " world", ""]
    assert session.is_done
    assert session.headers["x-aim-call-id"] == answer.headers["x-aim-call-id"]


async def test_block_before_the_first_release_is_a_400(chain: Rig) -> None:
    async def script(session: AimSession) -> None:
        while text_of(await session.receive() or chunk_of("x")) == "":
            pass
        await session.block("Not that.")

    chain.aim.script = script
    chain.upstream.answer = pieces(chat_stream("secret", " text"))
    answer = await chain.chat("Hello", stream=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Not that."


async def test_block_in_a_running_stream_ends_stream_and_model(chain: Rig) -> None:
    more = asyncio.Event()

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if text_of(chunk) == "secret":
                await session.block("Not that.")
                return
            await session.verify(chunk)

    async def answer(request: Received) -> None:
        await request.head(headers=[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        for text in ("One", " two", "secret"):
            await request.chunk(chat_event(text))
        await request.gone.wait()
        more.set()

    chain.aim.script = script
    chain.upstream.answer = answer
    response = await chain.chat("Hello", stream=True)
    assert response.status_code == 200
    refusal = {
        "error": {
            "message": "Not that.",
            "type": "invalid_request_error",
            "param": None,
            "code": "content_policy_violation",
        }
    }
    expected = chat_event("One") + chat_event(" two") + b"data: " + json.dumps(refusal).encode() + b"\n\n" + DONE
    assert response.content == expected
    await asyncio.wait_for(more.wait(), 5)


async def test_moderation_runs_in_parallel_with_the_model(rigs: Rigs) -> None:
    chain = await shared(rigs, "moderation")
    arrived = asyncio.Event()

    async def judge(_: object) -> object:
        await arrived.wait()  # Aim answers only after the model has the request: sequential calls would hang
        return {"detected": False}

    async def answer(request: Received) -> None:
        arrived.set()
        await whole(chat_answer("Hi"))(request)

    chain.aim.judge = judge
    chain.upstream.answer = answer
    response = await chain.chat("Hello")
    assert response.status_code == 200
    assert len(chain.aim.asked("moderation")) == 1


async def test_request_is_redacted_and_its_answer_judged_with_the_redacted_text(rigs: Rigs) -> None:
    chain = await shared(rigs, "firewall")

    async def judge(question: object) -> object:
        return anonymize(question, lambda text: text.replace("Jane", "[NAME_1]"))  # type: ignore[arg-type]

    chain.aim.judge = judge
    chain.upstream.answer = whole(chat_answer("Hello Jane"))
    request = chat_request("I am Jane") | {"temperature": 0.10}
    response = await chain.client.post(CHAT, json=request)
    assert response.status_code == 200
    assert json.loads(chain.upstream.requests[0].body) == {
        **request,
        "messages": [{"role": "user", "content": "I am [NAME_1]"}],
    }
    assert response.json()["choices"][0]["message"]["content"] == "Hello [NAME_1]"
    (output,) = chain.aim.asked("output")
    assert output.texts == ["I am [NAME_1]", "Hello Jane"]


async def test_large_upload_that_no_dialect_knows_passes(chain: Rig) -> None:
    piece = bytes(1_000_000)

    async def upload() -> AsyncIterator[bytes]:
        yield piece
        # Over the loopback an upload could fill Envoy's buffer before the sidecar's first reply. No real network does.
        await asyncio.wait_for(chain.upstream.begun.wait(), 10)
        for _ in range(29):
            yield piece

    answer = await chain.client.post("/v1/files", content=upload())
    assert answer.status_code == 200
    assert chain.upstream.requests[0].body == piece * 30
    assert chain.aim.questions == []
