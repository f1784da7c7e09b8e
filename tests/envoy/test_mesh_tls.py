"""Two sidecars with TLS in each mesh: Envoy's health checks reach them, and a draining one gets no new exchanges."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml

from extproc.check.envoy import check_envoy
from extproc.config.load import load
from extproc.config.settings import Settings
from tests.envoy.test_check import old_envoy
from tests.envoy.test_meshes import is_default
from tests.fakes.aim import ScriptedAim
from tests.fakes.beds import generated
from tests.fakes.controllers import Cluster
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.process import Running, serving, written
from tests.fakes.rig import CHAT, chat_answer, chat_request
from tests.fakes.upstream import ScriptedUpstream, whole

_SECONDS = 90.0
_FIRST_MINUTE = 50.0
"""Less than the time to the next health check of an Envoy without traffic."""

PAGE = (Path(__file__).parents[2] / "docs" / "meshes.md").read_text()


async def unhealthy(envoy: RunningEnvoy, count: int) -> None:
    """Wait until Envoy's health checks of `count` sidecars fail, and those of the others succeed."""
    async with asyncio.timeout(_SECONDS), httpx.AsyncClient(trust_env=False) as client:
        while True:
            answer = (await client.get(f"{envoy.admin}/clusters?format=json")).json()
            (hosts,) = [each["host_statuses"] for each in answer["cluster_statuses"] if "aim-extproc" in each["name"]]
            if sum("failed_active_health_check" in host["health_status"] for host in hosts) == count:
                return
            await asyncio.sleep(0.05)


def written_with_tls(folder: Path, aim: ScriptedAim, authority: trustme.CA) -> tuple[Path, int]:
    """Write the settings of a sidecar with a certificate for its Service; return the file and the port."""
    folder.mkdir()
    leaf = authority.issue_cert("aim-extproc.default.svc")
    leaf.private_key_pem.write_to_path(str(folder / "tls.key"))
    leaf.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    tls: dict[str, Any] = {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}
    config, port, _ = written(folder, aim, tls=tls)
    return config, port


@asynccontextmanager
async def two_sidecars(
    mesh: str, folder: Path, edit: Callable[[Any], None] = lambda tree: None
) -> AsyncIterator[tuple[RunningEnvoy, list[Running], Settings]]:
    """Run two sidecars and a bed for them; yield once Envoy's health checks of both have succeeded."""
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        upstream.answer = whole(chat_answer("Hi"))
        authority = trustme.CA()
        sidecars = [written_with_tls(folder / str(number), aim, authority) for number in range(2)]
        processes = [await stack.enter_async_context(serving(config)) for config, _ in sidecars]
        settings = load(sidecars[0][0], serving=True)
        ca = authority.cert_pem.bytes().decode()
        cluster = Cluster([port for _, port in sidecars], upstream.port, folder, ca)
        tree = generated(mesh, settings, cluster)
        edit(tree)
        envoy = await stack.enter_async_context(run_envoy(yaml.safe_dump(tree)))
        await unhealthy(envoy, 0)
        yield envoy, processes, settings


async def statuses(envoy: RunningEnvoy, count: int) -> list[int]:
    """Send `count` requests; return their status codes."""
    async with httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=30) as client:
        return [(await client.post(CHAT, json=chat_request("Hello"))).status_code for _ in range(count)]


@pytest.mark.parametrize("mesh", ["envoy-gateway", "kgateway", "istio"])
async def test_health_checks_reach_sidecars_with_tls(mesh: str, tmp_path: Path) -> None:
    async with two_sidecars(mesh, tmp_path) as (envoy, _, settings):
        assert await statuses(envoy, 4) == [200] * 4
        findings = await check_envoy(settings, envoy.admin)
    # Two sidecars on one machine have two ports, unlike in Kubernetes.
    told = [str(each) for each in findings[1:] if "listens on" not in each.what and not is_default(each)]
    assert told == old_envoy(findings)


@pytest.mark.parametrize(
    "mesh",
    # These cannot set the interval of health checks before the first traffic, which is a minute.
    ["istio", *(pytest.param(mesh, marks=pytest.mark.long) for mesh in ("envoy-gateway", "kgateway"))],
)
async def test_draining_sidecar_gets_no_new_exchanges(mesh: str, tmp_path: Path) -> None:
    async with two_sidecars(mesh, tmp_path) as (envoy, (first, _), _):
        assert await statuses(envoy, 4) == [200] * 4
        first.signal()
        await unhealthy(envoy, 1)
        assert await statuses(envoy, 20) == [200] * 20


def patched_as_documented(tree: Any) -> None:
    """Apply the EnvoyPatchPolicy of docs/meshes.md that sets the interval of health checks before the first traffic."""
    documents = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (policy,) = [each for each in map(yaml.safe_load, documents) if each.get("kind") == "EnvoyPatchPolicy"]
    (patch,) = policy["spec"]["jsonPatches"]
    (cluster,) = [each for each in tree["static_resources"]["clusters"] if each["name"] == patch["name"]]
    assert patch["operation"]["op"] == "add"
    *parents, last = patch["operation"]["path"].removeprefix("/").split("/")
    target = cluster
    for name in parents:
        target = target[int(name)] if name.isdigit() else target[name]
    target[last] = patch["operation"]["value"]


async def test_documented_patch_of_health_checks_works_without_traffic(tmp_path: Path) -> None:
    async with two_sidecars("envoy-gateway", tmp_path, patched_as_documented) as (envoy, (first, _), _):
        first.signal()
        async with asyncio.timeout(_FIRST_MINUTE):
            await unhealthy(envoy, 1)
        assert await statuses(envoy, 20) == [200] * 20


async def test_check_reports_health_checks_that_a_tls_server_refuses(tmp_path: Path) -> None:
    """With a BackendTLSPolicy for the Service itself Envoy Gateway's health checks offer no protocol."""
    settings = Settings()
    cluster = Cluster([50051], 8080, tmp_path, trustme.CA().cert_pem.bytes().decode())
    tree = generated("envoy-gateway", settings, cluster)
    (sidecars,) = [each for each in tree["static_resources"]["clusters"] if "aim-extproc" in each["name"]]
    context = sidecars["transport_socket_matches"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    del context["alpn_protocols"]
    async with run_envoy(yaml.safe_dump(tree)) as envoy:
        findings = await check_envoy(settings, envoy.admin)
    (found,) = [finding for finding in findings if "ALPN" in finding.what]
    assert found.advice == "let the EnvoyExtensionPolicy use a Backend with tls.alpnProtocols: [h2]"
