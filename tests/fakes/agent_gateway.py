"""agentgateway's end of an ext_proc stream: the messages that it sends, and what it does with the replies.

From agentgateway 1.4.1 (commit 163ea21), the same on its main branch of 2026-08-21 (commit 75b4e6c), in
`crates/agentgateway/src`: `http/ext_proc.rs`, `http/ext_proc/headers.rs`, `mutation.rs`, `processing.rs` and
`buffering.rs`, and `proxy/httpproxy.rs`. It differs from Envoy in this:

- Pseudo-headers come after the other headers, and their text is in `value`, not in `raw_value`.
- In full duplex the body follows the headers at once. Unless the last piece is known to be the last, an empty one with
  end_of_stream follows.
- The end of the answer's body ends its half of the gRPC stream, while it still reads the replies.
- An answer of its own (the model cannot be reached) is not sent to the processor: the stream just ends.
- Dynamic metadata counts only in the replies to headers, where a key replaces the same key of an earlier reply.
- `details` and the trailers of a reply are dropped, and so are the HTTP trailers. A body that breaks off is not ended.
- CONTINUE_AND_REPLACE is taken as CONTINUE.
- If the gRPC stream ends early, the client gets an answer of agentgateway's own, or an answer that has begun ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode

from extproc.processor import wire

Headers = tuple[tuple[str, str], ...]
Leg = Literal["request", "response"]
JSON: Headers = (("content-type", "application/json"),)

_ATTRIBUTES = "envoy.filters.http.ext_proc"


@dataclass(frozen=True)
class Message:
    """A request or an answer; `headers` are without pseudo-headers.

    `is_length_known` says that the last piece is known to be the last. `is_cut` says that the body breaks off.
    """

    headers: Headers = JSON
    body: Sequence[bytes] = ()
    trailers: Headers = ()
    is_length_known: bool = False
    is_cut: bool = False


@dataclass(frozen=True)
class Forwarded:
    """What agentgateway sends on: a request to the model, or an answer to the client.

    `is_whole` says whether the processor ended the body. Otherwise agentgateway ends it all the same.
    """

    headers: Mapping[str, str]
    body: bytes
    is_whole: bool = True


@dataclass(frozen=True)
class Refused:
    """The processor's own answer, or agentgateway's 500, which has no body here."""

    status: int
    headers: Mapping[str, str]
    body: bytes


OWN = Refused(500, {}, b"")
"""The answer of agentgateway itself when the processor fails."""


class AgentGateway:
    """One exchange through agentgateway."""

    def __init__(self, call: Any, group: asyncio.TaskGroup, modes: tuple[int, int], attributes: Mapping[str, str]):
        self.call = call
        self._group = group
        self._modes = dict(zip(("request", "response"), modes, strict=True))
        self._attributes = attributes
        self._replies: dict[str, asyncio.Queue[Any]] = {"request": asyncio.Queue(), "response": asyncio.Queue()}
        self.ended = group.create_task(self._route())
        """Done once the sidecar has ended the stream."""
        self.actions: dict[str, str] = {}
        """The action of each leg in the dynamic metadata that it keeps; empty if there is none."""
        self.half_closed = asyncio.Event()
        """Set once its half of the stream has ended."""
        self.refused = asyncio.Event()
        """Set once an immediate response has arrived."""

    async def request(self, message: Message, method: str = "POST", path: str = "/v1/chat/completions") -> Any:
        """Send a request; return what reaches the model, or the answer in its place."""
        pseudo = ((":method", method), (":scheme", "http"), (":authority", "llm.example"), (":path", path))
        return await self._leg("request", message, pseudo)

    async def response(self, message: Message, status: int = 200) -> Any:
        """Send the model's answer; return what reaches the client. The request's half of the stream ends with it."""
        return await self._leg("response", message, ((":status", str(status)),))

    async def end(self) -> grpc.StatusCode:
        """End this half of the stream, as after an answer of agentgateway's own; return the status of the stream."""
        await self.call.done_writing()
        await self.ended
        status: grpc.StatusCode = await self.call.code()
        return status

    # -- one leg ---------------------------------------------------------------------------------------------------

    async def _leg(self, leg: Leg, message: Message, pseudo: Headers) -> Any:
        has_body = bool(message.body)
        is_full_duplex = self._modes[leg] == Mode.FULL_DUPLEX_STREAMED
        request = wire.Request()
        headers = getattr(request, f"{leg}_headers")
        for name, value in message.headers:
            headers.headers.headers.add(key=name, raw_value=value.encode("latin-1"))
        for name, value in pseudo:
            headers.headers.headers.add(key=name, value=value)
        headers.end_of_stream = not has_body
        if leg == "request":
            request.protocol_config.request_body_mode = self._modes["request"]
            request.protocol_config.response_body_mode = self._modes["response"]
            for name, value in self._attributes.items():
                request.attributes[_ATTRIBUTES].fields[name].string_value = value
        if not await self._send(request):
            return OWN
        sending = self._group.create_task(self._send_body(leg, message)) if is_full_duplex and has_body else None
        reply = await self._replies[leg].get()
        if reply is None:
            return OWN
        if reply.HasField("immediate_response"):
            return _refused(reply.immediate_response)
        verdicts = reply.dynamic_metadata.fields["aim"].struct_value.fields
        self.actions[leg] = verdicts[leg].struct_value.fields["action"].string_value
        found = dict((*message.headers, *pseudo))
        _mutate(found, getattr(reply, f"{leg}_headers").response.header_mutation)
        if has_body and not is_full_duplex:
            await self._send_body(leg, message)
        if leg == "response":
            # What handled the answer is gone now. Only the task that sends the body keeps the stream open.
            self._group.create_task(self._half_close(sending))
        if not has_body:
            return Forwarded(found, b"")
        if is_full_duplex:
            found.pop("content-length", None)
        return await self._body(leg, message, found)

    async def _body(self, leg: Leg, message: Message, found: dict[str, str]) -> Any:
        """Return what is sent on: the headers `found` and the body of the replies."""
        body = b""
        while True:
            reply = await self._replies[leg].get()
            if reply is None:
                return OWN if self._modes[leg] == Mode.BUFFERED else Forwarded(found, body, is_whole=False)
            if reply.HasField("immediate_response"):
                # On the request leg it reaches the client once the model has answered.
                return _refused(reply.immediate_response) if leg == "request" else Forwarded(found, body)
            if reply.HasField(f"{leg}_trailers"):
                return Forwarded(found, body)
            common = getattr(reply, f"{leg}_body").response
            _mutate(found, common.header_mutation)
            match common.body_mutation.WhichOneof("mutation"):
                case "streamed_response":
                    body += common.body_mutation.streamed_response.body
                    if common.body_mutation.streamed_response.end_of_stream:
                        return Forwarded(found, body)
                case "body":
                    mutated = common.body_mutation.body
                    # It refuses a body that does not fit content-length.
                    return Forwarded(found, mutated) if _fits(found, mutated) else OWN
                case _:
                    return Forwarded(found, b"".join(message.body))

    async def _send_body(self, leg: Leg, message: Message) -> None:
        is_buffered = self._modes[leg] == Mode.BUFFERED
        pieces = [b"".join(message.body)] if is_buffered else message.body
        has_ended = False
        for number, piece in enumerate(pieces, 1):
            has_ended = (message.is_length_known or is_buffered) and number == len(pieces) and not message.trailers
            if not await self._send_piece(leg, piece, end=has_ended):
                return
        if message.trailers:
            request = wire.Request()
            trailers = getattr(request, f"{leg}_trailers").trailers
            for name, value in message.trailers:
                trailers.headers.add(key=name, raw_value=value.encode("latin-1"))
            await self._send(request)
        elif not has_ended and not message.is_cut:
            await self._send_piece(leg, b"", end=True)

    async def _send_piece(self, leg: Leg, piece: bytes, *, end: bool) -> bool:
        request = wire.Request()
        body = getattr(request, f"{leg}_body")
        body.body, body.end_of_stream = piece, end
        return await self._send(request)

    async def _half_close(self, sending: asyncio.Task[None] | None) -> None:
        if sending is not None:
            await sending
        await self.call.done_writing()
        self.half_closed.set()

    async def _send(self, request: Any) -> bool:
        """Send a message; return whether the stream was still open."""
        if self.ended.done():
            return False
        try:
            await self.call.write(request.SerializeToString())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def _route(self) -> None:
        """Hand each reply to the leg that waits for it, an immediate response to both; then None."""
        try:
            while (data := await self.call.read()) is not grpc.aio.EOF:
                reply = wire.Response.FromString(data)
                kind = reply.WhichOneof("response") or ""
                if kind == "immediate_response":
                    self.refused.set()
                for leg, queue in self._replies.items():
                    if kind.startswith(leg) or kind == "immediate_response":
                        queue.put_nowait(reply)
        except grpc.aio.AioRpcError:
            pass  # its status is asked for by who wants it
        for queue in self._replies.values():
            queue.put_nowait(None)


def _mutate(headers: dict[str, str], mutation: Any) -> None:
    """Apply a mutation as agentgateway does: removals first; an empty value is not set."""
    for name in mutation.remove_headers:
        headers.pop(name, None)
    for option in mutation.set_headers:
        if option.header.raw_value:
            headers[option.header.key] = option.header.raw_value.decode("latin-1")


def _fits(headers: Mapping[str, str], body: bytes) -> bool:
    return int(headers.get("content-length", len(body))) == len(body)


def _refused(reply: Any) -> Refused:
    headers: dict[str, str] = {}
    _mutate(headers, reply.headers)
    reply.body.decode()  # its schema has text here, so anything else would end the stream
    return Refused(reply.status.code, headers, reply.body)


@asynccontextmanager
async def agent_gateway(
    address: str,
    *,
    modes: tuple[int, int] = (Mode.FULL_DUPLEX_STREAMED, Mode.FULL_DUPLEX_STREAMED),
    metadata: tuple[tuple[str, str], ...] = (),
    attributes: Mapping[str, str] | None = None,
) -> AsyncIterator[AgentGateway]:
    """Open a stream to the sidecar at `address`, as agentgateway does for each request."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
        call = channel.stream_stream(f"/{wire.SERVICE}/Process")(metadata=metadata)
        try:
            yield AgentGateway(call, group, modes, attributes or {})
        finally:
            call.cancel()
