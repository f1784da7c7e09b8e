"""The status page of several workers shows their sum."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import get
from tests.serve.test_workers import exchange, until, until_metric, workers


async def shown(admin: int) -> str:
    """Return the text of the page."""
    answer = await get(admin, "/")
    assert answer.status_code == 200
    return re.sub(r"(<style>.*?</style>|<[^>]+>|\s)+", " ", answer.text)


async def visit(port: int, path: str) -> None:
    """Let a request without a body pass."""
    async with envoy_stream(f"127.0.0.1:{port}") as stream:
        await stream.request_headers(path=path, end=True)
        await stream.read()
        await stream.response_headers(status=204, end=True)
        await stream.read()
        await stream.done()
        assert await stream.read() is None


async def test_page_adds_up_the_workers(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, port, admin, pids):
        for _ in range(3):
            await exchange(port)
        await exchange(port + 1)
        for number in (0, 0, 1):
            await visit(port + number, "/users/jane/photos")
        await until_metric(admin, "extproc_exchanges_total", 7)
        page = await shown(admin)
        assert "Serving" in page
        assert "· 2 workers" in page
        assert "Exchanges 7 in 15 min" in page
        assert "/users/{id}/photos method POST done passed count 3" in page
        assert "openai-chat exchanges 4 share 57" in page
        assert "pre_call count 4 median" in page
        assert "4 verdicts in 15 minutes: 4 allowed" in (await get(admin, "/")).text
        # A worker that hangs is missing, but does not delay the page.
        os.kill(pids[1], signal.SIGSTOP)
        page = await shown(admin)
        assert "1 worker of 2 did not answer." in page
        assert "Exchanges 5 in 15 min" in page
        assert "/users/{id}/photos method POST done passed count 2" in page
        os.kill(pids[1], signal.SIGCONT)

        async def is_back() -> bool:
            return "Exchanges 7 in 15 min" in await shown(admin)

        await until(is_back)
        process.signal()
        assert await process.ended() == 0
