"""Envoy's end of one ext_proc stream, for tests that need no Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode

from extproc.processor import wire

_Request = wire.Request
_Response = wire.Response


class EnvoyStream:
    """One call of `Process`."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def request_headers(
        self,
        *headers: tuple[str, str],
        method: str = "POST",
        path: str = "/v1/chat/completions",
        modes: tuple[int, int] = (Mode.BUFFERED, Mode.FULL_DUPLEX_STREAMED),
        end: bool = False,
    ) -> None:
        message = _Request()
        message.protocol_config.request_body_mode, message.protocol_config.response_body_mode = modes
        _fill(message.request_headers, ((":method", method), (":path", path), *headers), end)
        await self.send(message)

    async def response_headers(self, *headers: tuple[str, str], status: int = 200, end: bool = False) -> None:
        message = _Request()
        _fill(message.response_headers, ((":status", str(status)), *headers), end)
        await self.send(message)

    async def body(self, leg: str, data: bytes, *, end: bool = True) -> None:
        message = _Request()
        body = getattr(message, f"{leg}_body")
        body.body, body.end_of_stream = data, end
        await self.send(message)

    async def send(self, message: Any) -> None:
        await self.call.write(message.SerializeToString())

    async def read(self) -> Any:
        """Return the next response; None at the end of the stream, with or without an error."""
        try:
            data = await self.call.read()
        except grpc.aio.AioRpcError:
            return None
        return None if data is grpc.aio.EOF else _Response.FromString(data)

    async def done(self) -> None:
        await self.call.done_writing()


def _fill(message: Any, headers: tuple[tuple[str, str], ...], end: bool) -> None:
    for name, value in headers:
        message.headers.headers.add(key=name, raw_value=value.encode("latin-1"))
    message.end_of_stream = end


@asynccontextmanager
async def envoy_stream(
    address: str, metadata: tuple[tuple[str, str], ...] = (), credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[EnvoyStream]:
    """Open a stream to the sidecar at `address`."""
    if credentials is None:
        channel = grpc.aio.insecure_channel(address)
    else:
        channel = grpc.aio.secure_channel(address, credentials)
    async with channel:
        call = channel.stream_stream(f"/{wire.SERVICE}/Process")(metadata=metadata)
        try:
            yield EnvoyStream(call)
        finally:
            call.cancel()
