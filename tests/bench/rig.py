"""The chains that are measured: Envoy alone, and Envoy with one external processor each, before the same Aim and model.

Every chain has an Envoy of its own, rendered by the project, so that rounds can change from one to the other at once;
an Envoy that waits costs nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml

from extproc.address import Address
from extproc.render.envoy import Upstream, render_envoy
from extproc.settings import Settings
from tests.bench.process import LOOPBACK, Python, free_ports, python
from tests.fakes.envoy import run_envoy

ALONE, NULL, FLOOR, SIDECAR = "envoy alone", "null", "floor", "sidecar"

_EXT_PROC = "envoy.filters.http.ext_proc"
_KEY = "a-key-for-the-bench"
_VERDICT_TIMEOUT = 120
"""Longer than the longest hold of the bench; a longer timer costs no more."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One way to the model. `processor` is the process id of its external processor, None for Envoy alone."""

    name: str
    port: int
    envoy: int
    processor: int | None
    asks: bool


class Rig:
    """All chains, in the order of their names above, and what Aim was asked."""

    def __init__(self, chains: list[Chain], aim: str, envoy_version: str) -> None:
        """Know the chains, the URL of their Aim and the version of their Envoy."""
        self.chains = chains
        self.envoy_version = envoy_version
        self._aim = aim

    @property
    def processors(self) -> list[tuple[Chain, int]]:
        """The chains that have an external processor, with its process id."""
        return [(chain, chain.processor) for chain in self.chains if chain.processor is not None]

    async def asked(self) -> dict[str, int]:
        """Return Aim's counters: `tests.bench.aim.COUNTERS`."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return dict((await client.get(f"{self._aim}/counters")).json())


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    """Run everything until the block ends; raises BenchError and EnvoyFailed for what does not start."""
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

        def start(name: str, *arguments: str, port: int, **environment: str) -> Python:
            return stack.enter_context(python(logs / name, *arguments, port=port, environment=environment))

        aim, model, null, floor, sidecar, admin = free_ports(6)
        processors = {
            NULL: start(NULL, "tests.bench.null", str(null), port=null),
            FLOOR: start(FLOOR, "tests.bench.null", str(floor), str(aim), port=floor),
            SIDECAR: start(
                SIDECAR,
                *("extproc", "serve"),
                port=sidecar,
                AIM_API_KEY=_KEY,
                AIM_API_BASE=f"http://{LOOPBACK}:{aim}",
                EXTPROC_LISTEN=f"{LOOPBACK}:{sidecar}",
                EXTPROC_ADMIN=f"{LOOPBACK}:{admin}",
                EXTPROC_AIM__VERDICT_TIMEOUT_SECONDS=str(_VERDICT_TIMEOUT),
            ),
        }
        stand_ins = [
            start("aim", "tests.bench.aim", str(aim), port=aim),
            start("model", "tests.bench.model", str(model), port=model),
        ]
        for each in (*processors.values(), *stand_ins):
            each.wait()
        chains = []
        version = ""
        for name in (ALONE, NULL, FLOOR, SIDECAR):
            processor = processors.get(name)
            # Warnings only: an Envoy that logs more than it must is not what is measured.
            text = bootstrap(processor.port if processor else None, model)
            envoy = await stack.enter_async_context(run_envoy(text, log_level="warning"))
            port = urlsplit(envoy.url).port
            assert port is not None
            chains.append(
                Chain(name, port, envoy.pid, processor.pid if processor else None, asks=name in (FLOOR, SIDECAR))
            )
            async with httpx.AsyncClient(trust_env=False) as client:
                version = (await client.get(f"{envoy.admin}/server_info")).json()["version"].split("/")[1]
        try:
            yield Rig(chains, f"http://{LOOPBACK}:{aim}", version)
        except BaseException:
            # Why, the processes may have said; the folder of what they said is about to go.
            for name in processors:
                print(f"-- {name}\n{(logs / name).read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise


def bootstrap(processor: int | None, model: int) -> str:
    """Return the project's bootstrap for an external processor on this port; without the filter where there is none."""
    anywhere = Address(host=LOOPBACK, port=0)
    text = render_envoy(
        Settings(listen=Address(host=LOOPBACK, port=processor or 1)),
        listen=anywhere,
        upstreams=[Upstream.parse(f"http://{LOOPBACK}:{model}")],
        admin=anywhere,
    )
    if processor is not None:
        return text
    tree = yaml.safe_load(text)
    manager = tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != _EXT_PROC]
    return json.dumps(tree)  # JSON is YAML
