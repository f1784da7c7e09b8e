"""Checks a running Envoy: whether its configuration lets the sidecar guard traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from extproc.aim.transport import AiohttpTransport
from extproc.check.cluster import check_sidecar, check_upstream
from extproc.check.dump import Dump, Manager
from extproc.check.filters import PROCESSOR, Filter
from extproc.check.finding import Finding, Severity, error, warning
from extproc.check.manager import check_ai_gateway, check_manager
from extproc.check.mesh import mesh_of
from extproc.check.node import Node
from extproc.check.processor import check_processor
from extproc.check.route import check_routes, counted
from extproc.check.version import check_version
from extproc.config.described import without_login
from extproc.config.settings import Settings

_SECONDS = 10.0
_BYTES = 64 * 1024 * 1024
"""The dump of a gateway in a large mesh has several megabytes."""

_RENDER = "print one with `extproc render`"


class _Unreadable(Exception):
    """The answer does not come from Envoy's admin port."""


async def check_envoy(settings: Settings, admin: str) -> list[Finding]:
    """Return the findings about the Envoy with the admin URL `admin`."""
    where = f"envoy, {without_login(admin)}"
    try:
        async with httpx.AsyncClient(transport=AiohttpTransport(), trust_env=False, timeout=_SECONDS) as client:
            info = await _get(client, f"{admin.rstrip('/')}/server_info")
            dump = Dump(await _get(client, f"{admin.rstrip('/')}/config_dump?include_eds"))
            clusters = await _get(client, f"{admin.rstrip('/')}/clusters?format=json")
    except (httpx.HTTPError, httpx.InvalidURL, _Unreadable) as failure:
        what = str(failure) or type(failure).__name__
        return [
            error(
                where, f"its admin port cannot be read: {what}", "give the URL of Envoy's admin port, http://HOST:PORT"
            )
        ]
    hosts = {each.get("name"): each.get("host_statuses", []) for each in clusters.get("cluster_statuses", ())}
    parts = str(info.get("version", "")).split("/")
    version = parts[1] if len(parts) > 1 else "unknown"
    guard = _guard(settings, dump)
    count = f"{len(guard.managers)} of {len(dump.managers)} HTTP filter chains have the filter"
    findings = [Finding(Severity.OK, where, f"version {version}, {count}"), *check_version(version, where)]
    findings += _findings(settings, dump, hosts, guard, where)
    return findings


@dataclass(frozen=True, slots=True)
class _Guard:
    """Where the sidecar's filters are: in the chains of listeners, and in the upstream chains of clusters."""

    managers: list[tuple[Manager, list[Filter]]]
    clusters: dict[str, list[Filter]]


def _guard(settings: Settings, dump: Dump) -> _Guard:
    managers = [(manager, ours) for manager in dump.managers if (ours := _ours(settings, dump, manager.processors))]
    clusters = {
        name: ours
        for name, filters in dump.upstream_filters.items()
        if (ours := _known(settings, dump, [each for each in filters if each.type == PROCESSOR]))
    }
    return _Guard(managers, clusters)


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url) as answer:
        if answer.status_code != 200:
            raise _Unreadable(f"{answer.request.url.path} answers HTTP {answer.status_code}")
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > _BYTES:
                raise _Unreadable(f"{answer.request.url.path} is larger than {_BYTES} bytes")
    try:
        found = httpx.Response(200, content=bytes(content)).json()
    except ValueError as failure:
        raise _Unreadable("the answer is not from Envoy's admin port") from failure
    if not isinstance(found, dict):
        raise _Unreadable("the answer is not from Envoy's admin port")
    return found


def _findings(
    settings: Settings, dump: Dump, hosts: dict[str, list[Node]], guard: _Guard, where: str
) -> Iterator[Finding]:
    processors = [each for _, ours in guard.managers for each in ours]
    processors += [each for ours in guard.clusters.values() for each in ours]
    if not processors:
        yield error(where, "no listener has an ext_proc filter for the sidecar", _RENDER)
        return
    mesh = mesh_of(dump, processors[0])
    for manager, ours in guard.managers:
        together = counted(manager, ours)
        if len(together) > 1:
            names = ", ".join(each.name for each in together)
            yield error(manager.where, f"it has {len(together)} filters for the sidecar ({names})", "keep the last one")
        for processor in ours:
            yield from check_processor(settings, mesh, processor, manager.where)
        yield from check_manager(settings, mesh, manager, ours[-1])
        yield from check_routes(settings, mesh, manager, ours, guard.clusters)
    for name, ours in guard.clusters.items():
        for processor in ours:
            yield from check_processor(settings, mesh, processor, f"cluster {name}")
        filters = dump.upstream_filters[name]
        yield from check_ai_gateway(f"cluster {name}", filters[filters.index(ours[-1]) + 1 :])
    yield from _apps(settings, guard)
    for name in dict.fromkeys(each.cluster for each in processors if each.cluster):
        yield from check_sidecar(settings, mesh, name, dump.clusters.get(name), hosts.get(name, []))
    models = frozenset(guard.clusters).union(*(manager.clusters for manager, _ in guard.managers))
    for name in sorted(models):
        yield from check_upstream(settings, mesh, name, dump.clusters.get(name))
    yield from _ways_around(dump, guard, models)


def _apps(settings: Settings, guard: _Guard) -> Iterator[Finding]:
    """Yield a finding for each profile that inspects whatever an app sends, not only what it sends to models."""
    listeners = [manager for manager, _ in guard.managers if manager.is_outbound]
    names = [name for name, profile in settings.profiles.items() if profile.unmatched == "inspect"]
    if listeners and names:
        yield warning(
            listeners[0].where,
            "the sidecar inspects all JSON that this app sends, to whatever service",
            "set " + ", ".join(f"profiles.{name}.unmatched: pass" for name in names),
        )


def _ways_around(dump: Dump, guard: _Guard, models: frozenset[str]) -> Iterator[Finding]:
    """Yield listeners and TCP proxies that reach the same models without the filter."""
    guarded = {id(manager) for manager, _ in guard.managers}
    ways = [(manager.where, manager.clusters) for manager in dump.managers if id(manager) not in guarded]
    # What goes through an upstream chain is guarded for HTTP, not for TCP.
    ways = [(where, clusters - set(guard.clusters)) for where, clusters in ways]
    for where, clusters in (*ways, *dump.tcp):
        shared = sorted(clusters & models)
        if shared:
            yield error(
                where, f"it leads to {', '.join(shared)} without the ext_proc filter", "add the filter there too"
            )


def _ours(settings: Settings, dump: Dump, found: Sequence[Filter]) -> list[Filter]:
    """Return those of a listener's ext_proc filters that are for the sidecar: the known ones, else the only one."""
    candidates = [each for each in found if not each.is_ai_gateway]
    return _known(settings, dump, candidates) or (candidates if len(candidates) == 1 else [])


def _known(settings: Settings, dump: Dump, found: Sequence[Filter]) -> list[Filter]:
    """Return those of `found` that are for the sidecar by name, else by address."""
    named = [each for each in found if "aim" in f"{each.name} {each.cluster}".lower()]
    port = settings.listen.path or f'"port_value": {settings.listen.port}'
    return named or [each for each in found if port in json.dumps(dump.clusters.get(each.cluster) or {})]
