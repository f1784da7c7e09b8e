"""Dry runs: everything passes at once and unchanged; detections run in parallel and are only reported."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode

from tests.fakes.aim import AimSession, ScriptedAim, block
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.rig import chat_answer, chat_event, chat_request, chat_stream
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

REQUEST = json.dumps(chat_request("Hello")).encode()
DRY = {"default": {"enforce": False, "unmatched": "block"}}


def address(guard: Sidecar) -> str:
    return f"127.0.0.1:{guard.port}"


async def outcome(guard: Sidecar, name: str) -> float:
    await asyncio.wait_for(guard.service.idle.wait(), 20)
    labels = {"profile": "default", "dialect": "openai-chat", "outcome": name}
    return guard.metric("extproc_exchanges_total", **labels)


async def answered(stream: EnvoyStream, body: bytes, content_type: str) -> list[bytes]:
    """Answer a request; return the released pieces after the end of Envoy's stream."""
    await stream.response_headers(("content-type", content_type))
    await stream.body("response", body)
    assert (await stream.read()).HasField("response_headers")
    passed = [(await stream.read()).response_body.response.body_mutation.streamed_response.body]
    await stream.done()
    assert await stream.read() is None
    return passed


async def test_dry_run_never_waits_and_only_counts_a_block(aim: ScriptedAim) -> None:
    go = asyncio.Event()

    async def judge(question: Any) -> Any:
        await go.wait()
        return block("No.") if question.hook == "output" else {"detected": False}

    aim.judge = judge
    async with sidecar(settings_for(aim.base, profiles=DRY)) as guard:
        async with envoy_stream(address(guard)) as stream:
            await stream.request_headers(("accept-encoding", "gzip"), ("x-aim-user-email", "a@b.c"))
            removed = (await stream.read()).request_headers.response.header_mutation.remove_headers
            assert list(removed) == ["x-aim-user-email"]
            await stream.body("request", REQUEST)
            assert (await stream.read()).HasField("request_body")
            assert await answered(stream, chat_answer("Hi"), "application/json") == [chat_answer("Hi")]
        go.set()  # Aim answers only now, after the end of the exchange
        assert await outcome(guard, "dry_run") == 1
        labels = {"profile": "default", "leg": "response", "hook": "output", "action": "block"}
        assert guard.metric("extproc_verdicts_total", **labels) == 1
        assert guard.service.load.held_bytes == 0


@pytest.mark.parametrize("status", [401, 500])
async def test_dry_run_passes_everything_if_aim_fails(aim: ScriptedAim, status: int) -> None:
    async def judge(_: object) -> Any:
        return (status, {})

    aim.judge = judge
    async with sidecar(settings_for(aim.base, profiles=DRY)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", REQUEST)
        assert (await stream.read()).HasField("request_body")
        assert await answered(stream, b"any", "text/plain") == [b"any"]
        assert await outcome(guard, "dry_run") == 1


async def test_stream_passes_although_its_session_blocks(aim: ScriptedAim) -> None:
    async def script(session: AimSession) -> None:
        await session.receive()
        await session.block("No.")

    aim.script = script
    events = b"".join(chat_stream("a", "secret"))
    async with sidecar(settings_for(aim.base, profiles=DRY)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", json.dumps(chat_request("Hello", stream=True)).encode())
        await stream.read()
        assert await answered(stream, events, "text/event-stream") == [events]
        assert await outcome(guard, "dry_run") == 1
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)


async def test_dry_run_does_not_wait_for_an_aim_that_is_behind(aim: ScriptedAim) -> None:
    go = asyncio.Event()

    async def script(session: AimSession) -> None:
        await session.be_deaf(go)

    aim.script = script
    settings = settings_for(
        aim.base, profiles=DRY, limits={"held_bytes": 100_000_000}, aim={"verdict_timeout_seconds": 300}
    )
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", json.dumps(chat_request("Hello", stream=True)).encode())
        await stream.read()
        await stream.response_headers(("content-type", "text/event-stream"))
        assert (await stream.read()).HasField("response_headers")
        event = chat_stream("x" * 1_000_000)[1]
        async with asyncio.timeout(20):
            for _ in range(20):  # more than the connection to Aim takes
                await stream.body("response", event, end=False)
                taken = 0
                while taken < len(event):
                    taken += len((await stream.read()).response_body.response.body_mutation.streamed_response.body)
        go.set()


async def test_shadow_waits_for_a_slow_moderation(aim: ScriptedAim) -> None:
    go = asyncio.Event()

    async def judge(_: object) -> Any:
        await go.wait()
        return block("No.")

    aim.judge = judge
    profiles = {"default": {"enforce": False, "hooks": ["moderation"]}}
    async with sidecar(settings_for(aim.base, profiles=profiles)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", REQUEST)
        await stream.read()
        assert await answered(stream, b"any", "text/plain") == [b"any"]
        go.set()
        assert await outcome(guard, "dry_run") == 1
        labels = {"profile": "default", "leg": "request", "hook": "moderation", "action": "block"}
        assert guard.metric("extproc_verdicts_total", **labels) == 1


async def test_path_that_would_be_refused_passes(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, profiles=DRY)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers(path="/other")
        assert (await stream.read()).request_headers.response.status == 1  # CONTINUE_AND_REPLACE
        assert await answered(stream, b"x", "text/plain") == [b"x"]


async def test_shadow_ends_when_the_client_leaves(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, profiles=DRY)) as guard:
        async with envoy_stream(address(guard)) as stream:
            await stream.request_headers()
            await stream.read()
            await stream.body("request", json.dumps(chat_request("Hello", stream=True)).encode())
            await stream.read()
            await stream.response_headers(("content-type", "text/event-stream"))
            await stream.body("response", chat_event("a"), end=False)
            for _ in range(2):
                await stream.read()
        assert await outcome(guard, "dry_run") == 1


async def test_shadow_ends_if_it_holds_too_much(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        await asyncio.Event().wait()

    aim.judge = judge
    limits = {"request_bytes": 1024, "response_bytes": 1024}
    settings = settings_for(aim.base, profiles=DRY, limits=limits)
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", REQUEST)
        await stream.read()
        body = b"x" * 4000
        assert await answered(stream, body, "application/json") == [body]
        assert await outcome(guard, "dry_run") == 1
        assert guard.service.load.held_bytes == 0


async def test_shadow_ends_if_the_process_is_overloaded(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        await asyncio.Event().wait()

    aim.judge = judge
    settings = settings_for(
        aim.base, limits={"total_held_bytes": 65536}, profiles={"default": {}, "dry": DRY["default"]}
    )
    async with (
        sidecar(settings) as guard,
        envoy_stream(address(guard), (("x-extproc-profile", "dry"),)) as dry,
        envoy_stream(address(guard)) as other,
    ):
        await dry.request_headers()
        await dry.read()
        await dry.body("request", REQUEST)
        await dry.read()
        await dry.response_headers(("content-type", "application/json"))
        await dry.read()
        await dry.body("response", b"x" * 100_000, end=False)
        await dry.read()
        async with asyncio.timeout(10):
            while guard.service.load.held_bytes:  # noqa: ASYNC110 - the piece counts until gRPC has taken it
                await asyncio.sleep(0)
        await other.request_headers()
        assert (await other.read()).HasField("request_headers")


@pytest.mark.parametrize(("sample", "least", "most"), [(0, 0, 0), (0.5, 1, 59), (1, 60, 60)])
async def test_dry_run_inspects_a_share_of_the_exchanges(
    aim: ScriptedAim, sample: float, least: int, most: int
) -> None:
    profiles = {"default": {"enforce": False, "hooks": ["pre_call"], "sample": sample}}
    async with sidecar(settings_for(aim.base, profiles=profiles)) as guard:
        for _ in range(60):
            async with envoy_stream(address(guard)) as stream:
                await stream.request_headers(modes=(Mode.FULL_DUPLEX_STREAMED, Mode.FULL_DUPLEX_STREAMED))
                assert (await stream.read()).HasField("request_headers")
                await stream.body("request", REQUEST)
                assert (await stream.read()).HasField("request_body")
                await stream.done()
        inspected = await outcome(guard, "dry_run")
        assert least <= inspected <= most
        assert inspected == len(aim.questions)
        assert await outcome(guard, "unmatched") == 60 - inspected


async def test_profile_that_enforces_has_no_sample(aim: ScriptedAim) -> None:
    settings = settings_for(aim.base, profiles={"default": {"sample": 0}})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", REQUEST)
        assert (await stream.read()).HasField("request_body")
        assert len(aim.questions) == 1
