"""The null, an external processor that guards nothing: the fixed reference that the sidecar is compared with.

It answers each message of Envoy at once, with grpc.aio on uvloop: the cost of ext_proc in Python. It shares no code
with the sidecar, so a ratio to it changes only if the sidecar changes. The same holds for the floor (floor.py).

    python -m tests.bench.null PORT
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
import uvloop

from tests.bench.messages import SERVICE, Request, streamed, unchanged

REPLIES: Final = {kind: unchanged(kind) for kind in ("request_headers", "request_body", "response_headers")}
"""The replies to all messages except pieces of the answer, by the kind of the message."""

_OPTIONS: Final = [
    # Envoy's pings on an idle connection would otherwise end it.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


async def passed(_: Any, context: Context) -> None:
    """Serve one stream: pass everything."""
    while (message := await context.read()) is not grpc.aio.EOF:
        request = Request.FromString(message)
        kind = request.WhichOneof("request")
        if kind == "response_body":
            await context.write(streamed(request.response_body.body, request.response_body.end_of_stream))
        else:
            await context.write(REPLIES[kind])


async def serve(port: int, process: Callable[[Any, Context], Awaitable[None]]) -> None:
    """Serve each stream by `process`, on 127.0.0.1, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=_OPTIONS)
    handlers = {"Process": grpc.stream_stream_rpc_method_handler(process)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), passed))
