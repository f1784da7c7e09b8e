"""Chains whose Envoy has the configuration that a mesh's controller generates from the rendered resources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from extproc.config.settings import Settings
from extproc.render.envoy_gateway import render_envoy_gateway
from extproc.render.istio import render_istio
from extproc.render.kgateway import render_kgateway
from extproc.render.mesh import DEFAULT_CA, Place
from tests.fakes.aim import ScriptedAim
from tests.fakes.controllers import Cluster, envoy_gateway, istio, kgateway
from tests.fakes.envoy import run_envoy
from tests.fakes.rig import Rig
from tests.fakes.sidecar import settings_for, sidecar
from tests.fakes.upstream import ScriptedUpstream

MESHES = ("envoy-gateway", "kgateway", "istio", "istio-edge", "istio-outbound", "istio-waypoint")
"""The beds: Istio with a gateway, with a gateway of the edge profile, with an Envoy beside an app, with a waypoint."""

_OTHER_LISTENERS = ("virtualOutbound", "connect_terminate")
"""Listeners of Istio's Envoys that get no requests here."""


def documents(mesh: str, settings: Settings, *, tls: bool = False, ai_gateway: Sequence[str] = ()) -> list[Any]:
    """Return the resources that `extproc render` prints for a bed."""
    place = Place(ca=DEFAULT_CA if tls else "")
    match mesh:
        case "envoy-gateway":
            text = render_envoy_gateway(settings, place, ai_gateway=ai_gateway)
        case "kgateway":
            text = render_kgateway(settings, place)
        case "istio-outbound":
            text = render_istio(settings, place, context="outbound", labels={"app": "chat"})
        case "istio-waypoint":
            text = render_istio(settings, place, context="waypoint")
        case _:
            text = render_istio(settings, place)
    return list(yaml.safe_load_all(text))


def generated(mesh: str, settings: Settings, cluster: Cluster, *, ai_gateway: Sequence[str] = ()) -> Any:
    """Return the bootstrap of a bed. The sidecars, the model and the endpoints' files are those of `cluster`."""
    resources = documents(mesh, settings, tls=bool(cluster.ca), ai_gateway=ai_gateway)
    match mesh:
        case "envoy-gateway":
            return envoy_gateway.generated(resources, cluster)
        case "kgateway":
            return kgateway.generated(resources, cluster)
        case "istio-edge":
            return istio.generated(resources, cluster, profile="EDGE")
        case "istio-outbound":
            return istio.generated(resources, cluster, context="SIDECAR_OUTBOUND")
        case "istio-waypoint":
            return istio.generated(resources, cluster, context="SIDECAR_INBOUND")
        case _:
            return istio.generated(resources, cluster)


@asynccontextmanager
async def bed(
    mesh: str, edit: Callable[[Any], None] = lambda tree: None, *, ai_gateway: Sequence[str] = (), **changes: Any
) -> AsyncIterator[Rig]:
    """Run a chain with the settings `changes`; `edit` may change Envoy's bootstrap."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bed-")))
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        if mesh == "istio-outbound":  # as the documentation says
            changes.setdefault("profiles", {"default": {"unmatched": "pass"}})
        changes["aim"] = {"api": "firewall", "breaker": {"failures": 10_000}} | changes.get("aim", {})
        settings = settings_for(aim.base, **changes)
        guard = await stack.enter_async_context(sidecar(settings))
        tree = generated(mesh, settings, Cluster([guard.port], upstream.port, folder), ai_gateway=ai_gateway)
        edit(tree)
        envoy = await stack.enter_async_context(run_envoy(yaml.safe_dump(tree)))
        url = next(url for name, url in envoy.urls.items() if name not in _OTHER_LISTENERS)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=60))
        yield Rig(aim, upstream, guard, envoy, client)
