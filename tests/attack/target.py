"""What is attacked: `extproc serve` behind a real Envoy, with a scripted model and a scripted Aim, on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from extproc.config.load import load
from tests.fakes.aim import AimSession, Answer, Question, ScriptedAim, allow, block
from tests.fakes.client import Got, exchange
from tests.fakes.envoy import run_envoy
from tests.fakes.process import get, serving, written
from tests.fakes.rig import CHAT, bootstrap, chat_answer, chat_request, chat_stream
from tests.fakes.upstream import ScriptedUpstream, pieces, whole

SECRET: Final = "tr0ub4dor and jane"
"""The text that Aim blocks."""

KEY: Final = "key-that-nobody-may-see"

JSON: Final = ("content-type", "application/json")
SECONDS: Final = 45.0
"""The time for one attack, and for what is checked after it."""

_SETTINGS: Final[dict[str, Any]] = {
    "limits": {"request_bytes": 1 << 20, "response_bytes": 1 << 20, "event_bytes": 1 << 16, "held_bytes": 1 << 18},
    "profiles": {"default": {"hooks": ["pre_call", "output"]}},
}
_AIM: Final = {"timeout_seconds": 2, "verdict_timeout_seconds": 2, "breaker": {"failures": 10_000}, "api_key": KEY}
_GAUGES: Final = ("extproc_streams", "extproc_sessions", "extproc_held_bytes")


async def judge(question: Question) -> Answer:
    """Block the secret, and allow everything else."""
    return block("No.") if SECRET in json.dumps(question.body, ensure_ascii=False) else await allow(question)


async def verify(session: AimSession) -> None:
    """Verify chunks until their joined text has the secret."""
    said: dict[int, str] = {}
    while (chunk := await session.receive()) is not None:
        for choice in chunk["choices"]:
            index = choice["index"]
            said[index] = said.get(index, "") + (choice["delta"].get("content") or "")
        if any(SECRET in text for text in said.values()):
            await session.block("No.")
            return
        await session.verify(chunk)
    if session.is_done:
        await session.done()


class Target:
    """The running chain."""

    def __init__(self, aim: ScriptedAim, model: ScriptedUpstream, url: str, port: int, admin: int) -> None:
        self.aim = aim
        self.model = model
        self.url = url
        self.port = port
        self.admin = admin
        self.reset()

    def reset(self) -> None:
        """Make Aim and the model honest again."""
        self.aim.reset()
        self.model.reset()
        self.aim.judge, self.aim.script = judge, verify
        self.model.answer = whole(chat_answer("Hi"))

    async def ask(
        self,
        body: bytes | Sequence[bytes] | None,
        *headers: tuple[str, str],
        target: str = CHAT,
        method: str = "POST",
        timed: float = SECONDS,
    ) -> Got:
        """Send a request through Envoy, byte for byte; return the answer."""
        head = headers if any(name == "content-type" for name, _ in headers) else (JSON, *headers)
        async with asyncio.timeout(timed):
            return await exchange(self.url, method, target, head, body)

    async def serves(self) -> None:
        """Check that an honest exchange, whole and streamed, passes unchanged."""
        self.model.answer = whole(chat_answer("Hi"))
        got = await self.ask(json.dumps(chat_request("Hello")).encode())
        assert (got.status, got.body) == (200, chat_answer("Hi")), f"an honest exchange got {got.status}"
        said = chat_stream("Hi", "you")
        self.model.answer = pieces(said)
        got = await self.ask(json.dumps(chat_request("Hello", stream=True)).encode())
        assert (got.status, got.body) == (200, b"".join(said)), f"an honest stream got {got.status}"

    async def answers_probes(self) -> None:
        """Check that probes and a scrape are answered."""
        for path in ("/healthz", "/readyz", "/metrics"):
            status = (await get(self.admin, path)).status_code
            assert status == 200, f"{path} answered {status}"

    async def settles(self) -> None:
        """Check that nothing is left behind: the gauges return to zero."""
        async with asyncio.timeout(SECONDS):
            while any(gauges := await self._gauges()):  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.1)
        assert not any(gauges)

    async def _gauges(self) -> list[float]:
        text = (await get(self.admin, "/metrics")).text
        return [float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0]) for name in _GAUGES]

    def client(self) -> httpx.AsyncClient:
        """Return a client for the admin port."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin}", trust_env=False, timeout=30)


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    """Run the chain within the context."""
    model = ScriptedUpstream()
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedAim().running() as aim, model.running():
            config, port, admin = written(Path(folder), aim, **_SETTINGS)
            settings = yaml.safe_load(config.read_text())
            config.write_text(yaml.safe_dump({**settings, "aim": {**settings["aim"], **_AIM}}))
            async with serving(config), run_envoy(bootstrap(load(config), port, model.port)) as envoy:
                yield Target(aim, model, envoy.url, port, admin)
