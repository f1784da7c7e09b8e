"""Replicas behind Envoy's own load balancing, as in docs/deployment.md: a dead replica costs no exchange."""

from __future__ import annotations

import re
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml

from extproc.config.settings import Settings
from extproc.processor import wire
from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy import run_envoy
from tests.fakes.rig import CHAT, bootstrap, chat_answer, chat_request
from tests.fakes.sidecar import settings_for, sidecar
from tests.fakes.upstream import ScriptedUpstream, whole

ROOT = Path(__file__).parents[2]
EJECTIONS = r"cluster.aim-extproc.outlier_detection.ejections_enforced_total"


def outlier_detection() -> Any:
    page = (ROOT / "docs" / "deployment.md").read_text()
    (block,) = re.findall(r"^```yaml\n(outlier_detection:.*?)^```", page, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(block)


def replicas(settings: Settings, ports: list[int], upstream: int, *, is_rendered: bool) -> str:
    """Return a bootstrap whose sidecars are on `ports`."""
    several = settings.model_copy(update={"workers": len(ports)})
    tree = yaml.safe_load(bootstrap(several, ports[0], upstream))
    cluster = tree["static_resources"]["clusters"][0]
    assert cluster["lb_policy"] == "LEAST_REQUEST"
    if not is_rendered:
        del cluster["health_checks"]
        cluster |= outlier_detection()
    (places,) = cluster["load_assignment"]["endpoints"]
    for place, port in zip(places["lb_endpoints"], ports, strict=True):
        place["endpoint"]["address"]["socket_address"]["port_value"] = port
    return yaml.safe_dump(tree)


@pytest.mark.parametrize("is_rendered", [True, False], ids=["as rendered", "with outlier detection"])
async def test_a_dead_replica_costs_no_exchange(is_rendered: bool) -> None:
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        upstream.answer = whole(chat_answer("Hi"))
        settings = settings_for(aim.base)
        guard = await stack.enter_async_context(sidecar(settings))
        dead = stack.enter_context(socket.socket())
        dead.bind(("127.0.0.1", 0))  # but it does not listen
        ports = [guard.port, dead.getsockname()[1]]
        text = replicas(settings, ports, upstream.port, is_rendered=is_rendered)
        envoy = await stack.enter_async_context(run_envoy(text))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=30))
        answers = [await client.post(CHAT, json=chat_request("Hello")) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        assert await envoy.stat(EJECTIONS) == (0 if is_rendered else 1)


async def failing(stack: AsyncExitStack) -> int:
    """Run an external processor that ends every stream with INTERNAL; return its port."""

    async def process(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.INTERNAL, "")

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(process)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {"Process": method}),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, 0)
    return port


async def test_failed_exchanges_eject_no_replica() -> None:
    async with AsyncExitStack() as stack:
        ports = [await failing(stack), await failing(stack)]
        text = replicas(Settings(), ports, 1, is_rendered=False)
        envoy = await stack.enter_async_context(run_envoy(text))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=30))
        answers = [await client.post(CHAT, json=chat_request("Hello")) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {503}
        assert await envoy.stat(EJECTIONS) == 0
