"""A web page on the internet cannot read the admin port through a name of its own; probes and scrapes may use any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from extproc.admin.app import admin_app
from extproc.admin.host import is_known
from extproc.admin.port import listening
from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.telemetry.activity import Activity
from extproc.telemetry.snapshot import Phase, Snapshot, Worker
from tests.fakes.ports import free_port
from tests.fakes.sidecar import settings_for

KNOWN = (
    None,
    "localhost",
    "localhost:9902",
    "127.0.0.1:9902",
    "10.1.2.3:9902",
    "[::1]:9902",
    "[fd00::7]",
    "aim-extproc:9902",
    "LOCALHOST.",
    "host.docker.internal",
    "aim-extproc.prod.svc:9902",
    "aim-extproc.prod.svc.cluster.local",
    "sidecar.example.com",
    "Sidecar.Example.com.:9902",
)
UNKNOWN = (
    "",
    ":9902",
    "evil.example",
    "evil.example:9902",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "other.sidecar.example.com",
    "sidecar.example.com.evil.example:9902",
    "evil.example:x",
    "[evil.example]:9902",
    "svc.example",
)


@pytest.mark.parametrize("host", KNOWN)
def test_name_that_nobody_can_register_is_known(host: str | None) -> None:
    assert is_known(host, ["sidecar.example.com"])


@pytest.mark.parametrize("host", UNKNOWN)
def test_name_of_the_internet_is_unknown(host: str) -> None:
    assert not is_known(host, ["sidecar.example.com"])


class Process:
    """What the admin app reports on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        self.is_ready = True

    async def snapshot(self) -> Snapshot:
        return Activity().snapshot(Worker(0, Phase.SERVING, 0.0, 0, 0, 0, False, False, None))


@asynccontextmanager
async def port_of(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    address = Address(host="127.0.0.1", port=free_port())
    async with (
        listening(admin_app(Process(settings)), address),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{address.port}", trust_env=False, timeout=60) as client,
    ):
        yield client


async def test_each_connection_gets_one_answer() -> None:
    """A client that sends many requests at once would keep the process busy with their answers."""
    async with port_of(settings_for("http://aim.example")) as client, asyncio.timeout(30):
        for path in ("/", "/metrics", "/healthz", "/readyz"):
            request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(request * 50)
            assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 1
            writer.close()


async def test_only_probes_may_use_a_strange_name() -> None:
    settings = settings_for("http://aim.example", admin_hosts=["sidecar.example.com"])
    async with port_of(settings) as client, asyncio.timeout(30):
        seen = {
            (host, path): (await client.get(path, headers={"host": host})).status_code
            for host in ("evil.example:9902", "sidecar.example.com", "10.1.2.3:9902")
            for path in ("/", "/metrics", "/healthz", "/readyz")
        }
    refused = {place for place, status in seen.items() if status == 421}
    assert refused == {("evil.example:9902", "/"), ("evil.example:9902", "/metrics")}
    assert {status for place, status in seen.items() if place not in refused} == {200}
