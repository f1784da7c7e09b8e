"""Two tenants behind one sidecar: each Envoy, and each route, has its own profile, key and verdicts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from tests.fakes.aim import AimSession, Answer, Question, ScriptedAim, allow, anonymize, text_of
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.rig import CHAT, bootstrap, chat_answer, chat_request, chat_stream, manager_of, processor_of
from tests.fakes.sidecar import Sidecar, settings_for, sidecar
from tests.fakes.upstream import ScriptedUpstream, pieces, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANTS = ("acme", "globex")
PROFILE = "x-extproc-profile"


@dataclass
class Chain:
    """One Aim, one model and one sidecar; an Envoy for each tenant."""

    aim: ScriptedAim
    upstream: ScriptedUpstream
    guard: Sidecar
    clients: dict[str, httpx.AsyncClient]

    async def chat(self, tenant: str, text: str, *, stream: bool = False, **headers: str) -> httpx.Response:
        request = chat_request(text, stream=stream)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.clients[tenant].post(CHAT, json=request, headers=fields)


def tenant_of(headers: dict[str, str]) -> str:
    """Return the tenant whose key a call has, as Aim would determine it."""
    return headers["authorization"].removeprefix("Bearer key-of-")


async def judge(question: Question) -> Answer:
    """Acme's guard blocks the word `merger`, Globex's redacts the name `Jane`."""
    tenant = tenant_of(question.headers)
    assert tenant in TENANTS
    if tenant == "acme" and "merger" in question.texts[-1]:
        return {
            "analysis_result": {"policy_drill_down": {}},
            "required_action": {
                "action_type": "block_action",
                "policy_name": "M&A",
                "detection_message": "acme says no",
            },
        }
    if tenant == "globex" and "Jane" in question.texts[-1]:
        return anonymize(question, lambda text: text.replace("Jane", "[NAME_1]"))
    return await allow(question)


async def verify(session: AimSession) -> None:
    """Distinguish the tenants in a stream too."""
    tenant = tenant_of(session.headers)
    while (chunk := await session.receive()) is not None:
        if tenant == "globex" and text_of(chunk) == "Jane":
            chunk["choices"][0]["delta"]["content"] = "[NAME_1]"
        if tenant == "acme" and text_of(chunk) == "merger":
            await session.block("acme says no")
            return
        await session.verify(chunk)
    await session.done()


def with_profile(text: str, tenant: str) -> str:
    """Return the bootstrap `text` with the tenant's profile in its filter, as `render istio --profile` prints it."""
    tree = yaml.safe_load(text)
    processor_of(tree)["grpc_service"]["initial_metadata"] = [{"key": PROFILE, "value": tenant}]
    return yaml.safe_dump(tree)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    keys: Path = tmp_path_factory.mktemp("keys")
    profiles: dict[str, Any] = {}
    for tenant in TENANTS:
        (keys / tenant).write_text(f"key-of-{tenant}\n")
        profiles[tenant] = {"api_key_file": keys / tenant}
    profiles["acme"]["models"] = {"lenient-*": "globex"}
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        settings = settings_for(aim.base, aim={"api": "firewall"}, profiles=profiles)
        guard = await stack.enter_async_context(sidecar(settings))
        clients = {}
        for tenant in TENANTS:
            text = with_profile(bootstrap(settings, guard.port, upstream.port), tenant)
            envoy: RunningEnvoy = await stack.enter_async_context(run_envoy(text))
            clients[tenant] = await stack.enter_async_context(
                httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=30)
            )
        yield Chain(aim, upstream, guard, clients)


@pytest.fixture
def chain(running: Chain) -> Chain:
    running.aim.reset()
    running.upstream.reset()
    running.aim.judge, running.aim.script = judge, verify
    return running


def keys_seen(chain: Chain) -> set[str]:
    seen: list[Question | AimSession] = [*chain.aim.questions, *chain.aim.sessions]
    return {tenant_of(each.headers) for each in seen}


async def test_each_tenant_has_its_own_verdicts(chain: Chain) -> None:
    chain.upstream.answer = whole(chat_answer("Fine"))
    text = "Tell Jane of the merger"
    acme, globex = await asyncio.gather(chain.chat("acme", text), chain.chat("globex", text))
    assert acme.status_code == 400
    assert acme.json()["error"]["message"] == "acme says no"
    assert globex.status_code == 200
    (received,) = chain.upstream.requests
    assert b"Tell [NAME_1] of the merger" in received.body
    assert chain.guard.metric("extproc_exchanges_total", profile="acme", dialect="openai-chat", outcome="blocked") == 1


async def test_concurrent_exchanges_of_tenants_are_never_mixed_up(chain: Chain) -> None:
    chain.upstream.answer = whole(chat_answer("Fine"))
    answers = await asyncio.gather(*(chain.chat(TENANTS[number % 2], "merger") for number in range(40)))
    assert [answer.status_code for answer in answers] == [400, 200] * 20
    assert len(chain.upstream.requests) == 20
    asked = [tenant_of(question.headers) for question in chain.aim.asked("pre_call")]
    assert sorted(asked) == ["acme"] * 20 + ["globex"] * 20


async def test_streams_are_judged_by_their_tenants_guard(chain: Chain) -> None:
    chain.upstream.answer = pieces(chat_stream("Hello ", "Jane"))
    acme, globex = await asyncio.gather(*(chain.chat(tenant, "Hi", stream=True) for tenant in TENANTS))
    assert (b"Jane" in acme.content, b"Jane" in globex.content) == (True, False)
    assert b"[NAME_1]" in globex.content
    chain.upstream.answer = pieces(chat_stream("the ", "merger"))
    acme, globex = await asyncio.gather(*(chain.chat(tenant, "Hi", stream=True) for tenant in TENANTS))
    assert b"acme says no" in acme.content
    assert b"merger" not in acme.content
    assert b"merger" in globex.content
    assert keys_seen(chain) == set(TENANTS)


async def test_routes_of_one_envoy_have_the_profile_that_the_documentation_gives_them(chain: Chain) -> None:
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
    (block,) = re.findall(r"^```yaml\n(typed_per_filter_config:\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    settings = chain.guard.service.settings
    tree = yaml.safe_load(bootstrap(settings, chain.guard.port, chain.upstream.port))
    (host,) = manager_of(tree)["route_config"]["virtual_hosts"]
    (route,) = host["routes"]
    host["routes"] = [
        {**route, "match": {"prefix": f"/{tenant}"}, **yaml.safe_load(block.replace("acme", tenant))}
        for tenant in TENANTS
    ]
    chain.upstream.answer = whole(chat_answer("Fine"))
    async with run_envoy(yaml.safe_dump(tree)) as envoy, httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answers = [
            await client.post(f"{envoy.url}/{tenant}{CHAT}", json=chat_request("merger"), headers={PROFILE: "acme"})
            for tenant in TENANTS
        ]
    assert [answer.status_code for answer in answers] == [400, 200]


async def test_client_cannot_choose_its_guard(chain: Chain) -> None:
    chain.upstream.answer = whole(chat_answer("Fine"))
    answer = await chain.chat(
        "acme", "merger", x_extproc_profile="globex", x_aim_key="key-of-globex", authorization="Bearer key-of-globex"
    )
    assert answer.status_code == 400
    assert keys_seen(chain) == {"acme"}


async def test_model_leads_to_another_profile_and_its_key(chain: Chain) -> None:
    chain.upstream.answer = pieces(chat_stream("the ", "merger"))
    request = chat_request("merger", stream=True)
    mesh, model = [
        await chain.clients["acme"].post(CHAT, json=request | {"model": name}) for name in ("strict-1", "Lenient-1")
    ]
    assert (mesh.status_code, model.status_code) == (400, 200)
    assert b"merger" in model.content
    assert [tenant_of(each.headers) for each in chain.aim.questions] == ["acme", "globex"]
    assert [tenant_of(each.headers) for each in chain.aim.sessions] == ["globex"]
    outcomes = {"dialect": "openai-chat", "outcome": "allowed"}
    await asyncio.wait_for(chain.guard.service.idle.wait(), 10)  # Envoy ends the stream after the client's answer
    assert chain.guard.metric("extproc_exchanges_total", profile="globex", **outcomes) >= 1
