"""Writes to Envoy: one task at a time writes, in order, for any timing, and nothing follows a lost message."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import grpc
import pytest

from extproc.aim.client import AimClient
from extproc.core.commands import Reset
from extproc.processor import wire
from extproc.processor.driver import Driver
from extproc.processor.servicer import ExternalProcessor
from extproc.processor.stream import PATIENT, Patience
from extproc.telemetry.metrics import Telemetry
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
    """The other end of one stream. `chance` decides when it is slow, when a write fails and when it leaves."""

    def __init__(self, chance: random.Random, script: list[tuple[str, Any]], patience: float | None) -> None:
        """Send each message of `script` after a reply of the named kind, or at once for "".

        It waits at most `patience` seconds for the end of the exchange, then it leaves.
        """
        self._chance = chance
        self._patience = patience
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
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    while not self.has_ended:
                        await self._reply()
            return grpc.aio.EOF
        awaited, message = self._script.pop(0)
        while awaited and awaited not in self.kinds and "immediate_response" not in self.kinds:
            await self._reply()
        return message.SerializeToString() if "immediate_response" not in self.kinds else grpc.aio.EOF

    async def _reply(self) -> None:
        self._replied.clear()
        await self._replied.wait()

    @property
    def has_ended(self) -> bool:
        return any(self._is_end(reply) for reply in self.replies)

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
    """Return Envoy's messages and the answer's body."""
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


async def settled(driver: Driver) -> None:
    """Wait until a driver whose stream was left is settled."""
    has_settled = asyncio.Event()
    driver.on_settled = has_settled.set
    if not driver.is_settled:
        await asyncio.wait_for(has_settled.wait(), 20)


@pytest.mark.parametrize("seed", range(240))
async def test_one_task_at_a_time_writes_in_order(aim: ScriptedAim, seed: int) -> None:
    chance = random.Random(seed)

    async def judge(question: Question) -> Answer:
        for _ in range(chance.choice((0, 1, 10, 50))):
            await asyncio.sleep(0)
        return chance.choice((block("no"), (400, {}), *[await allow(question)] * 6))

    async def verify(session: AimSession) -> None:
        if is_silent:
            await session.closed.wait()
        elif chance.random() < 0.7:
            await echo(session)
        elif await session.receive() is not None:
            await session.block("no")

    aim.judge, aim.script = judge, verify
    mode = chance.choice((2, 4))
    sent, answer = script(chance, mode, streamed=chance.random() < 0.5)
    if mode == 4:
        sent = [("request_body" if awaited == "request_body" else "", message) for awaited, message in sent]
    profile = {"hooks": chance.choice(HOOKS), "failure_mode_allow": chance.random() < 0.5}
    # With this patience, Envoy leaves in the same turn of the event loop in which the deadline for Aim's silence
    # passes.
    patience = chance.choice((None, None, 0.1))
    is_silent = patience is not None and chance.random() < 0.5
    settings = settings_for(
        aim.base, profiles={"default": profile}, aim={"verdict_timeout_seconds": patience or 15, "timeout_seconds": 5}
    )
    envoy = ScriptedEnvoy(chance, sent, patience)
    async with (
        AimClient(settings) as client,
        ExternalProcessor(settings, client, Telemetry(), Patience(last_seconds=0.05)) as service,
    ):
        it = service.stream_of(cast("Any", envoy))
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
        if it.driver is not None:
            await settled(it.driver)  # the thread for documents may still handle an event
        assert service.load.held_bytes == 0
    assert not envoy.overlaps
    kinds = envoy.kinds
    assert kinds == sorted(kinds, key=ORDER.index)
    pieces = [reply.response_body.response.body_mutation.streamed_response.body for reply in envoy.replies]
    released = b"".join(pieces)
    assert reset is not None or envoy.has_ended
    if reset is None and kinds[-1] != "immediate_response" and b"content_policy_violation" not in released:
        assert b"guardrail" in released or released == answer
    elif reset is not None:
        assert answer.startswith(released) or b'"error"' in released


class SlowEnvoy:
    """The other end of one stream. It sends and takes messages when the test tells it to."""

    def __init__(self, *messages: Any) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.offered: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.send(*messages)

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def send(self, *data: Any) -> None:
        for it in data:
            self.sent.put_nowait(it if it is grpc.aio.EOF else it.SerializeToString())

    def take(self, *answers: Exception | None) -> None:
        for answer in answers:
            self._answers.put_nowait(answer)

    async def read(self) -> Any:
        return await self.sent.get()

    async def write(self, data: bytes) -> None:
        self.offered.put_nowait(wire.Response.FromString(data).WhichOneof("response"))
        if (error := await self._answers.get()) is not None:
            raise error


@asynccontextmanager
async def serving(
    aim: ScriptedAim, envoy: SlowEnvoy, patience: Patience = PATIENT, /, **changes: Any
) -> AsyncIterator[asyncio.Task[Any]]:
    """Serve a stream of `envoy`, in a task that stands for gRPC's."""
    settings = settings_for(aim.base, **changes)
    async with (
        AimClient(settings) as client,
        ExternalProcessor(settings, client, Telemetry(), patience) as service,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
    ):
        it = service.stream_of(cast("Any", envoy))
        running = group.create_task(it.run())
        try:
            yield running
        finally:
            it.end()
            assert service.load.held_bytes == 0


def request(*, streamed: bool) -> list[Any]:
    sent, _ = script(random.Random(1), 2, streamed=streamed)
    return [message for _, message in sent[:2]]


def piece(text: str, *, end: bool = False) -> Any:
    return body("response_body", chat_event(text), end=end)


SSE = headers("response_headers", status="200", content_type="text/event-stream")
JSON = headers("response_headers", status="200", content_type="application/json")


async def test_end_waits_for_the_writer(aim: ScriptedAim) -> None:
    """Envoy ends the stream while the task of a detection writes the last part of an answer."""
    envoy = SlowEnvoy(*request(streamed=False))
    async with serving(aim, envoy) as running:
        envoy.take(None, None, None)
        assert [await envoy.offered.get() for _ in range(2)] == list(ORDER[:2])
        envoy.send(JSON, body("response_body", chat_answer("Hello")))
        assert [await envoy.offered.get() for _ in range(2)] == list(ORDER[2:4])
        envoy.send(grpc.aio.EOF)
        while not envoy.sent.empty():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not running.done()
        envoy.take(None)
        assert await running is None


async def test_failed_write_ends_a_stream_that_waits_for_room(aim: ScriptedAim) -> None:
    async def verify_one(session: AimSession) -> None:
        chunk = await session.receive()
        assert chunk is not None
        await session.verify(chunk)
        await session.closed.wait()

    aim.script = verify_one
    envoy = SlowEnvoy(*request(streamed=True))
    # The deadline for Aim's silence must not end the stream here.
    async with serving(aim, envoy, limits={"held_bytes": 65536}, aim={"verdict_timeout_seconds": 3600}) as running:
        envoy.take(None, None)
        assert [await envoy.offered.get() for _ in range(2)] == list(ORDER[:2])
        envoy.send(SSE, piece("a"))
        assert await envoy.offered.get() == "response_headers"
        envoy.send(*(piece("x" * 16_000) for _ in range(5)))
        while envoy.sent.qsize() > 3:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        envoy.take(grpc.aio.InternalError("gone"))
        assert isinstance(await running, Reset)
    assert not envoy.sent.empty()


async def test_cancellation_counts_while_the_stream_ends(aim: ScriptedAim) -> None:
    """gRPC's cancellation counts even if something else ends the stream in the same turn of the event loop."""
    async with serving(aim, SlowEnvoy(), Patience(first_seconds=0)) as running:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0, running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert running.cancelled()


async def test_refusal_that_envoy_does_not_read_ends_in_a_reset(aim: ScriptedAim) -> None:
    async def judge(_: Question) -> Answer:
        return block("no")

    aim.judge = judge
    envoy = SlowEnvoy(*request(streamed=False))
    async with serving(aim, envoy, Patience(last_seconds=0.01)) as running:
        envoy.take(None)
        assert [await envoy.offered.get() for _ in range(2)] == ["request_headers", "immediate_response"]
        assert isinstance(await running, Reset)
        envoy.take(None)


async def test_end_waits_for_a_writer_that_has_not_begun(aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a clean end before the refusal, Envoy would let everything pass."""
    may_begin = asyncio.Event()
    start = AimClient.start

    def start_late(client: AimClient, work: Any, *arguments: Any) -> asyncio.Task[None]:
        async def late() -> None:
            await may_begin.wait()
            await work(*arguments)

        return start(client, late) if work.__name__ == "write" else start(client, work, *arguments)

    async def block_it(session: AimSession) -> None:
        await session.receive()
        await session.block("no")

    aim.script = block_it
    monkeypatch.setattr(AimClient, "start", start_late)
    envoy = SlowEnvoy(*request(streamed=True))
    async with serving(aim, envoy) as running:
        envoy.take(None, None, None)
        assert [await envoy.offered.get() for _ in range(2)] == list(ORDER[:2])
        envoy.send(SSE, piece("a"))
        while not aim.sessions:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        await aim.sessions[0].closed.wait()
        envoy.send(grpc.aio.EOF)
        assert await running is None
        assert envoy.offered.get_nowait() == "immediate_response"
        may_begin.set()
