"""A scripted Aim: it records its calls and sends the answers of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web


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
    socket: web.WebSocketResponse
    chunks: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    transport: asyncio.BaseTransport | None = None

    def abort(self) -> None:
        """Drop the connection without a closing handshake."""
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.abort()

    async def receive(self) -> dict[str, Any] | None:
        """Return the next chunk; None at the end."""
        async for message in self.socket:
            if message.type is not WSMsgType.TEXT:
                break
            frame: dict[str, Any] = json.loads(message.data)
            if frame == {"done": True}:
                self.is_done = True
                return None
            self.chunks.append(frame)
            return frame
        return None

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


Answer = tuple[int, Any] | Any
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

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        question = Question(request.path, dict(request.headers), await request.json())
        question.headers = {name.lower(): value for name, value in request.headers.items()}
        self.questions.append(question)
        answer = await self.judge(question)
        if isinstance(answer, web.StreamResponse):
            return answer
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        question.status = status
        if isinstance(body, bytes):
            return web.Response(status=status, body=body)
        return web.json_response(body, status=status)

    async def _session(self, request: web.Request) -> web.StreamResponse:
        if self.handshake is not None and (status := await self.handshake()) is not None:
            return web.Response(status=status)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        session = AimSession(request.path, {n.lower(): v for n, v in request.headers.items()}, socket)
        session.transport = request.transport
        self.sessions.append(session)
        try:
            await self.script(session)
            async for _ in socket:  # until the other side closes
                pass
        except ConnectionError:
            pass
        finally:
            session.closed.set()
        return socket

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[ScriptedAim]:
        app = web.Application(client_max_size=2**30)
        for path in ("/detect/openai", "/detect/output", "/fw/v1/analyze"):
            app.router.add_post(path, self._ask)
        for path in ("/detect/output/ws", "/fw/v1/analyze/stream"):
            app.router.add_get(path, self._session)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.base = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()
