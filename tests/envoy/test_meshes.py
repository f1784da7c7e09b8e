"""Exchanges through a real Envoy with the configuration that the meshes' controllers generate from our resources."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import pytest_asyncio

from extproc.check import Severity
from extproc.check.envoy import check_envoy
from extproc.check.finding import Finding
from extproc.config.address import Address
from extproc.config.settings import Settings
from tests.envoy.case import allows, blocks, fails, redacts
from tests.envoy.test_check import old_envoy
from tests.fakes.beds import MESHES, bed
from tests.fakes.client import exchange
from tests.fakes.rig import CHAT, Rig, chat_answer, chat_event, chat_stream
from tests.fakes.upstream import Received, pieces, whole

pytestmark = pytest.mark.asyncio(loop_scope="package")

ANSWER = chat_answer("Hi")
UPLOAD = "application/octet-stream"


class Beds:
    """The beds that these tests share. Each starts when it is first needed."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._running: dict[str, Rig] = {}

    async def get(self, mesh: str) -> Rig:
        if mesh not in self._running:
            self._running[mesh] = await self._stack.enter_async_context(bed(mesh))
        chain = self._running[mesh]
        chain.reset()
        chain.upstream.answer = whole(ANSWER)
        return chain


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def beds() -> AsyncIterator[Beds]:
    async with AsyncExitStack() as stack:
        yield Beds(stack)


@pytest_asyncio.fixture(loop_scope="package", params=MESHES)
async def chain(beds: Beds, request: pytest.FixtureRequest) -> Rig:
    return await beds.get(request.param)


def code_of(answer: Any) -> str:
    return str(answer.json()["error"]["code"])


# -- requests ---------------------------------------------------------------------------------------------------------


async def test_allowed_request_reaches_the_model_unchanged(chain: Rig) -> None:
    allows(chain.aim)
    answer = await chain.chat("Hello")
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert chain.upstream.requests[0].body == answer.request.content
    assert answer.headers["x-aim-call-id"]


async def test_blocked_request_does_not_reach_the_model(chain: Rig) -> None:
    blocks("secret")(chain.aim)
    answer = await chain.chat("my secret")
    assert (answer.status_code, code_of(answer)) == (400, "content_policy_violation")
    assert chain.upstream.requests == []


async def test_redacted_request_reaches_the_model_without_the_secret(chain: Rig) -> None:
    redacts("secret", "[X]")(chain.aim)
    answer = await chain.chat("my secret")
    assert answer.status_code == 200
    assert b"my [X]" in chain.upstream.requests[0].body
    assert b"secret" not in chain.upstream.requests[0].body


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
async def test_large_prompt_is_judged(chain: Rig, size: int) -> None:
    redacts("secret", "[X]")(chain.aim)
    answer = await chain.chat("x" * size + " secret")
    assert answer.status_code == 200
    assert chain.upstream.requests[0].body.endswith(b' [X]"}]}')


async def test_large_upload_on_another_path_passes(chain: Rig) -> None:
    piece, count = b"\0" * 1_000_000, 30

    async def body() -> AsyncIterator[bytes]:
        yield piece
        # Envoy refuses what exceeds its buffer before the sidecar has let the headers pass.
        with suppress(TimeoutError):
            await asyncio.wait_for(chain.upstream.begun.wait(), 10)
        for _ in range(count - 1):
            yield piece

    chain.upstream.answer = whole(b"stored", content_type=UPLOAD)
    answer = await chain.client.post("/v1/files", content=body(), headers={"content-type": UPLOAD})
    assert answer.status_code == 200
    assert answer.content == b"stored"
    assert chain.upstream.requests[0].body == piece * count
    assert chain.aim.questions == []


async def test_escaped_slash_in_a_path_reaches_the_model(chain: Rig) -> None:
    allows(chain.aim)
    path = "/model/arn:aws:bedrock:eu-west-1:1:inference-profile%2Feu.m/converse"
    body = b'{"messages":[{"role":"user","content":[{"text":"Hello"}]}]}'
    got = await exchange(str(chain.client.base_url), "POST", path, [("content-type", "application/json")], body)
    assert got.status == 200
    assert chain.upstream.requests[0].path == path


async def test_head_request_passes(chain: Rig) -> None:
    async def answer(request: Received) -> None:
        await request.head(200, [("content-type", "application/json"), ("content-length", "5")])

    chain.upstream.answer = answer
    answered = await chain.client.head("/v1/models")
    assert (answered.status_code, answered.content) == (200, b"")
    assert chain.upstream.requests[0].method == "HEAD"


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_verified_stream_arrives_byte_for_byte(chain: Rig) -> None:
    allows(chain.aim)
    events = chat_stream("One", " two", " three")
    chain.upstream.answer = pieces(events)
    answer = await chain.chat("Hello", stream=True)
    assert (answer.status_code, answer.content) == (200, b"".join(events))


async def test_stream_with_trailers_ends(chain: Rig) -> None:
    allows(chain.aim)
    events = chat_stream("One")
    chain.upstream.answer = pieces(events, trailers=[("x-end", "1")])
    answer = await chain.chat("Hello", stream=True)
    assert (answer.status_code, answer.content) == (200, b"".join(events))


async def test_blocked_stream_becomes_an_error(chain: Rig) -> None:
    blocks("secret")(chain.aim)
    chain.upstream.answer = pieces(chat_stream("a secret", " more"))
    answer = await chain.chat("Hello", stream=True)
    assert (answer.status_code, code_of(answer)) == (400, "content_policy_violation")


async def test_redacted_stream_arrives_without_the_secret(chain: Rig) -> None:
    redacts("secret", "[X]")(chain.aim)
    chain.upstream.answer = pieces(chat_stream("a secret", " more"))
    answer = await chain.chat("Hello", stream=True)
    assert answer.status_code == 200
    assert "a [X]" in answer.text
    assert "secret" not in answer.text


async def test_error_of_the_model_arrives(chain: Rig) -> None:
    allows(chain.aim)
    chain.upstream.answer = whole(b'{"error":{"message":"down"}}', status=500)
    answer = await chain.chat("Hello")
    assert (answer.status_code, answer.json()) == (500, {"error": {"message": "down"}})


@pytest.mark.long
async def test_slow_stream_is_not_cut_off(chain: Rig) -> None:
    """It lasts longer than the default timeouts of a route (15 s) and of Envoy Gateway's gRPC service (10 s)."""
    allows(chain.aim)

    async def answer(request: Received) -> None:
        await request.head(headers=[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        for number in range(25):
            await request.chunk(chat_event(f"{number} "))
            await asyncio.sleep(1)
        await request.chunk(b"data: [DONE]\n\n")
        await request.end()

    chain.upstream.answer = answer
    got = await chain.chat("Hello", stream=True)
    assert got.status_code == 200
    assert got.text.endswith("[DONE]\n\n")
    assert "24 " in got.text


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_without_aim_nothing_passes(chain: Rig) -> None:
    fails(503)(chain.aim)
    answer = await chain.chat("Hello")
    assert (answer.status_code, code_of(answer)) == (503, "guardrail_unavailable")
    assert chain.upstream.requests == []


@pytest.mark.parametrize("mesh", MESHES)
async def test_without_a_sidecar_nothing_passes(mesh: str) -> None:
    async with bed(mesh) as chain:
        await chain.sidecar.server.stop(0)
        for path in (CHAT, "/v1/files"):
            answer = await chain.client.post(path, json={"messages": []})
            # kgateway cannot set the status.
            assert answer.status_code == (500 if mesh == "kgateway" else 503)
        assert chain.upstream.requests == []


# -- check --envoy ----------------------------------------------------------------------------------------------------


def settings_of(chain: Rig) -> Settings:
    here = Address(host="127.0.0.1", port=chain.sidecar.port)
    return chain.sidecar.service.settings.model_copy(update={"listen": here})


def is_default(finding: Finding) -> bool:
    """Return whether a finding is the one about the default of `user_email`."""
    return finding.severity is Severity.WARNING and "name another person" in finding.what


async def test_check_warns_that_clients_name_the_caller_but_not_of_apps_that_do(chain: Rig) -> None:
    findings = await check_envoy(settings_of(chain), chain.envoy.admin)
    is_outbound = any(name == "virtualOutbound" for name in chain.envoy.urls)
    assert sum(map(is_default, findings)) == (not is_outbound)


async def test_check_has_no_finding(chain: Rig) -> None:
    await chain.chat("Hello")
    findings = await check_envoy(settings_of(chain), chain.envoy.admin)
    assert [str(finding) for finding in findings[1:] if not is_default(finding)] == old_envoy(findings)
    # A waypoint also has a chain that only ends tunnels.
    assert re.search("1 of [12] HTTP filter chains have the filter", findings[0].what)


async def test_check_warns_of_inspecting_all_that_an_app_sends() -> None:
    async with bed("istio-outbound", profiles={"default": {}, "quiet": {"unmatched": "pass"}}) as chain:
        findings = await check_envoy(settings_of(chain), chain.envoy.admin)
    (found,) = [finding for finding in findings if "all JSON that this app sends" in finding.what]
    assert found.severity is Severity.WARNING
    assert found.advice == "set profiles.default.unmatched: pass"


def listener_of(tree: Any) -> Any:
    return tree["static_resources"]["listeners"][0]


def manager_of(tree: Any) -> Any:
    (chain,) = listener_of(tree).get("filter_chains") or [listener_of(tree)["default_filter_chain"]]
    return chain["filters"][0]["typed_config"]


def filter_of(tree: Any) -> Any:
    (found,) = [each for each in manager_of(tree)["http_filters"] if "aim" in each["name"]]
    return found


def processor_of(tree: Any) -> Any:
    """Return the ExternalProcessor, which kgateway wraps."""
    config = filter_of(tree)["typed_config"]
    if "xds_matcher" not in config:
        return config
    (matcher,) = config["xds_matcher"]["matcher_list"]["matchers"]
    return matcher["on_match"]["action"]["typed_config"]["typed_config"]["typed_config"]


def route_of(tree: Any) -> Any:
    return manager_of(tree)["route_config"]["virtual_hosts"][0]["routes"][0]


def cluster_of(tree: Any, word: str) -> Any:
    (found,) = [each for each in tree["static_resources"]["clusters"] if word in each["name"]]
    return found


def modes(tree: Any, **changes: Any) -> None:
    for name, value in changes.items():
        processor_of(tree)["processing_mode"][name] = value


def duration(tree: Any, word: str) -> None:
    options = cluster_of(tree, word).setdefault("typed_extension_protocol_options", {})
    type_ = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    found = options.setdefault(
        type_, {"@type": f"type.googleapis.com/{type_}", "explicit_http_config": {"http_protocol_options": {}}}
    )
    found["common_http_protocol_options"] = {"max_stream_duration": "5s"}


def off_on_route(tree: Any) -> None:
    """Turn the guard off as each controller does it."""
    per_route = route_of(tree).setdefault("typed_per_filter_config", {})
    name = filter_of(tree)["name"]
    if name.startswith("ext_proc/"):
        per_route["global_disable/ext_proc"] = {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "config": {},
        }
    elif name in per_route:
        del per_route[name]
    else:
        type_ = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
        per_route[name] = {"@type": type_, "disabled": True}


def small_buffer(tree: Any) -> None:
    listener_of(tree)["per_connection_buffer_limit_bytes"] = 32768
    route_of(tree).pop("request_body_buffer_limit", None)


def breaker(tree: Any, word: str) -> None:
    cluster_of(tree, word)["circuit_breakers"] = {"thresholds": [{"max_requests": 1024}]}


MISTAKES: dict[str, Callable[[Any], None]] = {
    "the request's body is sent as NONE": lambda tree: modes(tree, request_body_mode="NONE"),
    "the response's body is sent as BUFFERED": lambda tree: modes(
        tree, response_body_mode="BUFFERED", response_trailer_mode="SKIP"
    ),
    "without a sidecar everything passes unguarded": lambda tree: processor_of(tree).update(failure_mode_allow=True),
    "the ext_proc filter is turned off here": off_on_route,
    "Envoy waits 0.2 s for a verdict": lambda tree: processor_of(tree).update(message_timeout="0.2s"),
    "answers that take longer than 15 s are cut off": lambda tree: route_of(tree)["route"].update(timeout="15s"),
    "its circuit breaker lets 1,024 exchanges": lambda tree: breaker(tree, "aim-extproc"),
    "Envoy refuses requests beyond 32,768 bytes": small_buffer,
    "answers that take longer than 5 s are cut off": lambda tree: duration(tree, "models"),
    "exchanges that take longer than 5 s are cut off": lambda tree: duration(tree, "aim-extproc"),
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("said", MISTAKES)
async def test_check_names_each_mistake(mesh: str, said: str) -> None:
    edit = MISTAKES[said]
    async with bed(mesh, edit) as chain:
        findings = await check_envoy(settings_of(chain), chain.envoy.admin)
    errors = [str(finding) for finding in findings if finding.severity is Severity.ERROR]
    assert any(said in line for line in errors), findings
