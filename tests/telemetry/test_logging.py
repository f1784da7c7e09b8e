"""A log that cannot be written costs its lines, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import environment, get, written
from tests.fakes.rig import chat_answer
from tests.processor.test_servicer import request


@asynccontextmanager
async def process_of(config: Path, stderr: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start to serve; end it with the context."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "serve", "--config", str(config)), stderr=stderr, env=environment()
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def unheard(config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Serve, and have nobody at the other end of standard error from then on."""
    heard, said = os.pipe()
    async with process_of(config, said) as process:
        os.close(said)
        log = b""
        while b'"serving"' not in log:
            piece = await asyncio.wait_for(asyncio.to_thread(os.read, heard, 4096), 60)
            assert piece, log
            log += piece
        os.close(heard)
        yield process


@contextmanager
def full(kind: str) -> Iterator[tuple[int, int]]:
    """Return the two ends of a pipe or a socket that takes no more until it is read."""
    ours, theirs = (end.detach() for end in socket.socketpair()) if kind == "socket" else os.pipe()
    os.set_blocking(theirs, False)  # theirs alone as long as it was not handed down
    for size in (65536, 4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(theirs, b"\n" * size)
    os.set_blocking(theirs, True)
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


async def exchange(port: int) -> None:
    """Pass an exchange, to its end."""
    async with asyncio.timeout(30), envoy_stream(f"127.0.0.1:{port}") as stream:
        await request(stream)
        await stream.response_headers(("content-type", "application/json"))
        await stream.body("response", chat_answer("Hi"))
        assert (await stream.read()).HasField("response_headers")
        assert (await stream.read()).HasField("response_body")
        await stream.done()
        assert await stream.read() is None


async def ready(admin: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(httpx.TransportError):
                if (await get(admin, "/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


def emptied(ours: int, last: str) -> list[dict[str, Any]]:
    """Return the records that can be read up to the first `last`."""
    data = b""
    while f'"{last}"' not in data.rpartition(b"\n")[0].decode():
        data += os.read(ours, 65536)
    return [json.loads(line) for line in data.splitlines() if line]


@pytest.mark.parametrize("enforce", [True, False])
async def test_a_log_that_nobody_reads(tmp_path: Path, aim: ScriptedAim, enforce: bool) -> None:
    path, port, admin = written(tmp_path, aim, profiles={"default": {"enforce": enforce}})
    async with unheard(path) as process:
        for _ in range(3):
            await exchange(port)
        path.write_text(path.read_text() + "\n# changed\n")
        process.send_signal(signal.SIGHUP)
        metrics = (await get(admin, "/metrics")).text
        assert "extproc_streams 0.0" in metrics
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_log_whose_reader_stopped(tmp_path: Path, aim: ScriptedAim, kind: str, workers: int) -> None:
    path, port, admin = written(tmp_path, aim, workers=workers)
    with full(kind) as (ours, theirs):
        async with process_of(path, theirs) as process:
            await ready(admin)
            await exchange(port)
            await exchange(port)
            # Who read nothing for so long finds nothing of it, but how much there was.
            os.set_blocking(ours, False)
            with suppress(BlockingIOError):
                while skipped := os.read(ours, 65536):
                    assert not skipped.strip()
            os.set_blocking(ours, True)
            await exchange(port)
            told, passed = await asyncio.wait_for(asyncio.to_thread(emptied, ours, "exchange"), 30)
            assert (told["event"], told["lines"], told.get("worker", 0)) == ("log_lines_lost", 3, 0)
            assert passed["event"] == "exchange"
            assert os.get_blocking(theirs)  # who shares it finds it as it was
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_log_that_is_full_to_the_end(tmp_path: Path, aim: ScriptedAim, workers: int) -> None:
    path, port, admin = written(tmp_path, aim, workers=workers)
    with full("pipe") as (_, theirs):
        async with process_of(path, theirs) as process:
            await ready(admin)
            await exchange(port)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0
