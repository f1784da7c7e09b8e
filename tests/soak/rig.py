"""The chain of a soak. Each part is a process that can be killed and restarted on the same port."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.envoy import Upstream, render_envoy
from tests.bench.process import LOOPBACK
from tests.fakes.envoy import RunningEnvoy, run_envoy
from tests.fakes.ports import free_port
from tests.soak.aim import Orders
from tests.soak.certificates import Certificates
from tests.soak.openings import Opening
from tests.soak.part import Part
from tests.soak.script import REQUEST_BYTES, Pace
from tests.soak.variants import Variant

AIM_TIMEOUT, VERDICT_TIMEOUT, BREAKER_OPEN = 5.0, 10.0, 2.0
"""The limits of a detection, of Aim's silence in a session, and of the pause after many failures, in seconds."""

HELD_BYTES = 4_194_304
"""The most unverified text of one stream that the sidecar holds."""

_FAILED_OPEN = "failed_open"

GAUGES = ("extproc_streams", "extproc_sessions", "extproc_held_bytes")


class Rig:
    """The running chain."""

    def __init__(self, folder: Path, seed: int, pace: Pace, variant: Variant) -> None:
        """Prepare the chain; its files go to `folder`."""
        self.folder = folder
        self.variant = variant
        self.problems: list[str] = []
        """What faults have found to be wrong."""
        self.journals = {name: folder / f"{name}.journal" for name in ("aim", "model")}
        self._audit = folder / "audit.jsonl"
        self._orders, self._key, self._config = folder / "orders.json", folder / "key", folder / "settings.yaml"
        first = free_port(5 + variant.workers)
        aim, model, admin, self.port, self._envoy_admin, *sidecar = range(first, first + 5 + variant.workers)
        self._admin = admin
        self.certificates = (
            Certificates(folder / "tls", has_client_tls=variant.has_client_tls) if variant.has_tls else None
        )
        self._settings: dict[str, Any] = {
            "listen": f"{LOOPBACK}:{sidecar[0]}",
            "admin": f"{LOOPBACK}:{admin}",
            "workers": variant.workers,
            "drain_seconds": 5,  # so long the workers outlive their supervisor if it is killed
            "tls": self.certificates.settings if self.certificates else {},
            # Of each exchange that fails open the audit log names the user, and so its number.
            "audit": {"file": str(self._audit), "identity": "plain"} if variant.is_open else {},
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
                "held_bytes": HELD_BYTES,
                "total_held_bytes": 134_217_728,
                "streams": 2000,
            },
        }
        self.orders = Orders()
        served = [str(aim), str(self._orders), str(self.journals["aim"]), str(pace.lag)]
        self.aim = Part("aim", folder, ["tests.soak.aim", *served], aim)
        script = [str(model), str(seed), str(pace), str(self.journals["model"])]
        self.model = Part("model", folder, ["tests.soak.model", *script], model)
        command = "tests.soak.sidecar" if variant.is_aim_slow else "extproc"
        self.sidecar = Part("sidecar", folder, [command, "serve", "--config", str(self._config)], *sidecar)
        self._envoys = AsyncExitStack()
        self.envoy: RunningEnvoy | None = None
        self.envoy_version = ""

    @property
    def sidecar_pids(self) -> list[int]:
        """The ids of the sidecar's processes: the only one, or the supervisor and its workers."""
        return [self.sidecar.pid, *self.sidecar.children]

    async def rotate_certificate(self, seconds: float) -> None:
        """Replace the sidecar's certificate; check after `seconds` that new connections get it."""
        assert self.certificates is not None
        self.certificates.rotate()
        await asyncio.sleep(seconds)
        self.problems += await self.certificates.problems(self.sidecar.port)

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
        if self.certificates:
            bootstrap = yaml.safe_load(text)
            self.certificates.trust(bootstrap)
            text = yaml.safe_dump(bootstrap)
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
        profiles = {"default": {"failure_mode_allow": self.variant.is_open, **profile}}
        _replace(self._config, yaml.safe_dump(self._settings | {"profiles": profiles}))

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

    def openings(self) -> list[Opening]:
        """Return the legs that failed open, as the sidecar has logged it."""
        numbers = {
            line["call_id"]: int(line["user_email"].partition("@")[0])
            for line in (_parsed(text) for text in _lines(self._audit))
            if "user_email" in line
        }
        # The log has the time of day, everything else that of the monotonic clock.
        ahead = time.time() - time.monotonic()
        return [
            Opening(
                numbers.get(line["call_id"]),
                line["leg"],
                line["reason"],
                datetime.fromisoformat(line["timestamp"]).timestamp() - ahead,
            )
            for line in map(_parsed, self.sidecar.logs())
            if line.get("event") == _FAILED_OPEN
        ]

    def logged_openings(self) -> int:
        """Return how many legs failed open since the sidecar's last start."""
        return sum(_parsed(line).get("event") == _FAILED_OPEN for line in self.sidecar.last_log())

    def internal_errors(self) -> list[str]:
        """Return the lines of the sidecar's log that must never occur."""
        found = []
        for line in self.sidecar.logs():
            event = _parsed(line).get("event", "unreadable")
            if event in ("internal_error", "library", "protocol_error", "unreadable"):
                found.append(line[:500])
        return found


def _parsed(line: str) -> dict[str, Any]:
    """Return a JSON line; an empty object if it is none."""
    try:
        return dict(json.loads(line))
    except (TypeError, ValueError):
        return {}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@asynccontextmanager
async def running(seed: int, pace: Pace, variant: Variant) -> AsyncIterator[Rig]:
    """Run a chain until the block ends. After an error, print the end of the sidecar's log to stderr."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        rig = Rig(Path(name), seed, pace, variant)
        try:
            await rig.start()
            yield rig
        except BaseException:
            print(*list(rig.sidecar.logs())[-5:], sep="\n", file=sys.stderr)
            raise
        finally:
            await rig.stop()


def file_descriptors(pids: Iterable[int]) -> int:
    """Return how many files some processes have open. One that has ended has none."""
    count = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            count += len(os.listdir(f"/proc/{pid}/fd"))
    return count


def sockets(pid: int) -> int:
    """Return how many sockets a process has open. One that has ended has none."""
    count = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # the file was just closed
                count += os.readlink(entry.path).startswith("socket:")
    return count
