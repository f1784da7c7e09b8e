"""The whole chain: a scripted upstream, a scripted Aim, the sidecar, a real Envoy and a client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import yaml

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.envoy import Upstream, render_envoy
from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.sidecar import Sidecar, settings_for, sidecar
from tests.fakes.upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"


class Rig:
    """A running chain."""

    def __init__(
        self,
        aim: ScriptedAim,
        upstream: ScriptedUpstream,
        guard: Sidecar,
        envoy: RunningEnvoy,
        client: httpx.AsyncClient,
    ) -> None:
        self.aim = aim
        self.upstream = upstream
        self.sidecar = guard
        self.envoy = envoy
        self.client = client

    def reset(self) -> None:
        self.aim.reset()
        self.upstream.reset()

    async def chat(self, *texts: str, stream: bool = False, **more: Any) -> httpx.Response:
        """Post a chat request of user messages; return the whole response."""
        return await self.client.post(CHAT, json=chat_request(*texts, stream=stream), **more)


def chat_request(*texts: str, stream: bool = False) -> dict[str, Any]:
    """Return a chat request of user messages."""
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    return request | ({"stream": True} if stream else {})


def chat_answer(*contents: str) -> bytes:
    """Return a chat completion with a choice for each content."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        for index, content in enumerate(contents)
    ]
    return json.dumps({"id": "c1", "object": "chat.completion", "choices": choices}).encode()


def chat_event(text: str | None = None, *, index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
    """Return one event of a chat stream."""
    if text is not None:
        delta["content"] = text
    chunk = {"id": "c1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def chat_stream(*texts: str) -> list[bytes]:
    """Return the events of a typical chat stream."""
    return [
        chat_event(role="assistant", text=""),
        *(chat_event(text) for text in texts),
        chat_event(finish="stop"),
        DONE,
    ]


@asynccontextmanager
async def rig(
    render: dict[str, Any] | None = None, edit: Callable[[Any], None] | None = None, **changes: Any
) -> AsyncIterator[Rig]:
    """Run a chain with the settings `changes`. `edit` may change Envoy's bootstrap, as parsed YAML."""
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        settings = settings_for(aim.base, **changes)
        guard = await stack.enter_async_context(sidecar(settings))
        text = bootstrap(settings, guard.port, upstream.port, **(render or {}))
        if edit is not None:
            tree = yaml.safe_load(text)
            edit(tree)
            text = yaml.safe_dump(tree)
        envoy = await stack.enter_async_context(run_envoy(text))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=30))
        yield Rig(aim, upstream, guard, envoy, client)


class Rigs:
    """Chains that tests share. Each starts when it is first needed and runs until the stack ends."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._running: dict[str, Rig] = {}

    async def get(self, name: str, **changes: Any) -> Rig:
        """Return the chain `name`, reset to its initial state; `changes` are the arguments of `rig` for its start.

        Its breaker never opens, because many tests cause failures on purpose.
        """
        if name not in self._running:
            changes["aim"] = {"breaker": {"failures": 10_000}} | changes.get("aim", {})
            self._running[name] = await self._stack.enter_async_context(rig(**changes))
        chain = self._running[name]
        chain.reset()
        return chain


def manager_of(tree: Any) -> Any:
    """Return the connection manager of a parsed bootstrap's first listener."""
    (manager,) = tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    return manager["typed_config"]


def processor_of(tree: Any) -> Any:
    """Return the ext_proc filter's configuration in a parsed bootstrap."""
    return manager_of(tree)["http_filters"][0]["typed_config"]


def cluster_of(tree: Any) -> Any:
    """Return the upstream's cluster in a parsed bootstrap, which follows the sidecar's."""
    return tree["static_resources"]["clusters"][1]


def bootstrap(settings: Settings, sidecar_port: int, upstream_port: int, **more: Any) -> str:
    """Return the rendered bootstrap for a sidecar on a port that differs from its settings."""
    here = settings.model_copy(update={"listen": Address(host="127.0.0.1", port=sidecar_port)})
    return render_envoy(
        here,
        listen=Address(host="127.0.0.1", port=0),
        upstreams=[Upstream.parse(f"http://127.0.0.1:{upstream_port}")],
        admin=Address(host="127.0.0.1", port=0),
        **more,
    )
