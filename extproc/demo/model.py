"""A demo model: OpenAI's Chat Completions API with canned answers, as JSON or as an event stream.

Like real servers it stops generating when the client disconnects. An observer sees how far it got. To run it alone, use
`python -m extproc.demo.model --listen HOST:PORT`; its log holds no text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import uuid4

import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from extproc.config.address import Address

PAUSE_SECONDS = 0.012
"""The pause between two chunks: the speed of a fast model."""

_SHUTDOWN_SECONDS = 3

_ANSWERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("capital of france", ("The capital ", "of France ", "is Paris.")),
    # An e-mail address split as a model's tokens would split it.
    (
        "reach jane",
        ("Write ", "to Jane ", "at ja", "ne.d", "oe@", "exam", "ple.", "com ", "or come ", "to room 12, ", "any day."),
    ),
    # A forbidden name after a harmless beginning, and then a long rest that should not be generated.
    (
        "working on",
        ("They ", "fixed ", "the build ", "last week. ", "Next ", "comes Pro", "ject Night", "fall, ", "which ")
        + ("will ", "take ", "weeks ", "and ") * 50,
    ),
)
"""Phrases of the last user message, in lower case, and the chunks of the answer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Generation:
    """One answer: the messages that the model received, the planned chunks and those generated so far."""

    messages: list[dict[str, Any]]
    planned: tuple[str, ...]
    chunks: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_complete(self) -> bool:
        """Whether all chunks were generated. If not, and the generation has ended, the client disconnected."""
        return len(self.chunks) == len(self.planned)

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return _last_prompt(self.messages)


Observer = Callable[[Generation], None]


def answer_to(prompt: str) -> tuple[str, ...]:
    """Return the chunks of the answer to `prompt`: a canned answer, or the prompt itself."""
    for phrase, chunks in _ANSWERS:
        if phrase in prompt.lower():
            return chunks
    return ("You ", "said: ", *re.findall(r"\S+\s*", prompt))


def create_app(on_request: Observer | None = None) -> Starlette:
    """Build the application. `on_request` receives each generation when it begins; `ended` is set when it ends."""

    async def completions(request: Request) -> Response:
        try:
            body = await request.json()
            messages = body["messages"]
            generation = Generation(messages, answer_to(_last_prompt(messages)))
        except (ValueError, KeyError, TypeError, AttributeError):
            message = "the body is not a chat completion request"
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_body"}
            return JSONResponse({"error": error}, 400)
        if on_request is not None:
            on_request(generation)
        name = str(body.get("model") or "demo")
        return _EventStream(generation, name) if body.get("stream") is True else _whole(generation, name)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/healthz", healthz), Route("/v1/chat/completions", completions, methods=["POST"])])


@contextlib.asynccontextmanager
async def listening(address: Address, on_request: Observer | None = None) -> AsyncIterator[int]:
    """Serve while the context lasts and yield the port; port 0 in `address` selects a free one.

    It handles no signals. Raises OSError if the address cannot be bound.
    """
    with _listener(address) as listener:
        server = _Server(_config(on_request))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            try:
                # The socket already accepts connections.
                yield listener.getsockname()[1]
            finally:
                server.should_exit = server.force_exit = True


def main(listen: Annotated[str, typer.Option(help="HOST:PORT.")] = "127.0.0.1:8080") -> None:
    """Run the demo model until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    try:
        address = Address.parse(listen)
        listener = _listener(address)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        typer.echo(f"listen: cannot listen on {listen}: {reason}", err=True)
        raise typer.Exit(2) from None
    with listener:
        _log.info("the demo model listens on %s", address)
        uvicorn.Server(_config(None)).run(sockets=[listener])


def _listener(address: Address) -> socket.socket:
    if address.path:
        raise ValueError("the demo model listens on a TCP port only")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.create_server((address.host, address.port), family=family)
    # Connections inherit this option. asyncio sets it only on sockets with a protocol number, which this one lacks.
    # Without it the second packet of each answer waits 40 ms for the acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _config(on_request: Observer | None) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(on_request),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


class _Server(uvicorn.Server):
    """A uvicorn server that handles no signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _EventStream(Response):
    """An answer sent chunk by chunk while the client stays connected."""

    def __init__(self, generation: Generation, model: str) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._generation = generation
        self._frame = {**_frame(model), "object": "chat.completion.chunk"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                generating = group.create_task(self._generate(send))
                watching = group.create_task(_client_gone(receive))
                generating.add_done_callback(lambda _: watching.cancel())
                watching.add_done_callback(lambda _: generating.cancel())
        finally:
            _end(self._generation)

    async def _generate(self, send: Send) -> None:
        with contextlib.suppress(OSError):  # the client disconnected during a send
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, {"role": "assistant", "content": ""})
            for chunk in self._generation.planned:
                await asyncio.sleep(PAUSE_SECONDS)
                self._generation.chunks.append(chunk)
                await self._send(send, {"content": chunk})
            await self._send(send, {}, "stop")
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _send(self, send: Send, delta: dict[str, str], finish: str | None = None) -> None:
        frame = {**self._frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        body = b"data: " + json.dumps(frame).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _whole(generation: Generation, model: str) -> Response:
    generation.chunks += generation.planned
    _end(generation)
    message = {"role": "assistant", "content": "".join(generation.chunks)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return JSONResponse({**_frame(model), "object": "chat.completion", "choices": choices})


def _end(generation: Generation) -> None:
    done, planned = len(generation.chunks), len(generation.planned)
    if generation.is_complete:
        _log.info("answered: %d chunks", done)
    else:
        _log.info("the client disconnected: stopped after %d of %d chunks", done, planned)
    generation.ended.set()


def _frame(model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex[:12]}", "created": int(time.time()), "model": model}


def _last_prompt(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last user message, its parts joined; raises TypeError or AttributeError for others."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            return "".join(str(part.get("text") or "") for part in content or ())
    return ""


if __name__ == "__main__":
    typer.run(main)
