"""The stream of an MCP server that says nothing for long, through a real Envoy."""

from __future__ import annotations

import asyncio

import pytest

from tests.envoy.case import shared
from tests.envoy.cases_mcp import MCP
from tests.fakes.rig import Rigs
from tests.fakes.upstream import Received


@pytest.mark.asyncio(loop_scope="package")
async def test_client_gets_the_headers_of_a_silent_stream_before_its_first_event(rigs: Rigs) -> None:
    chain = await shared(rigs, "default")
    has_headers = asyncio.Event()
    (told, *_) = MCP.events("Hi")

    async def answer(request: Received) -> None:
        await request.head(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        await has_headers.wait()
        assert chain.aim.sessions == []
        await request.chunk(told)
        await request.end()

    chain.upstream.answer = answer
    async with asyncio.timeout(20), chain.client.stream("GET", "/mcp") as response:
        assert response.status_code == 200
        assert response.headers["x-aim-call-id"]
        has_headers.set()
        assert b"".join([piece async for piece in response.aiter_raw()]) == told
    assert len(chain.aim.sessions) == 1
