"""A log that cannot be written costs its lines, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import environment, get, written
from tests.fakes.rig import chat_answer
from tests.integration.test_servicer import request


@asynccontextmanager
async def unheard(config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Serve, and have nobody at the other end of standard error from then on."""
    heard, said = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "serve", "--config", str(config)), stderr=said, env=environment()
    )
    os.close(said)
    try:
        log = b""
        while b'"serving"' not in log:
            piece = await asyncio.wait_for(asyncio.to_thread(os.read, heard, 4096), 60)
            assert piece, log
            log += piece
        os.close(heard)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("enforce", [True, False])
async def test_a_log_that_nobody_reads(tmp_path: Path, aim: ScriptedAim, enforce: bool) -> None:
    path, port, admin = written(tmp_path, aim, profiles={"default": {"enforce": enforce}})
    async with unheard(path) as process:
        for _ in range(3):
            async with envoy_stream(f"127.0.0.1:{port}") as stream:
                await request(stream)
                await stream.response_headers(("content-type", "application/json"))
                await stream.body("response", chat_answer("Hi"))
                assert (await stream.read()).HasField("response_headers")
                assert (await stream.read()).HasField("response_body")
                await stream.done()
                assert await stream.read() is None
        path.write_text(path.read_text() + "\n# changed\n")
        process.send_signal(signal.SIGHUP)
        metrics = (await get(admin, "/metrics")).text
        assert "extproc_streams 0.0" in metrics
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
