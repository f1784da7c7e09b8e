"""Runs a real Prometheus and promtool, from the PATH (Debian's package `prometheus`)."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fakes.ports import free_port

SERVER = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")

needs_prometheus = pytest.mark.skipif(
    SERVER is None or PROMTOOL is None, reason="no Prometheus here: apt-get install prometheus"
)

_START_SECONDS = 30.0
_SCRAPE_SECONDS = 30.0


class PromtoolFailed(Exception):
    """promtool failed; the message is promtool's."""


def promtool(*arguments: str) -> str:
    """Run promtool and return what it prints; raises PromtoolFailed."""
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise PromtoolFailed(done.stdout + done.stderr)
    return done.stdout


class Prometheus:
    """A running Prometheus that scrapes every 250 ms."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        answer = await self._client.get(f"{self.url}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, (expression, answer.text)
        result = answer.json()["data"]["result"]
        assert isinstance(result, list), expression
        return result

    async def until(self, expression: str) -> list[dict[str, Any]]:
        """Query until there is a series; return the result. Raises TimeoutError after a while."""
        async with asyncio.timeout(_SCRAPE_SECONDS):
            while True:
                if found := await self.query(expression):
                    return found
                await asyncio.sleep(0.1)


@asynccontextmanager
async def scraping(targets: Iterable[str], job: str) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes `targets` (HOST:PORT) as `job` within the context."""
    address = f"127.0.0.1:{free_port()}"
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": list(targets)}]}],
    }
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(SERVER),
                *(f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
                f"--web.listen-address={address}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                if not await _is_ready(process, f"http://{address}", client):
                    raise AssertionError(f"Prometheus ended: {(folder / 'log').read_text()[-2000:]}")
                yield Prometheus(f"http://{address}", client)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _is_ready(process: asyncio.subprocess.Process, url: str, client: httpx.AsyncClient) -> bool:
    """Wait until the server is ready; return False if it has ended."""
    async with asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/-/ready")).status_code == 200:
                    return True
            await asyncio.sleep(0.05)
    return False
