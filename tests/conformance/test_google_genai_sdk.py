"""Google's SDK through Envoy and the sidecar: the same objects as without them, and errors that its users know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conformance import models
from tests.conformance.harness import (
    MESSAGE,
    blocks_answers,
    blocks_at_once,
    blocks_requests,
    collect,
    is_down,
    redacts_the_city,
    same_with_and_without,
    sent,
)
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig

genai = pytest.importorskip("google.genai", reason="no google-genai here")
errors = pytest.importorskip("google.genai.errors")

pytestmark = [
    *needs_envoy,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_TOOL: Any = {
    "function_declarations": [
        {"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
    ]
}
_HELLO: Any = [{"role": "user", "parts": [{"text": "Hello"}]}]
_SCHEMA: Any = {"response_mime_type": "application/json"}


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    options = {"base_url": url, "async_client_args": {"trust_env": False}}
    opened = genai.Client(api_key="k", http_options=options).aio
    yield opened
    await opened.aclose()


def _plain(answer: Any) -> Any:
    return answer.model_dump(exclude={"sdk_http_response"})


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = models.gemini


async def _talk(client: Any) -> list[Any]:
    """Ask, call a tool, tell its result; whole and streamed; then ask for structured output."""
    ask, stream = client.models.generate_content, client.models.generate_content_stream
    asked = await ask(model="gemini-pro", contents=_HELLO, config={"tools": [_TOOL], "system_instruction": "Be kind."})
    result = {"function_response": {"id": "c1", "name": "weather", "response": {"sky": "rain"}}}
    said = [*_HELLO, asked.candidates[0].content, {"role": "user", "parts": [result]}]
    told = await ask(model="gemini-pro", contents=said, config={"tools": [_TOOL]})
    chunks = [chunk async for chunk in await stream(model="gemini-pro", contents=said, config={"tools": [_TOOL]})]
    calls = [chunk async for chunk in await stream(model="gemini-pro", contents=_HELLO, config={"tools": [_TOOL]})]
    structured = await ask(model="gemini-pro", contents=_HELLO, config=_SCHEMA)
    return [_plain(answer) for answer in (asked, told, *chunks, *calls, structured)]


async def test_content_is_the_same(chain: Rig, guarded: Any, direct: Any) -> None:
    answers = await same_with_and_without(_talk, guarded, direct)
    parts = [answer["candidates"][0]["content"]["parts"][0] for answer in answers]
    assert parts[0]["function_call"]["args"] == parts[-2]["function_call"]["args"] == {"city": "Oslo"}
    assert parts[1]["text"] == "".join(part["text"] for part in parts[2:5]) == "It rains in Oslo."
    assert parts[-1]["text"] == '{"city": "Oslo", "degrees": 7}'
    assert len(chain.aim.asked("pre_call")) == 5
    assert len([session for session in chain.aim.sessions if session.is_done]) == 2


async def _drain(client: Any, text: str, *, stream: bool) -> list[str]:
    if not stream:
        return [(await client.models.generate_content(model="gemini-pro", contents=text)).text]
    return [
        chunk.text async for chunk in await client.models.generate_content_stream(model="gemini-pro", contents=text)
    ]


_streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@_streamed_or_not
async def test_a_blocked_request(chain: Rig, guarded: Any, stream: bool) -> None:
    blocks_requests(chain)
    with pytest.raises(errors.ClientError) as caught:
        await _drain(guarded, "my secret", stream=stream)
    assert (caught.value.code, caught.value.status, caught.value.message) == (400, "INVALID_ARGUMENT", MESSAGE)


async def test_a_blocked_answer(chain: Rig, guarded: Any) -> None:
    blocks_answers(chain)
    with pytest.raises(errors.ClientError) as caught:
        await _drain(guarded, "Hello", stream=False)
    assert caught.value.message == MESSAGE


async def test_a_block_in_mid_stream(chain: Rig, guarded: Any) -> None:
    blocks_answers(chain)
    chunks: list[Any] = []
    stream = await guarded.models.generate_content_stream(model="gemini-pro", contents="Hello")
    with pytest.raises(errors.ClientError) as caught:
        await collect(stream, chunks)
    assert [chunk.text for chunk in chunks] == ["It "]
    assert (caught.value.code, caught.value.message) == (400, MESSAGE)


async def test_a_block_before_the_first_byte(chain: Rig, guarded: Any) -> None:
    blocks_at_once(chain)
    with pytest.raises(errors.ClientError) as caught:
        await _drain(guarded, "Hello", stream=True)
    assert (caught.value.code, caught.value.message) == (400, MESSAGE)


async def test_redactions(chain: Rig, guarded: Any) -> None:
    redacts_the_city(chain)
    for stream in (False, True):
        assert "".join(await _drain(guarded, "Is Oslo wet?", stream=stream)) == "It rains in [CITY]."
        assert "Is [CITY] wet?" in sent(chain)


@_streamed_or_not
async def test_aim_is_down(chain: Rig, guarded: Any, stream: bool) -> None:
    is_down(chain)
    with pytest.raises(errors.ServerError) as caught:
        await _drain(guarded, "Hello", stream=stream)
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")
