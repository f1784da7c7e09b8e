"""External processors that guard nothing. They show the cost of the sidecar's stack without the sidecar's own work.

`NullProcessor` answers each message of Envoy at once without reading it, with grpc.aio on uvloop and the sidecar's own
codec. `AskingProcessor` also calls Aim, over the sidecar's own HTTP connections and websocket, in the shortest way: one
call for each leg of a buffered exchange, and each piece of a stream through a websocket. It does not read the messages
either. A guard in this stack cannot do less work, so this is the floor for the sidecar.

    python -m tests.bench.null PORT [AIM_PORT]
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from typing import Any

import grpc
import httpx
import uvloop
from websockets.asyncio.client import connect

from extproc.aim.connection import Patience, Socket
from extproc.aim.opening import Opening
from extproc.aim.transport import AiohttpTransport
from extproc.core.commands import ReleaseBody, ReleaseBuffered, ReleaseHeaders
from extproc.core.vocabulary import Leg
from extproc.processor import wire
from tests.bench.aim import DONE

_MESSAGE_BYTES = 32 * 1024 * 1024
_WINDOW = 65_536
_JSON = [("content-type", "application/json")]
_PATIENCE = Patience(ping_seconds=20, verdict_seconds=120)


def _fixed(command: ReleaseHeaders | ReleaseBuffered) -> bytes:
    (message,) = wire.encode(command)
    return message


_REQUEST_HEADERS = _fixed(ReleaseHeaders(Leg.REQUEST))
_REQUEST_BODY = _fixed(ReleaseBuffered(Leg.REQUEST))
_RESPONSE_HEADERS = _fixed(ReleaseHeaders(Leg.RESPONSE))


class NullProcessor:
    """The service that passes everything."""

    async def process(self, _: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Serve one stream."""
        while (message := await context.read()) is not grpc.aio.EOF:
            request = wire.parse(message)
            match request.WhichOneof("request"):
                case "request_headers":
                    await context.write(_REQUEST_HEADERS)
                case "request_body":
                    await context.write(_REQUEST_BODY)
                case "response_headers":
                    await context.write(_RESPONSE_HEADERS)
                case "response_body":
                    await release(context, request.response_body.body, request.response_body.end_of_stream)


async def release(context: grpc.aio.ServicerContext[bytes, bytes], data: bytes, end_of_stream: bool) -> None:
    """Release a piece of the answer."""
    for message in wire.encode(ReleaseBody(Leg.RESPONSE, data, end_of_stream)):
        await context.write(message)


class AskingProcessor:
    """The service that calls Aim and passes everything."""

    def __init__(self, aim_port: int) -> None:
        """Call the Aim on this port of the machine."""
        self._sessions = f"ws://127.0.0.1:{aim_port}/detect/output/ws"
        base = f"http://127.0.0.1:{aim_port}/detect"
        self._request_url, self._answer_url = httpx.URL(f"{base}/openai"), httpx.URL(f"{base}/output")
        self._transport = AiohttpTransport(ssl.create_default_context())

    async def process(self, _: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Serve one stream."""
        session: Socket | None = None
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        answer: list[bytes] = []
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                request = wire.parse(message)
                match request.WhichOneof("request"):
                    case "request_headers":
                        await context.write(_REQUEST_HEADERS)
                    case "request_body":
                        body = request.request_body.body
                        await self._ask(self._request_url, body)
                        if b'"stream": true' in body:
                            session = await self._open(frames)
                        await context.write(_REQUEST_BODY)
                    case "response_headers":
                        await context.write(_RESPONSE_HEADERS)
                    case "response_body":
                        data, is_last = request.response_body.body, request.response_body.end_of_stream
                        if session is None:
                            answer.append(data)
                            if is_last:
                                await self._ask(self._answer_url, b"".join(answer))
                                await release(context, b"".join(answer), True)
                            continue
                        if data:
                            session.send(data.decode())
                            await frames.get()
                        if is_last:
                            session.send(DONE.decode())
                            await frames.get()
                        await release(context, data, is_last)
        finally:
            if session is not None:
                await session.close()

    async def _ask(self, url: httpx.URL, body: bytes) -> None:
        request = httpx.Request("POST", url, headers=_JSON, stream=httpx.ByteStream(body))
        response = await self._transport.handle_async_request(request)
        async for _ in response.aiter_raw():
            pass

    async def _open(self, frames: asyncio.Queue[bytes]) -> Socket:
        opening = await connect(
            self._sessions,
            create_connection=Opening,
            compression=None,
            proxy=None,
            user_agent_header=None,
            ping_interval=None,
        )
        assert isinstance(opening, Opening)
        session = Socket(
            opening.frames,
            _PATIENCE,
            on_message=frames.put_nowait,
            on_caught_up=lambda: None,
            on_failure=lambda _: None,
        )
        opening.hand_over(session)
        return session


async def serve(port: int, processor: NullProcessor | AskingProcessor) -> None:
    """Serve on 127.0.0.1 until SIGTERM, with the sidecar's options."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
        ]
    )
    handlers = {"Process": grpc.stream_stream_rpc_method_handler(processor.process)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stop.wait()
    await server.stop(0)


async def _main(arguments: list[str]) -> None:
    port, *aim = map(int, arguments)
    await serve(port, AskingProcessor(aim[0]) if aim else NullProcessor())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sys.argv[1:]))
