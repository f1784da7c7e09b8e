"""OpenAI's and Anthropic's SDKs read a stream with the sidecar's pings as they read it without.

Google's takes a comment for JSON: its API gets none (see `Dialect.clients_skip_comments`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from extproc.core.stream_output import PING
from tests.conformance import models
from tests.fakes.upstream import Received, ScriptedUpstream

HELLO: Any = [{"role": "user", "content": "Hello"}]


async def _openai(url: str) -> AsyncIterator[Any]:
    openai = pytest.importorskip("openai", reason="no openai here")
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
        async for chunk in await client.chat.completions.create(model="m", messages=HELLO, stream=True):
            yield chunk.model_dump()


async def _responses(url: str) -> AsyncIterator[Any]:
    openai = pytest.importorskip("openai", reason="no openai here")
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
        async for event in await client.responses.create(model="m", input="Hello", stream=True):
            yield event.model_dump()


async def _anthropic(url: str) -> AsyncIterator[Any]:
    anthropic = pytest.importorskip("anthropic", reason="no anthropic here")
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k") as client:
        stream = await client.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True)
        async for event in stream:
            yield event.model_dump()


def pinged(model: Callable[[Received], Any]) -> Callable[[Received], Any]:
    """Return a model that says a ping before each piece of its answer."""

    async def answer(request: Received) -> None:
        plain = request.chunk

        async def chunk(data: bytes) -> None:
            await plain(PING)
            await plain(data)

        request.chunk = chunk  # type: ignore[method-assign]
        await model(request)

    return answer


@pytest.mark.parametrize(
    ("talk", "model"),
    [
        (_openai, models.chat),
        (_responses, models.responses),
        (_anthropic, models.messages),
    ],
    ids=["openai chat", "openai responses", "anthropic"],
)
async def test_pings_change_nothing(talk: Callable[[str], AsyncIterator[Any]], model: Any) -> None:
    async with ScriptedUpstream().running() as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        upstream.answer = model
        plain = [item async for item in talk(url)]
        upstream.answer = pinged(model)
        assert [item async for item in talk(url)] == plain
    assert len(plain) > 2
