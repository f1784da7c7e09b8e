"""The measured chains: each is a way from the client to the same model, with the same Aim or without it.

Every chain has its own Envoy, with the project's rendered configuration, so that rounds can switch between chains at
once. An idle Envoy costs nothing. LiteLLM is a proxy itself.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from extproc.aim.protocol import Form
from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.cluster import SIDECAR as SIDECAR_CLUSTER
from extproc.render.envoy import Upstream, render_envoy
from tests.bench import litellm
from tests.bench.process import LOOPBACK, ROOT, Started, loopback, started
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.ports import free_port

ALONE, NULL, FLOOR, SIDECAR, LITELLM = "envoy alone", "null", "floor", "sidecar", "litellm"

_EXT_PROC = "envoy.filters.http.ext_proc"
_KEY = "a-key-for-the-bench"
_VERDICT_TIMEOUT = 120
"""Longer than the longest hold of the bench. A longer timeout does not cost more."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One way to the model: the port for its client, its Envoy, and its guards.

    `guards` are process ids: none for Envoy alone, one for each worker of a sidecar. `around` are those of the client,
    which is the bench itself, and of the stand-ins. `aim` is the port of its Aim, `admin` that of the sidecar's admin
    endpoints.
    """

    name: str
    port: int
    envoy: RunningEnvoy | None
    around: tuple[int, ...]
    guards: tuple[int, ...] = ()
    aim: int | None = None
    admin: int | None = None

    async def asked(self) -> dict[str, int]:
        """Return the counters of its Aim (`tests.bench.aim.COUNTERS`), or {} if it has none."""
        if self.aim is None:
            return {}
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return dict((await client.get(f"http://{LOOPBACK}:{self.aim}/counters")).json())

    async def exchanges(self) -> list[int]:
        """Return the number of exchanges that its Envoy has sent to each worker of the sidecar."""
        assert self.envoy is not None
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            clusters = (await client.get(f"{self.envoy.admin}/clusters", params={"format": "json"})).json()
        (cluster,) = (each for each in clusters["cluster_statuses"] if each["name"] == SIDECAR_CLUSTER)
        return [
            int(stat.get("value", 0))
            for host in cluster["host_statuses"]
            for stat in host["stats"]
            if stat["name"] == "rq_total"
        ]


class Rig:
    """A model, an Aim that answers at once, and chains, started on request. Everything runs until the rig ends."""

    def __init__(self, stack: AsyncExitStack, folder: Path, beneath: tuple[str, ...] = ()) -> None:
        """Run in `stack`; keep logs and sockets in `folder`; run external processors by the command `beneath`."""
        self.folder = folder
        self._beneath = beneath
        self._stack = stack
        self._stand_ins: list[int] = []
        self.model = self._stand_in("model")
        self.aim = self._stand_in("aim")

    def slow_aim(self, handshake: float) -> int:
        """Run another Aim, which opens sessions after `handshake` seconds; return its port."""
        return self._stand_in("aim", str(handshake))

    async def give(self, document: str) -> None:
        """Give the model the document that it sends to requests whose script says `given`."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            await client.put(f"http://{LOOPBACK}:{self.model}/", content=document.encode())

    async def chains(self, *names: str) -> list[Chain]:
        """Run the chains with these names; raises BenchError or EnvoyFailed if one does not start."""
        return [await self.chain(name) for name in names]

    async def chain(self, name: str) -> Chain:
        """Run one of the chains named above."""
        if name == LITELLM:
            return self._litellm()
        if name == SIDECAR:
            return await self.sidecar()
        if name == ALONE:
            envoy = await self._envoy(None)
            return Chain(name, _port(envoy), envoy, self._around())
        port = free_port()
        process = self._stack.enter_context(self.reference(name, port))
        process.wait(loopback(port))
        envoy = await self._envoy(Settings(listen=loopback(port)))
        aim = self.aim if name == FLOOR else None
        return Chain(name, _port(envoy), envoy, self._around(), (process.pid,), aim)

    def reference(self, name: str, port: int) -> AbstractContextManager[Started]:
        """Run the null or the floor on `port`."""
        ports = [port, self.aim] if name == FLOOR else [port]
        command = (*self._beneath, sys.executable, "-m", f"tests.bench.{name}", *map(str, ports))
        return self._run(name, *command)

    async def sidecar(
        self,
        name: str = SIDECAR,
        *,
        listen: Address | None = None,
        workers: int = 1,
        aim: int | None = None,
        checkout: Path | None = None,
        form: Form = "detect",
    ) -> Chain:
        """Run a chain with the sidecar of this checkout or of `checkout`, with defaults except for the arguments.

        `form` is the form of Aim's API.
        """
        aim = aim or self.aim
        admin = loopback(free_port(workers))
        settings = Settings(listen=listen or loopback(free_port(workers)), admin=admin, workers=workers)
        process = self._stack.enter_context(self.serve(settings, aim, name, checkout, form))
        process.wait(*(settings.listen.for_worker(worker) for worker in range(workers)))
        envoy = await self._envoy(settings)
        guards = tuple(process.children()) if workers > 1 else (process.pid,)
        return Chain(name, _port(envoy), envoy, self._around(), guards, aim, admin.port)

    def serve(
        self,
        settings: Settings,
        aim: int,
        name: str = SIDECAR,
        checkout: Path | None = None,
        form: Form = "detect",
    ) -> AbstractContextManager[Started]:
        """Run the sidecar of this checkout or of `checkout`, with the addresses and workers of `settings`."""
        python = sys.executable if checkout is None else str(checkout / ".venv/bin/python")
        return self._run(
            name,
            # Without -P Python would import the modules of the current folder, which are those of this checkout.
            *(*self._beneath, python, "-P", "-m", "extproc", "serve"),
            PYTHONPATH=str(checkout or ROOT),  # checkouts may share an environment, in which one of them is installed
            AIM_API_KEY=_KEY,
            AIM_API_BASE=f"http://{LOOPBACK}:{aim}",
            EXTPROC_AIM__API=form,
            EXTPROC_LISTEN=str(settings.listen),
            EXTPROC_ADMIN=str(settings.admin),
            EXTPROC_WORKERS=str(settings.workers),
            EXTPROC_AIM__VERDICT_TIMEOUT_SECONDS=str(_VERDICT_TIMEOUT),
        )

    def said(self) -> str:
        """Return the end of each process's output."""
        return "\n".join(
            f"-- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(self.folder.glob("*.log"))
        )

    def _litellm(self) -> Chain:
        port = free_port()
        command = litellm.command(self.folder, port, self.aim, self.model)
        process = self._stack.enter_context(self._run(LITELLM, *command, **litellm.VARIABLES))
        process.wait(loopback(port))
        return Chain(LITELLM, port, None, self._around(), (process.pid,), self.aim)

    def _stand_in(self, kind: str, *arguments: str) -> int:
        port = free_port()
        running = self._run(f"{kind}-{port}", sys.executable, "-m", f"tests.bench.{kind}", str(port), *arguments)
        process = self._stack.enter_context(running)
        process.wait(loopback(port))
        self._stand_ins.append(process.pid)
        return port

    def _around(self) -> tuple[int, ...]:
        return (os.getpid(), *self._stand_ins)

    def _run(self, name: str, *command: str, **environment: str) -> AbstractContextManager[Started]:
        log = self.folder / f"{name.replace(' ', '-')}.log"
        return started(log, *command, environment=environment)

    async def _envoy(self, settings: Settings | None) -> RunningEnvoy:
        # Envoy logs only warnings, because logging would affect the measurement.
        return await self._stack.enter_async_context(run_envoy(bootstrap(settings, self.model), log_level="warning"))


@asynccontextmanager
async def running(*beneath: str) -> AsyncIterator[Rig]:
    """Run a rig until the block ends. External processors are run by the command `beneath`, if any.

    Raises BenchError for a stand-in that does not start.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        rig = Rig(stack, folder, beneath)
        try:
            yield rig
        except Exception:
            # The output of the processes may explain the error, and its folder will be deleted.
            print(rig.said(), file=sys.stderr)
            raise


def bootstrap(settings: Settings | None, model: int) -> str:
    """Return the project's bootstrap for the external processor of `settings`; without the filter if it is None."""
    text = render_envoy(
        settings or Settings(),
        listen=loopback(0),
        upstreams=[Upstream.parse(f"http://{LOOPBACK}:{model}")],
        admin=loopback(0),
    )
    if settings is not None:
        return text
    tree: Any = yaml.safe_load(text)
    manager = tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != _EXT_PROC]
    return json.dumps(tree)  # JSON is YAML


def _port(envoy: RunningEnvoy) -> int:
    port = urlsplit(envoy.url).port
    assert port is not None
    return port
