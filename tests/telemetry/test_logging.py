"""The log of a process whose reader is slow, stopped or gone: only lines may be lost."""

from __future__ import annotations

import asyncio
import json
import logging
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

from extproc.telemetry.line_writer import CAPACITY
from extproc.telemetry.logs import LibraryHandler
from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import environment, get, written
from tests.fakes.rig import chat_answer
from tests.processor.test_servicer import request


@asynccontextmanager
async def process_of(config: Path, stderr: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a serving process within the context."""
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
    """Run a serving process whose standard error has no reader once it serves."""
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
    """Yield the two ends of a pipe or a socket that is full."""
    ours, theirs = (end.detach() for end in socket.socketpair()) if kind == "socket" else os.pipe()
    os.set_blocking(theirs, False)  # no other process shares it yet
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
    """Send a whole exchange."""
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


def emptied(ours: int, last: str, count: int) -> list[dict[str, Any]]:
    """Read up to the last of `count` records of `last`; return all records."""
    data = b""
    while data.rpartition(b"\n")[0].count(f'"{last}"'.encode()) < count:
        data += os.read(ours, 65536)
    return [json.loads(line) for line in data.splitlines() if line]


@pytest.mark.parametrize("enforce", [True, False])
async def test_reader_that_is_gone_costs_nothing_but_lines(tmp_path: Path, aim: ScriptedAim, enforce: bool) -> None:
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
async def test_lines_wait_for_a_reader_that_stopped(tmp_path: Path, aim: ScriptedAim, kind: str, workers: int) -> None:
    path, port, admin = written(tmp_path, aim, workers=workers)
    with full(kind) as (ours, theirs):
        async with process_of(path, theirs) as process:
            await ready(admin)
            await exchange(port)
            await exchange(port)
            assert os.get_blocking(theirs)  # other processes share it
            process.send_signal(signal.SIGTERM)
            # Lines wait for the reader, even when the process ends.
            records = await asyncio.wait_for(asyncio.to_thread(emptied, ours, "stopped", workers), 30)
            assert await asyncio.wait_for(process.wait(), 60) == 0
    events = [record["event"] for record in records]
    assert (events.count("serving"), events.count("exchange"), events.count("stopped")) == (workers, 2, workers)
    assert "log_lines_lost" not in events


@pytest.mark.parametrize("workers", [1, 2])
async def test_process_ends_though_its_log_is_full(tmp_path: Path, aim: ScriptedAim, workers: int) -> None:
    path, port, admin = written(tmp_path, aim, workers=workers)
    with full("pipe") as (_, theirs):
        async with process_of(path, theirs) as process:
            await ready(admin)
            await exchange(port)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0


LOSE = """
import os, structlog
from extproc.telemetry.line_writer import CAPACITY
from extproc.telemetry.logs import configure_logging
configure_logging("info", worker=3)
for number in range(3 * CAPACITY):
    structlog.get_logger().info("record", number=number)
os.write(1, b"done")
"""


async def test_lost_lines_are_counted_in_a_record_of_the_log() -> None:
    with full("pipe") as (ours, theirs):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LOSE), stdout=asyncio.subprocess.PIPE, stderr=theirs
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readexactly(4), 60) == b"done"
        records = await asyncio.to_thread(emptied, ours, f'number":{3 * CAPACITY - 1},"event', 1)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    # Lines may be lost before and after the first batch is taken; each batch then tells how many.
    told = [record for record in records if record["event"] == "log_lines_lost"]
    assert told
    assert all((each["worker"], each["level"]) == (3, "error") and each["timestamp"] for each in told)
    assert sum(each["lines"] for each in told) + len(records) - len(told) == 3 * CAPACITY


def test_record_of_a_library_names_it_without_its_message() -> None:
    try:
        raise ValueError("a prompt")
    except ValueError as error:
        failed = (ValueError, error, error.__traceback__)
    record = logging.LogRecord('a"b', logging.ERROR, "file", 1, "%s", ("a prompt",), failed)
    lines: list[bytes] = []
    LibraryHandler(lines.append).emit(record)
    (line,) = lines
    assert json.loads(line) == {"event": "library", "logger": 'a"b', "level": "ERROR"}
    assert line.count(b"\n") == 1
