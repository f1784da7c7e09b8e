"""The floor: a null that also calls Aim, with plain aiohttp, in the simplest way.

It sends one POST for each leg of a buffered exchange, and each piece of a stream through a websocket. It does not read
JSON or events. Like the null, it shares no code with the sidecar.

    python -m tests.bench.floor PORT AIM_PORT
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
import grpc
import uvloop

from tests.bench.aim import DONE
from tests.bench.messages import Request, streamed
from tests.bench.null import REPLIES, Context, serve

_JSON: Final = {"content-type": "application/json"}


class Floor:
    """The service that calls Aim and passes everything."""

    def __init__(self, session: aiohttp.ClientSession, aim_port: int) -> None:
        """Call the Aim on this port of the machine."""
        self._session = session
        self._base = f"http://127.0.0.1:{aim_port}/detect"

    async def process(self, _: Any, context: Context) -> None:
        """Serve one stream."""
        socket: aiohttp.ClientWebSocketResponse | None = None
        answer: list[bytes] = []
        async with AsyncExitStack() as stack:
            while (message := await context.read()) is not grpc.aio.EOF:
                request = Request.FromString(message)
                match request.WhichOneof("request"):
                    case "response_body":
                        data, is_last = request.response_body.body, request.response_body.end_of_stream
                        if socket is not None:
                            await _verify(socket, data, is_last)
                            await context.write(streamed(data, is_last))
                            continue
                        answer.append(data)
                        if is_last:
                            await self._ask("output", b"".join(answer))
                            await context.write(streamed(b"".join(answer), True))
                    case "request_body":
                        body = request.request_body.body
                        await self._ask("openai", body)
                        if b'"stream": true' in body:
                            socket = await stack.enter_async_context(
                                self._session.ws_connect(f"{self._base}/output/ws")
                            )
                        await context.write(REPLIES["request_body"])
                    case kind:
                        await context.write(REPLIES[kind])

    async def _ask(self, path: str, body: bytes) -> None:
        async with self._session.post(f"{self._base}/{path}", data=body, headers=_JSON) as response:
            await response.read()


async def _verify(socket: aiohttp.ClientWebSocketResponse, data: bytes, is_last: bool) -> None:
    """Send a piece of a stream to Aim, and wait for the answer."""
    for text in (data, DONE if is_last else b""):
        if text:
            await socket.send_str(text.decode())
            await socket.receive()


async def _main(port: int, aim_port: int) -> None:
    # By default aiohttp opens at most 100 connections.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await serve(port, Floor(session, aim_port).process)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(*map(int, sys.argv[1:])))
