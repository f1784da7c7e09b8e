"""The chain of a soak. Each part is a process that can be killed and restarted on the same port."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.envoy import Upstream, render_envoy
from tests.bench.process import LOOPBACK, Started, loopback, started
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.ports import free_port
from tests.soak.aim import Orders
from tests.soak.script import REQUEST_BYTES, Pace

AIM_TIMEOUT, VERDICT_TIMEOUT, BREAKER_OPEN = 5.0, 10.0, 2.0
"""The limits of a detection, of Aim's silence in a session, and of the pause after many failures, in seconds."""

GAUGES = ("extproc_streams", "extproc_sessions", "extproc_held_bytes")


class Part:
    """One process of the chain."""

    def __init__(self, name: str, folder: Path, arguments: list[str], port: int, **environment: str) -> None:
        """Prepare `python -m ARGUMENTS`, which listens on `port`, without starting it."""
        self.name = name
        self.port = port
        self._folder = folder
        self._arguments = arguments
        self._environment = environment
        self._starts = 0
        self._running = ExitStack()
        self._process: Started | None = None

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens; raises BenchError."""
        self._starts += 1
        log = self._folder / f"{self.name}.{self._starts}.log"
        self._process = self._running.enter_context(
            started(log, sys.executable, "-m", *self._arguments, environment=self._environment)
        )
        self._process.wait(loopback(self.port))

    def kill(self) -> None:
        """Kill it, as in a crash."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Stop it regularly if it runs."""
        self._process = None
        self._running.close()

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def logs(self) -> Iterator[str]:
        """Yield all lines that it has logged, including those before a restart."""
        for path in sorted(self._folder.glob(f"{self.name}.*.log")):
            yield from path.read_text(errors="replace").splitlines()


class Rig:
    """The running chain."""

    def __init__(self, folder: Path, seed: int, pace: Pace) -> None:
        """Prepare the chain; its files go to `folder`."""
        self.folder = folder
        self.journals = {name: folder / f"{name}.journal" for name in ("aim", "model")}
        self._orders, self._key, self._config = folder / "orders.json", folder / "key", folder / "settings.yaml"
        first = free_port(6)
        aim, model, sidecar, admin, self.port, self._envoy_admin = range(first, first + 6)
        self._admin = admin
        self._settings: dict[str, Any] = {
            "listen": f"{LOOPBACK}:{sidecar}",
            "admin": f"{LOOPBACK}:{admin}",
            "workers": 1,
            "aim": {
                "api": "firewall",
                "base_url": f"http://{LOOPBACK}:{aim}",
                "api_key_file": str(self._key),
                "timeout_seconds": AIM_TIMEOUT,
                "verdict_timeout_seconds": VERDICT_TIMEOUT,
                "breaker": {"failures": 10, "open_seconds": BREAKER_OPEN},
            },
            "limits": {
                "request_bytes": REQUEST_BYTES,
                "response_bytes": 1_048_576,
                "event_bytes": 524_288,
                "held_bytes": 4_194_304,
                "total_held_bytes": 67_108_864,
                "streams": 2000,
            },
        }
        self.orders = Orders()
        self.aim = Part("aim", folder, ["tests.soak.aim", str(aim), str(self._orders), str(self.journals["aim"])], aim)
        script = [str(seed), str(pace.pieces), str(pace.interval)]
        self.model = Part(
            "model", folder, ["tests.soak.model", str(model), *script, str(self.journals["model"])], model
        )
        self.sidecar = Part("sidecar", folder, ["extproc", "serve", "--config", str(self._config)], sidecar)
        self._envoys = AsyncExitStack()
        self.envoy: RunningEnvoy | None = None
        self.envoy_version = ""

    @property
    def envoy_pid(self) -> int:
        """Envoy's process id; 0 while it does not run."""
        return self.envoy.pid if self.envoy else 0

    async def start(self) -> None:
        """Start every part; raises BenchError and EnvoyFailed."""
        self.order(keys=("key-1",))
        self.give_key("key-1")
        self.configure()
        for part in (self.aim, self.model, self.sidecar):
            part.start()
        await self.start_envoy()

    async def stop(self) -> None:
        """Stop every part."""
        await self._envoys.aclose()
        for part in (self.sidecar, self.model, self.aim):
            part.stop()

    async def start_envoy(self) -> None:
        """Start Envoy on the project's own bootstrap."""
        text = render_envoy(
            Settings(**self._settings),
            listen=Address(host=LOOPBACK, port=self.port),
            upstreams=[Upstream.parse(f"http://{LOOPBACK}:{self.model.port}")],
            admin=Address(host=LOOPBACK, port=self._envoy_admin),
        )
        self.envoy = await self._envoys.enter_async_context(run_envoy(text, log_level="error"))
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.get(f"{self.envoy.admin}/server_info")
        self.envoy_version = answer.json()["version"].split("/")[1]

    async def kill_envoy(self) -> None:
        """Kill Envoy, as in a crash."""
        os.kill(self.envoy_pid, signal.SIGKILL)
        self.envoy = None
        await self._envoys.aclose()

    def order(self, fault: str = "", keys: tuple[str, ...] | None = None) -> None:
        """Tell Aim its fault and, if they change, the keys that it accepts."""
        self.orders = replace(self.orders, fault=fault, keys=self.orders.keys if keys is None else keys)
        self.orders.write(self._orders)

    def give_key(self, key: str) -> None:
        """Replace the sidecar's key file atomically, as Kubernetes does."""
        _replace(self._key, key)

    def configure(self, **profile: object) -> None:
        """Replace the sidecar's settings file; `profile` has further settings of the default profile."""
        _replace(self._config, yaml.safe_dump(self._settings | {"profiles": {"default": profile}}))

    async def gauges(self) -> dict[str, float]:
        """Return the sidecar's `GAUGES`, and the number of legs that failed open."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.get(f"http://{LOOPBACK}:{self._admin}/metrics")
        found = dict.fromkeys((*GAUGES, "extproc_fail_open_total"), 0.0)
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name in found:
                    found[sample.name] += sample.value
        return found

    async def envoy_allocated(self) -> int:
        """Return the bytes that Envoy has allocated."""
        assert self.envoy is not None
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return int((await client.get(f"{self.envoy.admin}/memory")).json()["allocated"])

    def keep(self, target: Path) -> None:
        """Replace `target` with a copy of the files of all parts, including Envoy's access log."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target)
        if self.envoy:
            shutil.copy(self.envoy.folder / "access.log", target)

    def internal_errors(self) -> list[str]:
        """Return the lines of the sidecar's log that must never occur."""
        found = []
        for line in self.sidecar.logs():
            try:
                event = json.loads(line).get("event")
            except ValueError:
                event = "unreadable"
            if event in ("internal_error", "library", "protocol_error", "unreadable"):
                found.append(line[:500])
        return found


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@asynccontextmanager
async def running(seed: int, pace: Pace) -> AsyncIterator[Rig]:
    """Run a chain until the block ends. After an error, print the end of the sidecar's log to stderr."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        rig = Rig(Path(name), seed, pace)
        try:
            await rig.start()
            yield rig
        except BaseException:
            print(*list(rig.sidecar.logs())[-5:], sep="\n", file=sys.stderr)
            raise
        finally:
            await rig.stop()


def file_descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def sockets(pid: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the file was just closed
            count += os.readlink(entry.path).startswith("socket:")
    return count
