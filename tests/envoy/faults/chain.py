"""The whole chain with a gate on every network connection, and the means to repair it after a fault."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import prometheus_client
import yaml
from prometheus_client.parser import text_string_to_metric_families

from extproc.config.profile import PROFILE_METADATA
from extproc.render.cluster import SIDECAR
from tests.envoy.faults.gate import Gate
from tests.fakes.aim import ScriptedAim
from tests.fakes.connection import abort
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.ports import free_port
from tests.fakes.process import Running, serving
from tests.fakes.rig import bootstrap, manager_of
from tests.fakes.sidecar import Sidecar, settings_for, sidecar
from tests.fakes.upstream import ScriptedUpstream

SECONDS: Final = 30.0
"""The time in which every exchange ends and is freed. The settings below allow much less."""

LIMITS: Final = {
    "request_bytes": 65_536,
    "response_bytes": 65_536,
    "headers": 48,  # Envoy itself allows no more than 100
    "event_bytes": 8_192,
    "held_bytes": 16_384,
}

_POLICIES: Final[Mapping[str, Any]] = {
    "closed": {},
    "open": {"failure_mode_allow": True},
    "named": {"failure_mode_allow": ["key_refused"]},
}
PROFILES: Final[Mapping[str, Any]] = {
    name + suffix: {**policy, "hooks": list(hooks)}
    for name, policy in _POLICIES.items()
    for suffix, hooks in {"": ("pre_call", "output"), "-request": ("pre_call",), "-answer": ("output",)}.items()
}
"""Each profile has a route of its own, such as `/closed/v1/...`. With `-request` or `-answer` only that leg is judged.
"""

_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"

COUNTED: Final = {
    "extproc_exchanges_total": ("outcome",),
    "extproc_detection_errors_total": ("hook", "reason"),
    "extproc_fail_open_total": ("leg", "reason"),
}

Count = tuple[str, ...]


@dataclass(frozen=True)
class Wiring:
    """The differences of a chain from the default."""

    aim: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    edit: Callable[[Any], None] = lambda tree: None
    ping_seconds: float = 20.0
    """The interval in which the sidecar pings a session that says nothing, unless it is a process."""
    is_process: bool = False
    has_door: bool = True
    """Whether Envoy connects to the sidecar through a gate. It connects to several workers by their sockets."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The content of the files in the chain's folder, which a repair restores. The settings call it `{folder}`."""
    pipes: tuple[str, ...] = ()
    """Named pipes in the chain's folder: who opens one to read it hangs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the sidecar's process."""
    tls: ssl.SSLContext | None = None
    """The TLS of the gate in front of Aim; the sidecar then trusts `ca`."""
    ca: bytes = b""


class Chain:
    """A running chain. `to_sidecar`, `to_aim` and `to_model` are the gates between its parts."""

    def __init__(self, wiring: Wiring, aim: ScriptedAim, upstream: ScriptedUpstream, to_aim: Gate, to_model: Gate):
        self.wiring = wiring
        self.aim = aim
        self.upstream = upstream
        self.to_aim = to_aim
        self.to_model = to_model
        self.to_sidecar = Gate(0)
        self.sidecar: Sidecar | None = None
        self.process: Running | None = None
        self.config = Path()
        self._admin = ""
        self._killed = 0
        self._strangers: list[asyncio.StreamWriter] = []
        self.folder = Path()
        self.at_mend: list[Callable[[], object]] = []
        """Called once when the chain is repaired."""
        self._bootstrap = ""
        self._envoy: RunningEnvoy | None = None
        self._envoys = AsyncExitStack()
        self._processes = AsyncExitStack()

    @property
    def url(self) -> str:
        assert self._envoy is not None
        return self._envoy.url

    # -- starting ----------------------------------------------------------------------------------------------------

    async def start(self, stack: AsyncExitStack) -> None:
        wiring = self.wiring
        self.folder = Path(stack.enter_context(TemporaryDirectory()))
        scheme = "https" if wiring.tls is not None else "http"
        ports = {"gate": self.to_aim.port, "aim": self.to_aim.target, "folder": self.folder}
        self._restore_files()
        for name in wiring.pipes:
            os.mkfifo(self.folder / name)
        aim = {name: value.format(**ports) if isinstance(value, str) else value for name, value in wiring.aim.items()}
        if wiring.ca:
            (self.folder / "ca.pem").write_bytes(wiring.ca)
            aim["ca_file"] = str(self.folder / "ca.pem")
        base = f"{scheme}://127.0.0.1:{self.to_aim.port}"
        changes: dict[str, Any] = {
            "aim": {"breaker": {"failures": 10_000}, **aim},
            "limits": {**LIMITS, **wiring.limits},
            "profiles": dict(PROFILES),
            **wiring.settings,
        }
        settings = settings_for(base, **changes)
        if wiring.is_process:
            stack.push_async_exit(self._processes)
            stack.push_async_callback(self._end_process)
            port, admin = free_port(), free_port()
            # Two successive ports may not stay free, so several workers listen on sockets.
            listen = f"127.0.0.1:{port}" if wiring.has_door else f"unix:{self.folder}/extproc.sock"
            changes |= {"listen": listen, "admin": f"127.0.0.1:{admin}"}
            self._admin = f"http://127.0.0.1:{admin}"
            self.config = self.folder / "settings.yaml"
            changes["aim"] = {"base_url": base, "api_key": "test-key", **changes["aim"]}
            self.config.write_text(yaml.safe_dump(changes))
            await self.start_sidecar()
        else:
            self.sidecar = await stack.enter_async_context(sidecar(settings, ping_seconds=wiring.ping_seconds))
            port = self.sidecar.port
        if wiring.has_door:
            self.to_sidecar.target = port
            await stack.enter_async_context(self.to_sidecar.running())
            port = self.to_sidecar.port
        tree = yaml.safe_load(bootstrap(settings, port, self.to_model.port))
        if not wiring.has_door:
            (cluster,) = [each for each in tree["static_resources"]["clusters"] if each["name"] == SIDECAR]
            (endpoints,) = cluster["load_assignment"]["endpoints"]
            for number, endpoint in enumerate(endpoints["lb_endpoints"]):
                endpoint["endpoint"]["address"] = {"pipe": {"path": f"{self.folder}/extproc.sock-{number}"}}
        _route_profiles(tree)
        wiring.edit(tree)
        self._bootstrap = yaml.safe_dump(tree)
        stack.push_async_exit(self._envoys)
        await self.start_envoy()

    async def start_envoy(self) -> None:
        self._envoy = await self._envoys.enter_async_context(run_envoy(self._bootstrap))

    async def start_sidecar(self) -> None:
        variables = {name: value.format(folder=self.folder) for name, value in self.wiring.environment.items()}
        self.process = await self._processes.enter_async_context(serving(self.config, None, **variables))
        await self._until_workers_serve()

    async def _until_workers_serve(self) -> None:
        """Read the log until each worker serves. The record of the first one was read before."""
        assert self.process is not None
        while len(self._workers()) < self.wiring.settings.get("workers", 1):
            await self.process.until("serving")

    def _workers(self) -> dict[str, int]:
        """Return the process id of each worker by its address, from its last record about listening."""
        assert self.process is not None
        return {line["listen"]: line["pid"] for line in self.process.lines if line["event"] == "serving"}

    async def signal_worker(self, number: int) -> None:
        """Kill the worker that has an exchange, according to Envoy, or stop it: then the supervisor kills it later."""
        assert self._envoy is not None
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            clusters = (await client.get(f"{self._envoy.admin}/clusters")).text
        (address,) = re.findall(rf"^{SIDECAR}::(\S+)::rq_active::[1-9]", clusters, re.MULTILINE)
        self._killed = self._workers()[f"unix:{address}"]
        os.kill(self._killed, number)

    async def crowd(self, count: int) -> None:
        """Open connections to the admin port that say nothing; they stay open until `mend`."""
        host, port = self._admin.removeprefix("http://").split(":")
        for _ in range(count):
            _, writer = await asyncio.open_connection(host, int(port))
            self._strangers.append(writer)

    # -- ending ------------------------------------------------------------------------------------------------------

    def _restore_files(self) -> None:
        for name, content in self.wiring.files.items():
            aside = self.folder / f".{name}"
            aside.write_text(content)
            aside.rename(self.folder / name)

    async def end_envoy(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to Envoy, and wait for its end."""
        assert self._envoy is not None
        os.kill(self._envoy.pid, number)
        async with asyncio.timeout(SECONDS):
            while _lives(self._envoy.pid):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        self._envoy = None

    async def end_sidecar(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the sidecar's process; return its exit status once it has ended."""
        assert self.process is not None
        self.process.signal(number)
        status = await self.process.ended()
        self.process = None
        return status

    async def _end_process(self) -> None:
        # A killed supervisor would leave its workers behind.
        if self.process is not None:
            await self.end_sidecar(signal.SIGTERM)

    async def mend(self) -> None:
        """Repair everything."""
        self.aim.reset()
        self.upstream.reset()
        for stranger in self._strangers:
            await abort(stranger)
        self._strangers.clear()
        while self.at_mend:
            self.at_mend.pop()()
        self._restore_files()
        for gate in (self.to_aim, self.to_model, *((self.to_sidecar,) if self.wiring.has_door else ())):
            await gate.mend()
        if self.wiring.is_process and self.process is None:
            await self.start_sidecar()
        if self._envoy is None:
            await self.start_envoy()
        while self.process is not None and self._killed in self._workers().values():
            await self.process.until("serving")  # it is restarted

    # -- what the sidecar says of itself -----------------------------------------------------------------------------

    async def _metrics(self) -> Counter[tuple[str, ...]]:
        if self.sidecar is not None:
            text = prometheus_client.generate_latest(self.sidecar.service.telemetry.registry).decode()
        elif self.process is None:
            return Counter()
        else:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                text = (await client.get(f"{self._admin}/metrics")).text
        found: Counter[tuple[str, ...]] = Counter()
        for sample in [sample for family in text_string_to_metric_families(text) for sample in family.samples]:
            labels = COUNTED.get(sample.name)
            if labels is not None:
                found[(sample.name, *(sample.labels[label] for label in labels))] += int(sample.value)
            elif sample.name in ("extproc_streams", "extproc_sessions", "extproc_held_bytes"):
                found[(sample.name,)] += int(sample.value)
        return found

    async def counts(self) -> Counter[Count]:
        """Return the counts of exchanges, detection errors and legs that failed open, by their labels."""
        return Counter({key: value for key, value in (await self._metrics()).items() if len(key) > 1 and value})

    async def held(self) -> dict[str, int]:
        """Return the current streams, sessions and held bytes, without zeros."""
        metrics = await self._metrics()
        held = {name.removeprefix("extproc_"): value for (name, *labels), value in metrics.items() if not labels}
        if self.sidecar is not None:
            held["held_bytes"] = self.sidecar.service.load.held_bytes  # only `extproc serve` updates the gauge
        return {name: value for name, value in held.items() if value}


def _route_profiles(tree: Any) -> None:
    (host,) = manager_of(tree)["route_config"]["virtual_hosts"]
    (usual,) = host["routes"]
    for name in PROFILES:
        route = yaml.safe_load(yaml.safe_dump(usual)) | {"name": name, "match": {"prefix": f"/{name}/"}}
        named = {"grpc_initial_metadata": [{"key": PROFILE_METADATA, "value": name}]}
        per_route = {"@type": _PER_ROUTE, "overrides": named}
        route["typed_per_filter_config"] = {"envoy.filters.http.ext_proc": per_route}
        host["routes"].insert(0, route)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def running(wiring: Wiring) -> AsyncIterator[Chain]:
    """Run a chain."""
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        to_aim = await stack.enter_async_context(Gate(int(aim.base.rpartition(":")[2]), wiring.tls).running())
        to_model = await stack.enter_async_context(Gate(upstream.port).running())
        chain = Chain(wiring, aim, upstream, to_aim, to_model)
        await chain.start(stack)
        yield chain
