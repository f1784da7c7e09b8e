"""Checks a running Envoy: whether its configuration lets the sidecar guard traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from extproc.aim.transport import AiohttpTransport
from extproc.check.cluster import check_sidecar, check_upstream
from extproc.check.dump import Dump, Filter, Manager, Node
from extproc.check.finding import Finding, Severity, error
from extproc.check.manager import check_manager
from extproc.check.processor import check_processor
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
    version = str(info.get("version", "")).split("/")
    guarded = [(manager, ours) for manager in dump.managers if (ours := _ours(settings, dump, manager))]
    count = f"{len(guarded)} of {len(dump.managers)} HTTP filter chains have the filter"
    findings = [Finding(Severity.OK, where, f"version {version[1] if len(version) > 1 else 'unknown'}, {count}")]
    findings += _findings(settings, dump, hosts, guarded, where)
    return findings


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
    settings: Settings,
    dump: Dump,
    hosts: dict[str, list[Node]],
    guarded: Sequence[tuple[Manager, list[Filter]]],
    where: str,
) -> Iterator[Finding]:
    if not guarded:
        yield error(where, "no listener has an ext_proc filter for the sidecar", _RENDER)
        return
    for manager, ours in guarded:
        if len(ours) > 1:
            names = ", ".join(each.name for each in ours)
            yield error(manager.where, f"it has {len(ours)} filters for the sidecar ({names})", "keep the last one")
        for processor in ours:
            yield from check_processor(settings, processor, manager.where)
        yield from check_manager(settings, manager, ours[-1])
    sidecars = dict.fromkeys(each.cluster for _, ours in guarded for each in ours if each.cluster)
    for name in sidecars:
        yield from check_sidecar(settings, name, dump.clusters.get(name), hosts.get(name, []))
    models = frozenset().union(*(manager.clusters for manager, _ in guarded))
    for name in sorted(models):
        yield from check_upstream(settings, name, dump.clusters.get(name))
    yield from _ways_around(dump, {id(manager) for manager, _ in guarded}, models)


def _ways_around(dump: Dump, guarded: set[int], models: frozenset[str]) -> Iterator[Finding]:
    """Yield listeners and TCP proxies that reach the same models without the filter."""
    ways = [(manager.where, manager.clusters) for manager in dump.managers if id(manager) not in guarded]
    for where, clusters in (*ways, *dump.tcp):
        shared = sorted(clusters & models)
        if shared:
            yield error(
                where, f"it leads to {', '.join(shared)} without the ext_proc filter", "add the filter there too"
            )


def _ours(settings: Settings, dump: Dump, manager: Manager) -> list[Filter]:
    """Return the manager's filters for the sidecar: by name, else by address, else the only ext_proc filter."""
    found = manager.processors
    named = [each for each in found if "aim" in f"{each.name} {each.cluster}".lower()]
    if named:
        return named
    port = settings.listen.path or f'"port_value": {settings.listen.port}'
    dialled = [each for each in found if port in _written(dump.clusters.get(each.cluster))]
    return dialled or (found if len(found) == 1 else [])


def _written(cluster: Node | None) -> str:
    return json.dumps(cluster or {})
