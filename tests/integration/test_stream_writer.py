"""Whoever writes to Envoy: one at a time and in order, whatever comes when, and nothing behind what was lost."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, cast

import grpc
import pytest

from extproc import stream, wire
from extproc.aim.client import AimClient
from extproc.servicer import ExternalProcessor
from extproc.telemetry import Telemetry
from tests.fakes.aim import AimSession, Answer, Question, ScriptedAim, allow, block, echo
from tests.fakes.rig import DONE, chat_answer, chat_event, chat_request
from tests.fakes.sidecar import settings_for

ORDER = ("request_headers", "request_body", "response_headers", "response_body", "immediate_response")
HOOKS = (["pre_call"], ["output"], ["moderation"], ["pre_call", "output"], ["pre_call", "moderation", "output"])


def headers(leg: str, **values: str) -> Any:
    message = wire.Request()
    for name, value in values.items():
        name = name.replace("_", "-") if name in ("content_type",) else f":{name}"
        getattr(message, leg).headers.headers.add(key=name, raw_value=value.encode())
    return message


def body(leg: str, data: bytes, *, end: bool = True) -> Any:
    message = wire.Request()
    getattr(message, leg).body, getattr(message, leg).end_of_stream = data, end
    return message


class ScriptedEnvoy:
    """The other end of one stream, which takes its time; it is slow, fails to write or leaves as `chance` likes."""

    def __init__(self, chance: random.Random, script: list[tuple[str, Any]]) -> None:
        """Send each message of `script` once a reply of the named kind has come, "" for at once."""
        self._chance = chance
        self._script = script
        self._replied = asyncio.Event()
        self._is_writing = False
        self._fails = chance.choice((None, None, None, grpc.aio.InternalError("gone"), ValueError("odd")))
        self.replies: list[Any] = []
        self.overlaps = 0

    def invocation_metadata(self) -> tuple[()]:
        return ()

    @property
    def kinds(self) -> list[str]:
        return [reply.WhichOneof("response") for reply in self.replies]

    async def _pause(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 2, 5, 20))):
            await asyncio.sleep(0)

    async def read(self) -> Any:
        await self._pause()
        if not self._script:
            while not any(self._is_end(reply) for reply in self.replies):
                await self._reply()
            return grpc.aio.EOF
        awaited, message = self._script.pop(0)
        while awaited and awaited not in self.kinds and "immediate_response" not in self.kinds:
            await self._reply()
        return message.SerializeToString() if "immediate_response" not in self.kinds else grpc.aio.EOF

    async def _reply(self) -> None:
        self._replied.clear()
        await self._replied.wait()

    def _is_end(self, reply: Any) -> bool:
        if reply.HasField("immediate_response"):
            return True
        return bool(reply.response_body.response.body_mutation.streamed_response.end_of_stream)

    async def write(self, data: bytes) -> None:
        self.overlaps += self._is_writing
        self._is_writing = True
        try:
            await self._pause()
            if self._fails is not None and self._chance.random() < 0.2:
                raise self._fails
            self.replies.append(wire.Response.FromString(data))
            self._replied.set()
        finally:
            self._is_writing = False


def script(chance: random.Random, mode: int, *, streamed: bool) -> tuple[list[tuple[str, Any]], bytes]:
    """Return what Envoy sends, and the answer's body."""
    first = headers("request_headers", method="POST", path="/v1/chat/completions")
    first.protocol_config.request_body_mode, first.protocol_config.response_body_mode = mode, 4
    if streamed:
        pieces = [chat_event(f"word{number} ") for number in range(chance.randrange(1, 6))] + [DONE]
    else:
        whole = chat_answer("Hello " * chance.choice((1, 20_000)))
        at = chance.randrange(len(whole))
        pieces = [whole[:at], whole[at:]]
    request = json.dumps(chat_request("Hello", stream=streamed)).encode()
    content_type = "text/event-stream" if streamed else "application/json"
    sent = [
        ("", first),
        ("request_headers" if mode == 2 else "", body("request_body", request)),
        ("request_body", headers("response_headers", status="200", content_type=content_type)),
        *(("", body("response_body", piece, end=piece is pieces[-1])) for piece in pieces),
    ]
    return sent, b"".join(pieces)


@pytest.mark.parametrize("seed", range(120))
async def test_one_writer_at_a_time_and_in_order(aim: ScriptedAim, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(stream, "_LAST_WORDS_SECONDS", 0.05)

    async def judge(question: Question) -> Answer:
        for _ in range(chance.choice((0, 1, 10, 50))):
            await asyncio.sleep(0)
        return chance.choice((block("no"), (400, {}), *[await allow(question)] * 6))

    async def verify(session: AimSession) -> None:
        if chance.random() < 0.7:
            await echo(session)
        elif await session.receive() is not None:
            await session.block("no")

    aim.judge, aim.script = judge, verify
    mode = chance.choice((2, 4))
    sent, answer = script(chance, mode, streamed=chance.random() < 0.5)
    if mode == 4:
        sent = [("request_body" if awaited == "request_body" else "", message) for awaited, message in sent]
    profile = {"hooks": chance.choice(HOOKS), "failure_mode_allow": chance.random() < 0.5}
    settings = settings_for(aim.base, profiles={"default": profile})
    envoy = ScriptedEnvoy(chance, sent)
    async with AimClient(settings) as client, ExternalProcessor(settings, client, Telemetry()) as service:
        it = stream.Stream(service, cast("Any", envoy))
        running = asyncio.ensure_future(it.run())  # noqa: TID251 - to be cancelled as gRPC cancels
        if chance.random() < 0.2:
            for _ in range(chance.randrange(200)):
                await asyncio.sleep(0)
            running.cancel()
        reset: Any = "cancelled"
        try:
            async with asyncio.timeout(20):
                reset = await running
        except asyncio.CancelledError:
            pass
        finally:
            it.end()
        assert service.held_bytes == 0
    assert not envoy.overlaps
    kinds = envoy.kinds
    assert kinds == sorted(kinds, key=ORDER.index)
    pieces = [reply.response_body.response.body_mutation.streamed_response.body for reply in envoy.replies]
    released = b"".join(pieces)
    if reset is None and kinds[-1] != "immediate_response" and b"content_policy_violation" not in released:
        assert b"guardrail" in released or released == answer
    elif reset is not None:
        assert answer.startswith(released) or b'"error"' in released
