"""A scripted Aim: it records its calls and sends the answers of the test."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from tests.fakes.http_peer import Link, Peer
from tests.fakes.http_peer import answer as response
from tests.fakes.websocket import ServerSocket

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass
class Question:
    """One REST call; `status` is that of its answer."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    status: int = 0

    @property
    def hook(self) -> str:
        return self.headers.get("x-aim-litellm-hook", self.headers.get("x-cato-litellm-hook", ""))

    @property
    def texts(self) -> list[Any]:
        return [message["content"] for message in self.body["messages"]]


@dataclass
class AimSession:
    """One websocket: it receives chunks and sends frames."""

    path: str
    headers: dict[str, str]
    socket: ServerSocket
    transport: asyncio.WriteTransport
    chunks: list[dict[str, Any]] = field(default_factory=list)
    chunk_bytes: int = 0
    is_done: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def abort(self) -> None:
        """Drop the connection without a closing handshake."""
        self.transport.abort()

    async def be_deaf(self, until: asyncio.Event) -> None:
        """Read nothing from the connection until `until` is set."""
        transport = cast(asyncio.Transport, self.transport)  # uvloop's transports are not a subclass of it
        transport.pause_reading()
        await until.wait()
        transport.resume_reading()

    async def receive(self) -> dict[str, Any] | None:
        """Return the next chunk; None at the end."""
        message = await self.socket.receive()
        if not isinstance(message, str):
            return None
        frame: dict[str, Any] = json.loads(message)
        if frame == {"done": True}:
            self.is_done = True
            return None
        self.chunks.append(frame)
        self.chunk_bytes += len(message.encode())
        return frame

    async def verify(self, chunk: dict[str, Any]) -> None:
        await self.socket.send_str(json.dumps({"verified_chunk": chunk}))

    async def block(self, message: str) -> None:
        await self.socket.send_str(json.dumps({"blocking_message": message}))

    async def done(self) -> None:
        await self.socket.send_str('{"done": true}')


def text_of(chunk: dict[str, Any], index: int = 0) -> str:
    """Return the text of a chunk's choice."""
    for choice in chunk["choices"]:
        if choice["index"] == index:
            return choice["delta"].get("content") or ""
    return ""


def chunk_of(text: str, index: int = 0) -> dict[str, Any]:
    """Return a chunk with one text."""
    return {"choices": [{"index": index, "delta": {"content": text}}]}


async def echo(session: AimSession) -> None:
    """Verify everything unchanged."""
    while (chunk := await session.receive()) is not None:
        await session.verify(chunk)
    if session.is_done:
        await session.done()


Answer = tuple[int, Any, dict[str, str]] | tuple[int, Any] | Any
"""A status (200 if left out), a body (bytes, or a value that is sent as JSON) and header fields."""

Judge = Callable[[Question], Awaitable[Answer]]
Script = Callable[[AimSession], Awaitable[None]]


async def allow(question: Question) -> Answer:
    """Allow: Aim finds nothing."""
    if question.path.startswith("/detect"):
        return {"detected": False, "details": {}, "detection_message": None}
    return {"analysis_result": {"policy_drill_down": {}}, "required_action": None}


def block(message: str | None, **details: Any) -> Answer:
    """Return a block in the detect form."""
    return {"detected": True, "details": details, "detection_message": message}


def anonymize(question: Question, redact: Callable[[str], str]) -> Answer:
    """Return a redaction of every message in the firewall form."""
    redacted = [
        {**message, "content": redact(message["content"]) if isinstance(message["content"], str) else None}
        for message in question.body["messages"]
    ]
    return {
        "analysis_result": {"policy_drill_down": {"u1": {"policy_name": "PII"}}},
        "required_action": {"action_type": "anonymize_action", "policy_name": "PII", "detection_message": None},
        "redacted_chat": {"all_redacted_messages": redacted, "redacted_new_message": redacted[-1]},
    }


class ScriptedAim:
    """The service; `judge` and `script` may be replaced between exchanges."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.sessions: list[AimSession] = []
        self.handshake: Callable[[], Awaitable[int | None]] | None = None
        self.base = ""
        self.reset()

    def reset(self) -> None:
        self.questions.clear()
        self.sessions.clear()
        self.judge: Judge = allow
        self.script: Script = echo
        self.handshake = None

    def asked(self, hook: str) -> list[Question]:
        return [question for question in self.questions if question.hook == hook]

    async def _serve(self, link: Link) -> None:
        try:
            while True:
                call = await _call(link)
                match call.method, call.path:
                    case "POST", "/detect/openai" | "/detect/output" | "/fw/v1/analyze":
                        await link.send(await self._answer(link, call))
                    case "GET", "/detect/output/ws" | "/fw/v1/analyze/stream":
                        status = None if self.handshake is None else await _while_connected(link, self.handshake())
                        if status is None:
                            await self._session(link, call)
                            return
                        await link.send(_response(status))
                    case _:
                        await link.send(_response(404))
        except (ConnectionError, EOFError):
            pass  # the client left
        except Exception:
            _log.exception("the test's judge or script failed")
            link.writer.write(_response(500))

    async def _answer(self, link: Link, call: _Call) -> bytes:
        question = Question(call.path, call.headers, json.loads(call.body))
        self.questions.append(question)
        answer = await _while_connected(link, self.judge(question))
        question.status, body, fields = (*answer, {})[:3] if isinstance(answer, tuple) else (200, answer, {})
        return _response(question.status, body, fields)

    async def _session(self, link: Link, call: _Call) -> None:
        socket = ServerSocket(link, call.head)
        session = AimSession(call.path, call.headers, socket, link.writer.transport)
        self.sessions.append(session)
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(self._run(session))
                await socket.carry()
                if not socket.is_end_received:  # the script waits for something else
                    running.cancel()
        except Exception:
            link.writer.transport.abort()
            raise
        finally:
            session.closed.set()

    async def _run(self, session: AimSession) -> None:
        with suppress(ConnectionError):
            await self.script(session)
        while await session.socket.receive() is not None:  # until the other side closes
            pass

    @asynccontextmanager
    async def running(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedAim]:
        """Serve on `port` of loopback while the context lasts; 0 takes a free port."""
        async with Peer(self._serve, tls=tls, port=port) as peer:
            self.base = peer.url
            yield self


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    headers: dict[str, str]
    head: bytes
    body: bytes


async def _call(link: Link) -> _Call:
    """Return the next request of a connection.

    Raises EOFError if the client closed it, ConnectionError if the client does not speak HTTP.
    """
    start = await link.reader.readexactly(1)
    if not start.isalpha():  # TLS, perhaps
        link.writer.write(_response(400))
        raise ConnectionAbortedError("not HTTP")
    head = start + await link.reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    method, target, _ = first.split(" ")
    fields = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await link.reader.readexactly(int(headers.get("content-length", "0")))
    return _Call(method, urlsplit(target).path, headers, head, body)  # a proxy gets the whole URL


def _response(status: int, body: Any = b"", fields: Mapping[str, str] = MappingProxyType({})) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    usual = {
        "content-type": "application/octet-stream" if isinstance(body, bytes) else "application/json; charset=utf-8",
        "content-length": str(len(data)),
    }
    lines = [f"{name}: {value}" for name, value in {**usual, **fields}.items()]
    return response(f"{status} {HTTPStatus(status).phrase}", *lines, body=data)


async def _while_connected(link: Link, work: Awaitable[_T]) -> _T:
    """Return the result of `work`; cancel it if the client leaves.

    Raises ConnectionResetError in that case.
    """

    async def watch() -> None:
        with suppress(ConnectionError):
            await link.reader.read(1)  # the client sends nothing before the answer
        working.cancel()

    async def do() -> _T:
        return await work

    async with asyncio.TaskGroup() as group:
        working = group.create_task(do())
        watching = group.create_task(watch())
        working.add_done_callback(lambda _: watching.cancel())
    if working.cancelled():
        raise ConnectionResetError("the client left")
    return working.result()
