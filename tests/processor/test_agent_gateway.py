"""The message sequences of agentgateway's ext_proc client, replayed against the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode

from extproc.processor.stream import PATIENT, Patience
from tests.envoy.case import allows, blocks, redacts
from tests.fakes.agent_gateway import JSON, OWN, AgentGateway, Forwarded, Message, Refused, agent_gateway
from tests.fakes.aim import AimSession, Question, ScriptedAim, allow
from tests.fakes.rig import DONE, chat_answer, chat_event, chat_request, chat_stream
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

REQUEST = json.dumps(chat_request("my secret")).encode()
STREAMED = Message(body=[json.dumps(chat_request("Hello", stream=True)).encode()])
SSE = (("content-type", "text/event-stream"),)
ANSWER = chat_answer("Hi")
FULL_DUPLEX = (Mode.FULL_DUPLEX_STREAMED, Mode.FULL_DUPLEX_STREAMED)
BUFFERED = (Mode.BUFFERED, Mode.FULL_DUPLEX_STREAMED)

ENDS = {
    "a last piece": Message(body=[REQUEST[:10], REQUEST[10:]], is_length_known=True),
    "an empty piece": Message(body=[REQUEST[:10], REQUEST[10:]]),
    "trailers": Message(body=[REQUEST], trailers=(("x-end", "1"),)),
}


class Chain:
    """A scripted Aim, a sidecar, and streams of agentgateway to it."""

    def __init__(self, aim: ScriptedAim, guard: Sidecar, stack: AsyncExitStack) -> None:
        self.aim = aim
        self.guard = guard
        self._stack = stack

    async def gateway(self, **options: Any) -> AgentGateway:
        """Open a stream."""
        return await self._stack.enter_async_context(agent_gateway(f"127.0.0.1:{self.guard.port}", **options))

    async def idle(self) -> None:
        """Wait until the sidecar serves no stream."""
        await asyncio.wait_for(self.guard.service.idle.wait(), 10)

    def outcomes(self, outcome: str, dialect: str = "openai-chat") -> float:
        """Return how many exchanges had `outcome`."""
        labels = {"profile": "default", "dialect": dialect, "outcome": outcome}
        return self.guard.metric("extproc_exchanges_total", **labels)


@asynccontextmanager
async def chain(aim: ScriptedAim, patience: Patience = PATIENT, **changes: Any) -> AsyncIterator[Chain]:
    """Run a sidecar for agentgateway."""
    settings = settings_for(aim.base, **{"aim": {"api": "firewall"}, **changes})
    async with sidecar(settings, patience) as guard, AsyncExitStack() as stack:
        yield Chain(aim, guard, stack)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("modes", [FULL_DUPLEX, BUFFERED])
async def test_allowed_exchange_is_unchanged(aim: ScriptedAim, end: str, modes: tuple[int, int]) -> None:
    allows(aim)
    async with chain(aim) as running:
        gateway = await running.gateway(modes=modes)
        upstream = await gateway.request(ENDS[end])
        assert isinstance(upstream, Forwarded)
        assert (upstream.body, upstream.is_whole) == (REQUEST, True)
        answer = await gateway.response(Message(body=[ANSWER[:9], ANSWER[9:]]))
        assert isinstance(answer, Forwarded)
        assert (answer.body, answer.is_whole) == (ANSWER, True)
        assert answer.headers["x-aim-call-id"]
        assert await gateway.end() is grpc.StatusCode.OK
        await running.idle()
        assert running.outcomes("allowed") == 1


@pytest.mark.parametrize(
    ("answer", "action"), [(Message(body=[ANSWER]), "allow"), (Message(SSE, chat_stream("One")), "")]
)
async def test_agentgateway_keeps_the_verdicts_that_come_with_headers(
    aim: ScriptedAim, answer: Message, action: str
) -> None:
    """The verdict of a stream comes later, so agentgateway drops it."""
    allows(aim)
    async with chain(aim) as running:
        gateway = await running.gateway()
        await gateway.request(STREAMED)
        assert gateway.actions["request"] == "allow"
        await gateway.response(answer)
    assert gateway.actions["response"] == action


@pytest.mark.parametrize("modes", [FULL_DUPLEX, BUFFERED])
async def test_redaction_reaches_the_model(aim: ScriptedAim, modes: tuple[int, int]) -> None:
    redacts("secret", "[X]")(aim)
    async with chain(aim) as running:
        gateway = await running.gateway(modes=modes)
        message = Message((*JSON, ("content-length", str(len(REQUEST)))), [REQUEST], is_length_known=True)
        upstream = await gateway.request(message)
    assert isinstance(upstream, Forwarded)
    assert json.loads(upstream.body) == chat_request("my [X]")


@pytest.mark.parametrize("modes", [FULL_DUPLEX, BUFFERED])
async def test_block_takes_the_place_of_the_request(aim: ScriptedAim, modes: tuple[int, int]) -> None:
    blocks("secret")(aim)
    async with chain(aim) as running:
        gateway = await running.gateway(modes=modes)
        answer = await gateway.request(ENDS["an empty piece"])
        await gateway.end()
        await running.idle()
        assert running.outcomes("blocked") == 1
    assert isinstance(answer, Refused)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["code"] == "content_policy_violation"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("modes", "count"), [(FULL_DUPLEX, 30), (BUFFERED, 2)])
async def test_large_upload_on_another_path_passes(aim: ScriptedAim, modes: tuple[int, int], count: int) -> None:
    """In BUFFERED, agentgateway buffers 2 MiB, and sends them although the sidecar has said CONTINUE_AND_REPLACE."""
    pieces = [b"\0" * 1_000_000] * count
    async with chain(aim) as running:
        gateway = await running.gateway(modes=modes)
        upload = Message((("content-type", "application/octet-stream"),), pieces)
        upstream = await gateway.request(upload, path="/v1/files/upload")
        assert isinstance(upstream, Forwarded)
        assert upstream.body == b"".join(pieces)
        answer = await gateway.response(Message(body=[b"{}"]))
        assert answer.body == b"{}"
        assert await gateway.end() is grpc.StatusCode.OK
    assert aim.questions == []


@pytest.mark.parametrize("status", [200, 204])
async def test_exchange_without_bodies_passes(aim: ScriptedAim, status: int) -> None:
    async with chain(aim) as running:
        gateway = await running.gateway()
        assert isinstance(await gateway.request(Message(), method="GET", path="/v1/models"), Forwarded)
        answer = await gateway.response(Message(), status=status)
        assert isinstance(answer, Forwarded)
        assert await gateway.end() is grpc.StatusCode.OK


async def test_error_of_the_model_arrives(aim: ScriptedAim) -> None:
    allows(aim)
    async with chain(aim) as running:
        gateway = await running.gateway()
        await gateway.request(ENDS["an empty piece"])
        answer = await gateway.response(Message(body=[b'{"error":{"message":"down"}}']), status=500)
    assert (answer.headers[":status"], answer.body) == ("500", b'{"error":{"message":"down"}}')


async def test_answer_that_breaks_the_policy_is_refused(aim: ScriptedAim) -> None:
    blocks("secret")(aim)
    async with chain(aim) as running:
        gateway = await running.gateway()
        await gateway.request(STREAMED)
        answer = await gateway.response(Message(body=[chat_answer("a secret")]))
    assert isinstance(answer, Refused)
    assert answer.status == 400


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailers", [(), (("x-end", "1"),)])
async def test_stream_arrives_whole_although_the_request_half_ends_first(
    aim: ScriptedAim, trailers: tuple[tuple[str, str], ...]
) -> None:
    """With the last piece of an answer agentgateway ends its half of the stream. Aim has not verified all by then."""
    events = chat_stream("One", " two", " three")
    all_sent = asyncio.Event()

    async def script(session: AimSession) -> None:
        chunks = []
        while (chunk := await session.receive()) is not None:
            chunks.append(chunk)
            if len(chunks) == 1:
                await session.verify(chunks.pop())
        await all_sent.wait()
        for each in chunks:
            await session.verify(each)
        await session.done()

    aim.judge, aim.script = allow, script
    async with chain(aim) as running:
        gateway = await running.gateway()
        await gateway.request(STREAMED)
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(gateway.response(Message(SSE, events, trailers)))
            await gateway.half_closed.wait()
            all_sent.set()
        answer = answering.result()
        assert isinstance(answer, Forwarded)
        assert (answer.body, answer.is_whole) == (b"".join(events), True)
        assert await gateway.end() is grpc.StatusCode.OK
        await running.idle()
        assert running.outcomes("allowed") == 1


async def test_redacted_stream_arrives_without_the_secret(aim: ScriptedAim) -> None:
    redacts("secret", "[X]")(aim)
    async with chain(aim) as running:
        gateway = await running.gateway()
        await gateway.request(STREAMED)
        answer = await gateway.response(Message(SSE, chat_stream("a secret", " more")))
    assert answer.is_whole
    assert b"a [X]" in answer.body
    assert b"secret" not in answer.body
    assert answer.body.endswith(DONE)


async def test_stream_that_is_blocked_half_way_ends_with_an_error_event(aim: ScriptedAim) -> None:
    """agentgateway reads the model's answer on until the sidecar ends the gRPC stream."""
    blocks("secret")(aim)
    async with chain(aim, Patience(last_seconds=0.1), profiles={"default": {"stream_head_seconds": 0}}) as running:
        gateway = await running.gateway()
        await gateway.request(STREAMED)
        events = [chat_event("fine"), chat_event("secret"), *[chat_event("more")] * 50]
        answer = await gateway.response(Message(SSE, events))
        assert isinstance(answer, Forwarded)
        assert answer.is_whole
        assert b"content_policy_violation" in answer.body
        assert b"secret" not in answer.body
        assert answer.body.endswith(DONE)
        assert await gateway.end() is grpc.StatusCode.OK


async def test_answer_that_breaks_off_is_not_completed(aim: ScriptedAim) -> None:
    """agentgateway then ends the body as if it were whole: it lacks `[DONE]`."""
    allows(aim)
    async with chain(aim) as running:
        gateway = await running.gateway()
        await gateway.request(STREAMED)
        answer = await gateway.response(Message(SSE, [chat_event("One")], is_cut=True))
        await running.idle()
        assert running.outcomes("aborted") == 1
    assert DONE not in answer.body


# -- ends -------------------------------------------------------------------------------------------------------------


async def test_answer_of_its_own_ends_the_exchange(aim: ScriptedAim) -> None:
    """If the model cannot be reached, agentgateway answers by itself and sends nothing of it to the sidecar."""
    allows(aim)
    async with chain(aim) as running:
        gateway = await running.gateway()
        assert isinstance(await gateway.request(STREAMED), Forwarded)
        await gateway.end()
        await running.idle()
        assert running.outcomes("aborted") == 1
        assert running.guard.service.load.held_bytes == 0


@pytest.mark.parametrize("is_late", [False, True])
async def test_block_while_the_model_works_reaches_the_client(aim: ScriptedAim, is_late: bool) -> None:
    """agentgateway hands it on once the model has answered. By then the sidecar may have ended the stream."""
    blocks("secret")(aim)
    patience = Patience(last_seconds=0.05 if is_late else 5)
    async with chain(aim, patience, profiles={"default": {"hooks": ["moderation"]}}) as running:
        gateway = await running.gateway()
        message = Message(body=[REQUEST], is_length_known=True)
        assert isinstance(await gateway.request(message), Forwarded)
        await gateway.refused.wait()
        if is_late:
            await gateway.ended
        answer = await gateway.response(Message(body=[ANSWER]))
    if is_late:
        assert answer == OWN
    else:
        assert answer.status == 400
        assert json.loads(answer.body)["error"]["code"] == "content_policy_violation"


async def test_profile_comes_from_metadata_or_attribute(aim: ScriptedAim) -> None:
    asked: list[Question] = []

    async def judge(question: Question) -> Any:
        asked.append(question)
        return await allow(question)

    aim.judge = judge
    profiles = {"default": {"hooks": []}, "named": {}, "routed": {"routes": ["default/models"]}}
    async with chain(aim, profiles=profiles) as running:
        for options in (
            {"metadata": (("x-extproc-profile", "named"),)},
            {"attributes": {"xds.route_name": "default/models"}},
        ):
            gateway = await running.gateway(**options)
            await gateway.request(ENDS["an empty piece"])
            await gateway.end()
        await running.idle()
        labels = {"dialect": "openai-chat", "outcome": "aborted"}
        counts = [
            running.guard.metric("extproc_exchanges_total", profile=name, **labels) for name in ("named", "routed")
        ]
    assert (len(asked), counts) == (2, [1, 1])
