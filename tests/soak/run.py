"""The soak: mixed traffic through a real Envoy and the sidecar while Aim, the model, clients and processes fail.

    make soak                          five minutes, 500 exchanges at a time
    make soak MINUTES=60 STREAMS=800
    make soak ARGS='--variant tls'     another form of deployment

docs/soak.md describes the soak and its checks. The command prints a table and writes JSON to tests/soak/results/, or to
--json. It exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # When this file is run, Python searches its folder first. The modules' names are too common for that.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import httpx

from tests.bench.process import BenchError, resident_bytes
from tests.fakes.envoy import EnvoyFailed
from tests.soak import faults, journal, report
from tests.soak.checker import Ending, Span, Tally
from tests.soak.client import perform
from tests.soak.lag import held_problems, lag
from tests.soak.openings import Openings
from tests.soak.plan import BOUND_SECONDS, Plan, tiny, usual
from tests.soak.rig import GAUGES, HELD_BYTES, Rig, file_descriptors, running, sockets
from tests.soak.samples import Sample, memory
from tests.soak.script import LARGE, SLOW, Scripts
from tests.soak.variants import PLAIN, VARIANTS

RESULTS = Path(__file__).parent / "results"

_LARGE_SECONDS = 60.0
"""How much later than the load the last large answer may end."""

_SETTLE_SECONDS = 60.0
_MORE_FILES = 8
"""The additional files that each worker may have open at the end: connections of Envoy and of the soak itself."""


@dataclass(slots=True)
class Soak:
    """One soak and its results so far."""

    plan: Plan
    rig: Rig
    tally: Tally
    spans: list[Span] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    faults_until: float = math.inf
    sidecar_since: float = 0.0
    rest: int = 0
    slow: dict[str, int] = field(default_factory=dict)
    began: float = 0.0

    async def run(self) -> dict[str, Any]:
        """Run the whole soak; return the results as JSON."""
        plan, rig = self.plan, self.rig
        self.rest = sum(map(resident_bytes, rig.sidecar_pids))
        files, listening = file_descriptors(rig.sidecar_pids), sockets(rig.aim.pid)
        self.began = asyncio.get_running_loop().time()
        scripts = Scripts(plan.seed, plan.pace)
        numbers, large = itertools.count(), itertools.count(LARGE)
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._watch())
            async with asyncio.TaskGroup() as load:
                for slot in range(plan.streams):
                    load.create_task(self._slot(scripts, numbers, plan.ramp * slot / plan.streams))
                for _ in range(plan.large_clients):
                    load.create_task(self._slot(scripts, large, plan.ramp))
                load.create_task(self._inject())
            watcher.cancel()
        await self._settle(files, listening)
        await self._slow_clients(scripts)
        await self._settle(files, listening)
        return self._results()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    async def _slot(self, scripts: Scripts, numbers: Iterator[int], delay: float) -> None:
        """Perform one exchange after the other until the time is up and every fault has happened."""
        await asyncio.sleep(delay)
        while self._now < max(self.plan.seconds, self.faults_until + self.plan.rest):
            script = scripts[next(numbers)]
            if script.is_large and self._now + script.seconds > self.plan.seconds + _LARGE_SECONDS:
                return
            ending = self.tally.add(script, await perform(self.rig.port, script, BOUND_SECONDS))
            # After a failed exchange the client waits longer.
            rest = self.plan.pace.interval if ending is Ending.COMPLETE else max(1.0, self.plan.pace.interval)
            await asyncio.sleep(rest * random.random())

    async def _inject(self) -> None:
        await asyncio.sleep(self.plan.ramp)

        def note(span: Span) -> None:
            self.spans.append(span)
            if span.name == faults.KILLED_SIDECAR:
                self.sidecar_since = self._now

        await faults.inject(self.rig, self.plan.injected, self.plan.calm, note)
        self.faults_until = self._now

    async def _watch(self) -> None:
        """Take a sample each second."""
        while True:
            with suppress(AssertionError, OSError, IndexError, httpx.HTTPError):  # a part is just being restarted
                sidecar = self.rig.sidecar_pids
                gauges = await self.rig.gauges()
                self.samples.append(
                    Sample(
                        self._now,
                        sum(map(resident_bytes, sidecar)),
                        resident_bytes(self.rig.envoy_pid),
                        file_descriptors(sidecar),
                        int(gauges["extproc_streams"]),
                        os.getloadavg()[0],
                        int(gauges["extproc_held_bytes"]),
                    )
                )
            await asyncio.sleep(1)

    async def _settle(self, files: int, listening: int) -> None:
        """Wait, for a bounded time, until nothing is left of the exchanges. Anything left is a problem."""
        rig = self.rig
        # New settings create a new client for Aim. The old one, which is no longer used, must close its connections.
        rig.configure(stream_head_seconds=2.5 + random.random())
        left: list[str] = []
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            gauges = await rig.gauges()
            left = [f"{name} is {gauges[name]:g} at the end" for name in GAUGES if gauges[name]]
            if (count := sockets(rig.aim.pid)) > listening:
                left.append(f"Aim has {count - listening} open sockets at the end")
            if (count := file_descriptors(rig.sidecar_pids)) > files + _MORE_FILES * rig.variant.workers:
                left.append(f"the sidecar has {count} open files at the end, {files} at rest")
            if not left:
                break
            await asyncio.sleep(0.5)
        counted = round(gauges["extproc_fail_open_total"])
        if counted and not rig.variant.is_open:
            left.append("something went on without a verdict")
        elif counted != (logged := rig.logged_openings()):
            left.append(f"{counted} legs were counted as failed open, {logged} are in the log")
        self.wrongs += left

    async def _slow_clients(self, scripts: Scripts) -> None:
        """Measure Envoy's memory for clients that do not read."""
        if not self.plan.slow_clients:
            return
        rig = self.rig
        rest, peak = await rig.envoy_allocated(), 0
        ask = [
            replace(scripts[SLOW + number], pause=self.plan.slow_seconds) for number in range(self.plan.slow_clients)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(perform(rig.port, script, BOUND_SECONDS)) for script in ask]
            while not all(task.done() for task in tasks):
                peak = max(peak, await rig.envoy_allocated())
                await asyncio.sleep(0.5)
        for script, task in zip(ask, tasks, strict=True):
            if self.tally.add(script, task.result()) is not Ending.COMPLETE:
                self.wrongs.append(f"the slow client {script.number - SLOW} did not get its answer")
        size = sum(map(len, ask[0].events))
        self.slow = {
            "clients": len(ask),
            "answer_bytes": size,
            "envoy_bytes_per_client": round((peak - rest) / len(ask)),
        }

    def _results(self) -> dict[str, Any]:
        tally, rig = self.tally, self.rig
        noted = {name: journal.read(path) for name, path in rig.journals.items()}
        together = {what: noted["aim"][what] | noted["model"][what] for what in noted["aim"]}
        openings = Openings(rig.openings())
        wrongs = [*tally.wrongs, *tally.unverified(together, openings), *tally.unexplained(self.spans)]
        wrongs += [*self._unexplained_openings(openings), *self.wrongs, *rig.problems]
        wrongs += [f"Aim saw the old key {key}" for key in sorted(together[journal.REFUSED_KEY])]
        wrongs += [f"the sidecar logged {line}" for line in rig.internal_errors()]
        found = memory(self.samples, self.sidecar_since, self.rest)
        if found is not None and not found.is_flat:
            wrongs.append(f"memory grew from {found.warm:.0f} to {found.end:.0f} MiB")
        if (complete := tally.endings[Ending.COMPLETE]) < self.plan.streams:
            wrongs.append(f"only {complete} exchanges ended well: that shows nothing")
        large = None
        if clients := self.plan.large_clients:
            large = lag(clients, tally.large, together)
            wrongs += large.problems(self.plan.least_behind, self.plan.least_paused)
            wrongs += held_problems(self.samples, clients, self.plan.streams, HELD_BYTES)
        verified = len(together[journal.VERIFIED])
        everything = report.Found(
            tally, self.spans, self.samples, found, self.slow, verified, openings.counts, large, wrongs
        )
        plan = {name: getattr(self.plan, name) for name in ("seconds", "streams", "slow_clients", "seed")}
        plan["variant"] = rig.variant.name
        return report.results(plan, rig.envoy_version, everything)

    def _unexplained_openings(self, openings: Openings) -> list[str]:
        """Return what is wrong with the times at which the sidecar failed open."""
        if not self.rig.variant.is_open:
            return []
        if not openings.all:
            return ["nothing failed open: that shows nothing"]
        times = [(span.began, span.ended) for span in self.spans if not span.is_harmless]
        return openings.unexplained(times, self.tally.too_large)


async def soak(plan: Plan) -> dict[str, Any]:
    """Run a soak by `plan`; return the results as JSON. Raises BenchError, EnvoyFailed and TimeoutError."""
    async with asyncio.timeout(plan.longest), running(plan.seed, plan.pace, plan.variant) as rig:
        results = await Soak(plan, rig, Tally(is_open=plan.variant.is_open)).run()
        if results["wrongs"]:
            rig.keep(RESULTS / f"wrong-{plan.variant.name}")
        return results


async def _until_told(plan: Plan) -> dict[str, Any]:
    """Run the soak, and stop everything on SIGTERM too, so that no process is left behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await soak(plan)


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Soak the sidecar behind a real Envoy; see docs/soak.md.")
    parser.add_argument(
        "--variant", choices=VARIANTS, default=PLAIN.name, help=f"the form of deployment (default: {PLAIN.name})"
    )
    parser.add_argument("--minutes", type=float, default=5, help="how long there is load (default: 5)")
    parser.add_argument("--streams", type=int, help="exchanges at a time (default: 500, 20 with --tiny)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)), help="draw these exchanges again")
    parser.add_argument("--tiny", action="store_true", help="seconds and few streams, only to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go; tests/soak/results/ if absent")
    options = parser.parse_args(arguments)
    streams = options.streams if options.streams is not None else 20 if options.tiny else 500
    if not 0.25 <= options.minutes <= 24 * 60 or not 1 <= streams <= 5000:
        parser.error("from 0.25 to 1440 minutes, from 1 to 5000 streams")
    variant = VARIANTS[options.variant]
    plan = (
        tiny(variant, streams, options.seed) if options.tiny else usual(variant, options.minutes, streams, options.seed)
    )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an exchange needs several sockets in each process
    try:
        results = asyncio.run(_until_told(plan))
    except (BenchError, EnvoyFailed, TimeoutError, ExceptionGroup) as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        print(f"the soak did not come to its end: {error or 'out of time'}", file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    target = options.json or RESULTS / f"{variant.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(report.tables(results), end="")
    print(f"written to {target}", file=sys.stderr)
    return 1 if results["wrongs"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
