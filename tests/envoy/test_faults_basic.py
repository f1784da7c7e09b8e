"""Faults that are not in the matrix: secrets, misconfigured filters, moderation, backpressure, concurrency."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from tests.envoy.apis import CHAT
from tests.envoy.case import blocks, says, shared
from tests.fakes.aim import AimSession, Question, allow, anonymize, echo
from tests.fakes.client import exchange
from tests.fakes.rig import Rig, Rigs, manager_of, rig
from tests.fakes.upstream import Received, pieces, whole

pytestmark = pytest.mark.asyncio(loop_scope="package")

JSON = (("content-type", "application/json"),)
ASK = CHAT.request("Hello")
ASK_STREAM = CHAT.request("Hello", stream=True)
EVENTS = CHAT.events("One", " two", " three")
EVENT_STREAM = [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]
SECONDS = 60.0


async def ask(chain: Rig, body: bytes = ASK_STREAM, path: str = CHAT.path) -> Any:
    async with asyncio.timeout(SECONDS):
        return await exchange(chain.envoy.url, "POST", path, JSON, body)


async def ended(chain: Rig) -> None:
    """Wait until nothing of the last exchange is left in the sidecar."""
    async with asyncio.timeout(SECONDS):
        await chain.sidecar.service.idle.wait()
        for session in chain.aim.sessions:
            await session.closed.wait()
    assert chain.sidecar.service.load.held_bytes == 0
    assert chain.sidecar.metric("extproc_sessions") == 0


def code_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


# -- Aim fails ----------------------------------------------------------------------------------------------------


_ANSWERS: dict[str, Any] = {
    "key_refused": (401, {"detail": "Invalid API token: key-1234"}),
    "rejected": (422, {"detail": "my prompt"}),
    "rate_limited": (429, b""),
    "server_error": (500, b"Traceback: my prompt"),
    "unreadable_answer": (200, b"<html>my prompt"),
    "unknown_action": {"required_action": {"action_type": "my prompt"}},
}


@pytest.mark.parametrize("reason", _ANSWERS)
async def test_answer_of_aim_is_not_shown_to_the_client(rigs: Rigs, reason: str) -> None:
    chain = await shared(rigs, "firewall")
    counted = {"name": "extproc_detection_errors_total", "hook": "pre_call", "reason": reason}
    before = chain.sidecar.metric(**counted)
    says(_ANSWERS[reason])(chain.aim)
    with structlog.testing.capture_logs() as logs:
        got = await ask(chain, CHAT.request("my prompt"))
        await ended(chain)
    assert (got.status, code_of(got.body)) == (503, "guardrail_unavailable")
    for secret in ("my prompt", "key-1234", "Traceback", "test-key"):
        assert secret not in got.body.decode()
        assert secret not in str(logs)
    assert chain.upstream.requests == []
    assert chain.sidecar.metric(**counted) - before == 1


# -- the sidecar is missing, or its filter is wired wrongly ---------------------------------------------------------


async def test_without_the_sidecar_nothing_passes_not_even_unmatched_paths() -> None:
    def close_port(tree: Any) -> None:
        (endpoints,) = tree["static_resources"]["clusters"][0]["load_assignment"]["endpoints"]
        endpoints["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = 1

    async with rig(edit=close_port) as chain:
        got = await ask(chain, path="/v1/files")
        assert got.status == 503
        assert chain.upstream.requests == []


_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
_FULL_DUPLEX = {"response_body_mode": "FULL_DUPLEX_STREAMED", "response_trailer_mode": "SEND"}
_WIRINGS: dict[str, dict[str, str]] = {
    "response_body_mode is NONE": {"response_body_mode": "NONE"},
    # The defaults of Google Cloud's callouts.
    "response_body_mode is STREAMED": {"request_body_mode": "STREAMED", "response_body_mode": "STREAMED"},
    "response_body_mode is BUFFERED": {"response_body_mode": "BUFFERED"},
    "response_body_mode is BUFFERED_PARTIAL": {"response_body_mode": "BUFFERED_PARTIAL"},
    "request_body_mode is NONE": {"request_body_mode": "NONE", **_FULL_DUPLEX},
    "request_body_mode is STREAMED": {"request_body_mode": "STREAMED", **_FULL_DUPLEX},
    "request_body_mode is BUFFERED_PARTIAL": {"request_body_mode": "BUFFERED_PARTIAL", **_FULL_DUPLEX},
}
_USUAL = {"request_header_mode": "SEND", "response_header_mode": "SEND", "request_body_mode": "BUFFERED"}


async def test_misconfigured_filter_is_refused_and_its_setting_named() -> None:
    """One Envoy has a route for each misconfiguration. Each of them would let unjudged content pass."""

    def wire_wrongly(tree: Any) -> None:
        (host,) = manager_of(tree)["route_config"]["virtual_hosts"]
        (usual,) = host["routes"]
        for number, modes in enumerate(_WIRINGS.values()):
            per_route = {"@type": _PER_ROUTE, "overrides": {"processing_mode": _USUAL | modes}}
            wrong = json.loads(json.dumps(usual)) | {"name": str(number), "match": {"prefix": f"/{number}/"}}
            wrong["typed_per_filter_config"] = {"envoy.filters.http.ext_proc": per_route}
            host["routes"].insert(0, wrong)

    async with rig(edit=wire_wrongly) as chain:
        for number, problem in enumerate(_WIRINGS):
            with structlog.testing.capture_logs() as logs:
                got = await ask(chain, ASK, f"/{number}{CHAT.path}")
                await ended(chain)
            assert got.status == 503, problem
            (error,) = [log for log in logs if log["log_level"] == "error"]
            assert f"processing_mode.{problem}; set it to " in error["problem"]
        assert chain.upstream.requests == []
        assert chain.aim.questions == []
        for entry in await chain.envoy.access_log(len(_WIRINGS)):
            assert "gRPC_error_9" in entry["details"]  # FAILED_PRECONDITION


async def test_filter_that_only_observes_is_refused_and_logged() -> None:
    """Such a filter guards nothing. Whether Envoy passes the exchange, too, depends on when the refusal arrives."""

    def observe(tree: Any) -> None:
        config = manager_of(tree)["http_filters"][0]["typed_config"]
        config["observability_mode"] = True
        # Envoy accepts no full duplex then.
        config["processing_mode"] = _USUAL | {"request_body_mode": "STREAMED", "response_body_mode": "STREAMED"}

    async with rig(edit=observe) as chain:
        chain.upstream.answer = whole(b"{}")
        with structlog.testing.capture_logs() as logs:
            got = await ask(chain, ASK)
            async with asyncio.timeout(SECONDS):
                while not (errors := [log for log in logs if log["log_level"] == "error"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await ended(chain)
        assert got.status in (200, 503)
        assert chain.aim.questions == []
        (error,) = errors
        assert "only observes (observability_mode" in error["problem"]
        assert "assume_full_duplex" not in error["problem"]


async def test_filter_without_request_headers_lets_nothing_pass() -> None:
    def without_headers(tree: Any) -> None:
        manager_of(tree)["http_filters"][0]["typed_config"]["processing_mode"]["request_header_mode"] = "SKIP"

    async with rig(edit=without_headers) as chain:
        got = await ask(chain, ASK)
        assert got.status == 503
        assert chain.upstream.requests == []
        await ended(chain)


# -- moderation -----------------------------------------------------------------------------------------------------


async def test_moderation_and_the_model_run_in_parallel(rigs: Rigs) -> None:
    chain = await shared(rigs, "moderation")
    order: list[str] = []
    asked, answered = asyncio.Event(), asyncio.Event()

    async def judge(question: Question) -> Any:
        order.append("Aim asked")
        asked.set()
        await answered.wait()  # this would hang if the model waited for Aim
        order.append("Aim answers")
        return await allow(question)

    async def answer(request: Received) -> None:
        await asked.wait()  # this would hang if Aim were called after the model
        await pieces(EVENTS)(request)
        order.append("model answers")
        answered.set()

    chain.aim.judge, chain.upstream.answer = judge, answer
    got = await ask(chain)
    order.append("client has it")
    assert (got.status, got.body) == (200, b"".join(EVENTS))
    assert order == ["Aim asked", "model answers", "Aim answers", "client has it"]
    await ended(chain)


async def test_block_of_moderation_ends_the_model(rigs: Rigs) -> None:
    chain = await shared(rigs, "moderation")
    blocks("secret")(chain.aim)
    refuse = chain.aim.judge

    async def judge(question: Question) -> Any:
        await chain.upstream.arrived.wait()
        return await refuse(question)

    async def answer(request: Received) -> None:
        await request.gone.wait()

    chain.aim.judge, chain.upstream.answer = judge, answer
    got = await ask(chain, CHAT.request("secret"))
    assert (got.status, code_of(got.body)) == (400, "content_policy_violation")
    async with asyncio.timeout(SECONDS):
        await chain.upstream.requests[0].gone.wait()
    await ended(chain)


# -- backpressure ---------------------------------------------------------------------------------------------------

_EVENT = CHAT.event(content="x" * 60_000)
_BOUND = 80_000_000
"""The bytes that sockets, gRPC, Envoy and the sidecar may hold together (30 to 45 million were measured)."""
_TOO_MANY = 2 * _BOUND // len(_EVENT)
_MANY = 600


async def stay_silent(session: AimSession) -> None:
    """Never send a frame."""
    while await session.receive() is not None:
        pass


@asynccontextmanager
async def flooded(
    script: Callable[[AimSession], Any], events: int, *, verdict_seconds: float = 1, **profile: Any
) -> AsyncIterator[tuple[Rig, list[int]]]:
    """Run a chain whose model sends `events` events, more than can be held. The list has the number of sent events."""
    limits = {"held_bytes": 262_144}
    aim = {"verdict_timeout_seconds": verdict_seconds}
    async with rig(aim=aim, limits=limits, profiles={"default": profile}) as chain:
        sent = [0]

        async def answer(request: Received) -> None:
            await request.head(headers=EVENT_STREAM)
            for _ in range(events):
                await request.chunk(_EVENT)
                sent[0] += 1
            await request.end()

        chain.aim.script, chain.upstream.answer = script, answer
        yield chain, sent


async def test_silent_aim_pauses_the_model_until_the_policy_applies() -> None:
    async with flooded(stay_silent, _TOO_MANY) as (chain, sent):
        got = await ask(chain)
        assert (got.status, code_of(got.body)) == (503, "guardrail_unavailable")
        assert sent[0] * len(_EVENT) < _BOUND
        await ended(chain)


async def test_aim_that_verifies_no_text_ends_in_the_policy() -> None:
    async def chatter(session: AimSession) -> None:
        await session.receive()
        while True:  # a frame now and then that verifies nothing
            await session.verify({"choices": [{"index": 0, "delta": {}}]})
            await asyncio.sleep(0.05)

    # The clock of a full stream must run out before that of Aim's silence, however slow the machine is.
    async with flooded(chatter, _TOO_MANY, verdict_seconds=3) as (chain, sent):
        got = await ask(chain)
        assert (got.status, code_of(got.body)) == (503, "guardrail_overloaded")
        assert sent[0] * len(_EVENT) < _BOUND
        await ended(chain)


async def test_paused_model_continues_if_the_stream_fails_open() -> None:
    async with flooded(stay_silent, _MANY, failure_mode_allow=True) as (chain, sent):
        got = await ask(chain)
        assert (got.status, got.is_whole) == (200, True)
        assert got.body == _EVENT * _MANY
        assert sent[0] == _MANY
        await ended(chain)


async def test_verified_stream_flows_without_a_pause() -> None:
    async with flooded(echo, _MANY, verdict_seconds=60) as (chain, _):
        got = await ask(chain)
        assert (got.status, got.is_whole) == (200, True)
        assert got.body == _EVENT * _MANY
        await ended(chain)


async def test_whole_answer_waits_only_for_aim(rigs: Rigs) -> None:
    """Nothing of the answer reaches the client before Aim has judged it."""
    chain = await shared(rigs, "default")
    order: list[str] = []

    async def judge(question: Question) -> Any:
        order.append(question.hook)
        return await allow(question)

    async def answer(request: Received) -> None:
        order.append("model")
        await whole(CHAT.answer("Hi"))(request)

    chain.aim.judge, chain.upstream.answer = judge, answer
    await ask(chain, ASK)
    order.append("client")
    assert order == ["pre_call", "model", "output", "client"]


async def test_concurrent_exchanges_do_not_mix(rigs: Rigs) -> None:
    """Forty exchanges run at once. Each has a unique name, which Aim replaces by a unique one on both legs."""
    chain = await shared(rigs, "firewall")

    def redact(text: str) -> str:
        return re.sub(r"Jane-(\d+)", r"[NAME_\1]", text)

    async def judge(question: Question) -> Any:
        return anonymize(question, redact)

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            for choice in chunk["choices"]:
                choice["delta"]["content"] = redact(choice["delta"].get("content") or "")
            await session.verify(chunk)
        await session.done()

    async def answer(request: Received) -> None:
        asked = json.loads(request.body)
        (number,) = re.findall(r"\[NAME_(\d+)\]", asked["messages"][0]["content"])
        said = ("I am ", f"Jane-{number}")
        respond = pieces(CHAT.events(*said)) if asked.get("stream") else whole(CHAT.answer("".join(said)))
        await respond(request)

    chain.aim.judge, chain.aim.script, chain.upstream.answer = judge, script, answer
    asked = [CHAT.request(f"Hello Jane-{number}", stream=bool(number % 2)) for number in range(40)]
    answers = await asyncio.gather(*(ask(chain, body) for body in asked))
    for number, got in enumerate(answers):
        said = ("I am ", f"[NAME_{number}]")
        assert got.body == (CHAT.stream(*said) if number % 2 else CHAT.answer("".join(said)))
    await ended(chain)
