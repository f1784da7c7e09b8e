"""The service: Aim's REST and websocket endpoints of all three forms, on starlette and uvicorn.

Nothing is kept between requests. No text is ever logged, one content-free line per analysis is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from extproc.local_aim import HELP
from extproc.local_aim.answers import detect_answer, firewall_answer
from extproc.local_aim.caller import Caller, Refused, read_caller
from extproc.local_aim.chat import Message, SchemaError, check_messages, problem
from extproc.local_aim.judge import Analysis, Judge, Observer, Outcome
from extproc.local_aim.policies import Policies
from extproc.local_aim.session import BadFrame, Session

__all__ = ["Analysis", "create_app", "serve"]

_log = logging.getLogger(__name__)

# A frame is one event of a model's stream, and may exceed the usual 1 MiB.
_FRAME_BYTES = 64 * 1024 * 1024
# How long the shutdown waits for open connections, such as a websocket whose peer reads nothing.
_SHUTDOWN_SECONDS = 3

_Form = Literal["detect", "firewall", "cato"]


def create_app(policies: Policies, *, on_analysis: Observer | None = None) -> Starlette:
    """Build the application. `on_analysis` receives each finished analysis with its texts; it must not block."""
    service = _Service(policies, on_analysis)
    return Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/detect/openai", service.detect_openai, methods=["POST"]),
            Route("/detect/output", service.detect_output, methods=["POST"]),
            Route("/fw/v1/analyze", service.analyze, methods=["POST"]),
            WebSocketRoute("/detect/output/ws", service.detect_stream),
            WebSocketRoute("/fw/v1/analyze/stream", service.analyze_stream),
        ],
        exception_handlers={Refused: _refuse, SchemaError: _unprocessable},
        lifespan=_lifespan,
    )


async def serve(
    host: str,
    port: int,
    policies: Policies,
    *,
    on_analysis: Observer | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until cancelled, then close open connections and raise CancelledError.

    `port` 0 takes a free one; `on_ready` gets the port once connections are accepted. Signals are the
    caller's business. Raises OSError if the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    # asyncio sets this only on sockets with a protocol number. Without it every answer waits for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        create_app(policies, on_analysis=on_analysis),
        ws="websockets-sansio",
        ws_max_size=_FRAME_BYTES,
        ws_per_message_deflate=False,
        # A slow reader must not be mistaken for a dead peer.
        ws_ping_interval=None,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    if on_ready is not None:
        server.on_ready = on_ready
    try:
        await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        if server.started:
            await server.shutdown(sockets=[listener])
        raise
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """A uvicorn server that handles no signals and reports when it accepts connections."""

    on_ready: Callable[[int], None] = staticmethod(lambda port: None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if sockets and not self.should_exit:
            self.on_ready(sockets[0].getsockname()[1])


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        # A model's text may hold a lone surrogate, which UTF-8 cannot encode but JSON escapes can.
        return json.dumps(content).encode()


class _Service:
    def __init__(self, policies: Policies, on_analysis: Observer | None) -> None:
        self._policies = policies
        self._observer = on_analysis

    async def detect_openai(self, request: Request) -> Response:
        """POST /detect/openai: judge a request's messages."""
        caller = read_caller(request.headers, self._policies.api_keys, "pre_call")
        messages = check_messages(await _body(request))
        started = time.perf_counter()
        outcome, _ = self._judge_messages(caller, messages)
        return self._detected(caller, started, outcome, messages)

    async def detect_output(self, request: Request) -> Response:
        """POST /detect/output: judge the text in `output`."""
        caller = read_caller(request.headers, self._policies.api_keys, "output")
        body = await _body(request)
        messages = check_messages(body)
        output = body.get("output")
        if not isinstance(output, str):
            raise SchemaError([problem("Input should be a valid string", "string_type", "output")])
        started = time.perf_counter()
        judge = Judge(self._policies.detectors(caller.direction))
        judge.text(output)
        return self._detected(caller, started, judge.outcome(), messages, output)

    async def analyze(self, request: Request) -> Response:
        """POST /fw/v1/analyze: judge messages and return them redacted."""
        caller = read_caller(request.headers, self._policies.api_keys, "pre_call")
        messages = check_messages(await _body(request))
        started = time.perf_counter()
        outcome, redacted = self._judge_messages(caller, messages)
        milliseconds = (time.perf_counter() - started) * 1000
        form: _Form = "cato" if caller.prefix == "x-cato" else "firewall"
        self._report(caller, form, outcome, milliseconds, messages)
        return _Json(firewall_answer(outcome, redacted, milliseconds))

    async def detect_stream(self, websocket: WebSocket) -> None:
        """WS /detect/output/ws: verify a stream."""
        await self._stream(websocket, "detect")

    async def analyze_stream(self, websocket: WebSocket) -> None:
        """WS /fw/v1/analyze/stream: verify a stream."""
        await self._stream(websocket, "firewall")

    def _judge_messages(self, caller: Caller, messages: list[Message]) -> tuple[Outcome, list[Message]]:
        judge = Judge(self._policies.detectors(caller.direction))
        # Only the answer is judged: the messages before it are context and were judged with the request.
        judged = messages if caller.direction == "input" else messages[-1:]
        context = messages[: len(messages) - len(judged)]
        redacted = [*context, *(judge.message(message) for message in judged)]
        return judge.outcome(), redacted

    def _detected(
        self, caller: Caller, started: float, outcome: Outcome, messages: list[Message], text: str = ""
    ) -> Response:
        answer = detect_answer(outcome)
        milliseconds = (time.perf_counter() - started) * 1000
        action = "block" if answer["detected"] else outcome.action
        self._report(caller, "detect", outcome, milliseconds, messages, text, action)
        return _Json(answer)

    async def _stream(self, websocket: WebSocket, form: _Form) -> None:
        try:
            caller = read_caller(websocket.headers, self._policies.api_keys, "output")
        except Refused as refused:
            await websocket.send_denial_response(_Json({"detail": refused.detail}, refused.status))
            return
        if form == "firewall" and caller.prefix == "x-cato":
            form = "cato"
        await websocket.accept()
        session = Session(self._policies.detectors(caller.direction), keep_text=self._observer is not None)
        seconds = 0.0
        try:
            while not session.closed:
                # Not receive_text, which raises KeyError for a binary frame.
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                started = time.perf_counter()
                frames = session.receive(message.get("text") or "")
                seconds += time.perf_counter() - started
                for frame in frames:
                    await websocket.send_text(json.dumps(frame))
            await websocket.close(1000)
        except BadFrame as error:
            await websocket.close(1008, str(error))
        except WebSocketDisconnect:  # the peer left during a send
            return
        finally:
            self._report(caller, form, session.outcome(), seconds * 1000, [], session.text())

    def _report(
        self,
        caller: Caller,
        form: _Form,
        outcome: Outcome,
        milliseconds: float,
        messages: list[Message],
        text: str = "",
        action: Any = None,
    ) -> None:
        action = action or outcome.action
        _log.info("analysis call_id=%s hook=%s action=%s ms=%.1f", caller.call_id, caller.hook, action, milliseconds)
        if self._observer is not None:
            self._observer(
                Analysis(
                    caller.call_id,
                    caller.hook,
                    form,
                    action,
                    outcome.policies,
                    milliseconds,
                    tuple(messages),
                    text,
                )
            )


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise SchemaError([problem("JSON decode error", "json_invalid")]) from None
    if not isinstance(body, dict):
        raise SchemaError([problem("Input should be a valid dictionary", "dict_type")])
    return body


async def _healthz(_: Request) -> Response:
    return _Json({"status": "ok"})


async def _refuse(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return _Json({"detail": refused.detail}, refused.status)


async def _unprocessable(_: Request, error: Exception) -> Response:
    assert isinstance(error, SchemaError)
    return _Json({"detail": error.detail}, 422)


@contextlib.asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    # A warning, so that it reaches stderr with any logging settings.
    _log.warning("local Aim: %s", HELP)
    yield
