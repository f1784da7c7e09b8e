"""Recorded answers of providers, given to their SDKs through Envoy and the sidecar, and without them.

Each SDK gets the same objects, or raises the same error. What it asks does not matter: the model answers with the
recording, which comes in pieces if it is a stream. `tests.envoy.test_recordings` compares the bytes of all recordings.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.envoy import needs_envoy
from tests.fakes.recorded import FOLDERS, Recorded, recorded
from tests.fakes.rig import Rig, rig
from tests.fakes.upstream import Answer, Received, pieces, whole

_HELLO: Any = [{"role": "user", "content": "Hello"}]
_STREAMS = ("text/event-stream", "application/vnd.amazon.eventstream")


def _is_stream(recording: Recorded) -> bool:
    return recording.content_type.startswith(_STREAMS)


# -- what each SDK asks ------------------------------------------------------------------------------------------------

Ask = Callable[[Any, bool], Awaitable[Any]]


async def _all(stream: Any) -> list[Any]:
    return [each async for each in stream]


async def _cohere(client: Any, stream: bool) -> Any:
    if stream:
        return await _all(client.chat_stream(model="m", messages=_HELLO))
    return await client.chat(model="m", messages=_HELLO)


async def _mistral(client: Any, stream: bool) -> Any:
    if stream:
        return await _all(await client.chat.stream_async(model="m", messages=_HELLO))
    return await client.chat.complete_async(model="m", messages=_HELLO)


async def _gemini(client: Any, stream: bool) -> Any:
    if stream:
        answers = await _all(await client.models.generate_content_stream(model="m", contents="Hello"))
    else:
        answers = [await client.models.generate_content(model="m", contents="Hello")]
    return [answer.model_dump(exclude={"sdk_http_response"}) for answer in answers]  # it has the headers


async def _interactions(client: Any, stream: bool) -> Any:
    answer = await client.create(model="m", input="Hello", stream=stream)
    return await _all(answer) if stream else answer


async def _converse(client: Any, stream: bool) -> Any:
    return await _with_boto3("_converse_stream" if stream else "_converse", client)


async def _invoke(client: Any, stream: bool) -> Any:
    return await _with_boto3("_invoke", client, json.dumps({"prompt": "Hello"}))


async def _with_boto3(name: str, *arguments: Any) -> Any:
    return await asyncio.to_thread(getattr(importlib.import_module("tests.conformance.test_boto3"), name), *arguments)


_SDKS: dict[str, tuple[re.Pattern[str], str, Ask]] = {
    "cohere": (re.compile(r"/v2/chat$"), "test_cohere_sdk", _cohere),
    "mistral": (re.compile(r"mistral.*/chat/completions$"), "test_mistral_sdk", _mistral),
    "interactions": (re.compile(r"/interactions$"), "test_interactions_sdk", _interactions),
    "gemini": (re.compile(r":(streamG|g)enerateContent$"), "test_google_genai_sdk", _gemini),
    "converse": (re.compile(r"/model/.*/converse(-stream)?$"), "test_boto3", _converse),
    "invoke": (re.compile(r"/model/.*/invoke$"), "test_boto3", _invoke),
}
"""By name: which recordings, the module with the function `client`, and what is asked. The first match counts."""


def _sdk(recording: Recorded) -> str | None:
    place = recording.name + recording.path.partition("?")[0]
    return next((name for name, (pattern, _, _) in _SDKS.items() if pattern.search(place)), None)


RECORDED = [
    (name, each)
    for each in recorded(*FOLDERS)
    if each.method == "POST" and each.response and (name := _sdk(each)) is not None
]

pytestmark = [
    *needs_envoy,
    pytest.mark.corpus,
    pytest.mark.skipif(not RECORDED, reason=f"no recorded traffic in {FOLDERS[0].parent}"),
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
]


def _answer(recording: Recorded, body: bytes, count: int = 1) -> Answer:
    """Answer with a recording, cut into about `count` pieces if it is a stream."""
    if not _is_stream(recording):
        return whole(body, recording.status, recording.content_type)
    size = 1 + len(body) // count
    cut = [body[start : start + size] for start in range(0, len(body), size)]
    return pieces(cut, recording.status, recording.content_type)


@pytest_asyncio.fixture(loop_scope="package")
async def mapped() -> AsyncIterator[Rig]:
    """Yield a chain that knows the path of an MCP server."""
    async with rig(profiles={"default": {"paths": {"/mcp": "mcp"}}}) as chain:
        yield chain


async def _outcome(ask: Ask, client: Any, *, stream: bool) -> Any:
    """Return what an SDK makes of the answer: objects, or the error that it raises."""
    try:
        return await ask(client, stream)
    except Exception as error:  # of whatever the SDK has
        return type(error), str(error)


@pytest.mark.parametrize(("sdk", "recording"), RECORDED, ids=[f"{name}-{each.name}" for name, each in RECORDED])
async def test_sdk_gets_the_same_of_a_recorded_answer(chain: Rig, sdk: str, recording: Recorded) -> None:
    _, module, ask = _SDKS[sdk]
    client = importlib.import_module(f"tests.conformance.{module}").client
    stream = _is_stream(recording)
    chain.upstream.answer = _answer(recording, recording.response or b"", 200)
    async with client(chain.envoy.url) as guarded:
        through = await _outcome(ask, guarded, stream=stream)
    assert chain.upstream.requests, "the request did not reach the model"
    assert chain.aim.asked("pre_call"), "Aim was not asked"
    chain.upstream.answer = _answer(recording, recording.response or b"")
    async with client(f"http://127.0.0.1:{chain.upstream.port}") as direct:
        assert through == await _outcome(ask, direct, stream=stream)


# -- MCP ---------------------------------------------------------------------------------------------------------------

LISTS = [each for each in recorded(*FOLDERS) if each.path == "/mcp" and each.response]
_HELLO_OF_A_SERVER = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "wiki", "version": "1"},
}


def _server(recording: Recorded, count: int) -> Answer:
    """Answer the handshake, and a list of tools with a recording, under the id that the client has chosen."""

    async def answer(request: Received) -> None:
        asked = json.loads(request.body or b"{}")
        if asked.get("method") == "initialize":
            hello = {"jsonrpc": "2.0", "id": asked["id"], "result": _HELLO_OF_A_SERVER}
            await whole(json.dumps(hello).encode())(request)
        elif asked.get("method") == "tools/list":
            body = (recording.response or b"").replace(b'"id":1,', b'"id":%d,' % asked["id"])
            await _answer(recording, body, count)(request)
        else:
            await whole(b"", 202 if request.method == "POST" else 405)(request)

    return answer


@pytest.mark.skipif(not LISTS, reason=f"no recorded traffic in {FOLDERS[0].parent}")
@pytest.mark.parametrize("recording", LISTS, ids=[each.name for each in LISTS])
async def test_mcp_sdk_gets_the_same_list_of_tools(mapped: Rig, recording: Recorded) -> None:
    mcp = pytest.importorskip("mcp", reason="no MCP SDK here")
    found = []
    for url, count in ((mapped.envoy.url, 50), (f"http://127.0.0.1:{mapped.upstream.port}", 1)):
        mapped.upstream.answer = _server(recording, count)
        async with mcp.Client(f"{url}/mcp", mode="legacy") as client:
            found.append(await client.list_tools())
    assert found[0] == found[1]
    assert found[0].tools
    (session,) = mapped.aim.sessions
    assert found[0].tools[0].description.split("\n")[0] in str(session.chunks)
