"""The command `extproc` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.fakes.aim import ScriptedAim
from tests.fakes.ports import free_port as free_port


class Running:
    """A running `extproc serve`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._unread: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.lines: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def until(self, event: str) -> dict[str, Any]:
        """Read the log up to the first record of `event`."""
        while (record := await asyncio.wait_for(self._unread.get(), 60)) is not None:
            self.lines.append(record)
            if record["event"] == event:
                return record
        raise AssertionError(f"no {event} before the end: {self.lines}")

    async def read(self) -> None:
        """Read the log continuously, so that the process never blocks on writing it."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            try:
                self._unread.put_nowait(json.loads(line))
            except ValueError:
                self._unread.put_nowait({"event": "unreadable", "line": line.decode()})
        self._unread.put_nowait(None)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(60):
            while (record := await self._unread.get()) is not None:
                self.lines.append(record)
            self._unread.put_nowait(None)  # a later call must see the end, too
            return await self._process.wait()


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without the sidecar's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIM_", "EXTPROC_"))}
    return {**kept, "PYTHONWARNINGS": "ignore", **more}


async def run(*arguments: str, **more: str) -> tuple[int, str, str]:
    """Run a command to its end; return status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**more),
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def serving(config: Path | None = None, stdout: int | None = None, **more: str) -> AsyncIterator[Running]:
    """Run `extproc serve` within the context; yield once it serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "serve", *(("--config", str(config)) if config else ())),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**more),
    )
    running = Running(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(running.read())
        try:
            await running.until("serving")
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await running.ended()  # this waits for workers too, which share its stderr


def written(tmp_path: Path, aim: ScriptedAim, **changes: Any) -> tuple[Path, int, int]:
    """Write settings for a serving process; return the file and its ports."""
    port, admin = free_port(4), free_port(4)
    settings = {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "aim": {"base_url": aim.base, "api_key": "k"},
        **changes,
    }
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path, port, admin


async def get(port: int, path: str) -> httpx.Response:
    """Return the answer of an admin port."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")
