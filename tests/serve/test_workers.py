"""Workers under their supervisor: one admin port for all, no count lost in a crash, no worker left behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from extproc.serve.shared_metrics import FOLDER_VARIABLE, SharedMetrics
from extproc.serve.worker_process import Pulse, WorkerProcess
from extproc.telemetry.metrics import add_process
from tests.bench.process import children
from tests.fakes.aim import ScriptedAim, block
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.process import Running, get, serving, written
from tests.fakes.rig import chat_request
from tests.fakes.sidecar import settings_for

REQUEST = json.dumps(chat_request("Hello")).encode()


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    """Wait for a condition that is not logged."""
    async with asyncio.timeout(60):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.02)


async def until_ready(admin: int) -> None:
    async def is_ready() -> bool:
        return (await get(admin, "/readyz")).status_code == 200

    await until(is_ready)


async def metrics(admin: int) -> dict[str, float]:
    """Scrape once; return the sum of each sample over all its labels."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families((await get(admin, "/metrics")).text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


async def until_metric(admin: int, name: str, value: float) -> None:
    async def is_so() -> bool:
        return (await metrics(admin)).get(name) == value

    await until(is_so)


@asynccontextmanager
async def workers(
    tmp_path: Path, aim: ScriptedAim, count: int, **changes: Any
) -> AsyncIterator[tuple[Running, int, int, list[int]]]:
    """Run several workers; yield the supervisor, the first port, the admin port and the workers' process ids."""
    config, port, admin = written(tmp_path, aim, workers=count, **changes)
    async with serving(config) as process:
        for _ in range(count - 1):
            await process.until("serving")
        pids = {line["listen"]: line["pid"] for line in process.lines if line["event"] == "serving"}
        await until_ready(admin)
        yield process, port, admin, [pids[f"127.0.0.1:{port + number}"] for number in range(count)]


@asynccontextmanager
async def live_exchange(port: int) -> AsyncIterator[EnvoyStream]:
    """Send an exchange whose request is judged, and leave it open."""
    async with envoy_stream(f"127.0.0.1:{port}") as stream:
        await stream.request_headers()
        assert (await stream.read()).HasField("request_headers")
        await stream.body("request", REQUEST)
        assert (await stream.read()).HasField("request_body")
        yield stream


async def exchange(port: int) -> None:
    """Send a whole exchange."""
    async with live_exchange(port) as stream:
        await stream.response_headers(status=204, end=True)
        assert (await stream.read()).HasField("response_headers")
        await stream.done()
        assert await stream.read() is None


async def test_one_scrape_is_the_sum_of_all_workers(tmp_path: Path, aim: ScriptedAim) -> None:
    audit = tmp_path / "audit.jsonl"
    async with workers(tmp_path, aim, 4, audit={"file": str(audit)}) as (process, port, admin, pids):
        await asyncio.gather(*(exchange(port + number % 4) for number in range(40)))
        await until_metric(admin, "extproc_exchanges_total", 40)
        seen = await metrics(admin)
        assert seen["extproc_verdicts_total"] == 40
        assert seen["extproc_detection_seconds_count"] == 40
        assert seen["extproc_detections_per_exchange_count"] == seen["extproc_detections_per_exchange_sum"] == 40
        assert seen["extproc_detection_bytes_total"] == sum(
            int(question.headers["content-length"]) for question in aim.questions
        )
        assert seen["extproc_worker_restarts_total"] == 0
        assert not [name for name in seen if name.endswith("_created")]
        async with live_exchange(port), live_exchange(port + 3):
            assert (await metrics(admin))["extproc_streams"] == 2
        await until_metric(admin, "extproc_streams", 0)
        folder = shared_folder(pids[0])
        # Ctrl-C reaches only the supervisor: a second signal would end a worker's drain at once.
        assert os.getpgid(pids[0]) != os.getpgid(process.pid)
        process.signal()
        assert await process.ended() == 0
        assert not folder.exists()
    outcomes = [json.loads(line).get("outcome") for line in audit.read_text().splitlines()]
    assert outcomes.count("allowed") == 40


def test_limits_are_those_of_the_running_workers() -> None:
    settings = [settings_for("http://aim.example", workers=2)]
    registry = CollectorRegistry()
    add_process(registry, lambda: True, lambda: settings[-1])
    settings.append(settings_for("http://aim.example", workers=3, limits={"streams": 20, "total_held_bytes": 2048}))
    assert registry.get_sample_value("extproc_streams_limit") == 2 * 20
    assert registry.get_sample_value("extproc_held_bytes_limit") == 2 * 2048


async def test_worker_is_restarted_though_its_key_cannot_be_read(tmp_path: Path, aim: ScriptedAim) -> None:
    """A named pipe that nobody writes to hangs when it is opened, as a file on a mount that is lost."""
    key = tmp_path / "key"
    key.write_text("a-key")
    profiles = {"default": {"api_key_file": str(key)}}
    async with workers(tmp_path, aim, 2, profiles=profiles) as (process, port, admin, pids):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(key)
        os.kill(pids[1], signal.SIGKILL)
        told = await process.until("key_unreadable")
        assert (told["worker"], told["problem"]) == (1, "reading it takes too long")
        await process.until("serving")
        await until_ready(admin)
        await exchange(port)  # the other worker has read the key
        async with envoy_stream(f"127.0.0.1:{port + 1}") as stream:
            await stream.request_headers()
            await stream.read()
            await stream.body("request", REQUEST)
            assert (await stream.read()).immediate_response.status.code == 503
        pipe = os.open(key, os.O_WRONLY)  # lets the readers go
        new = tmp_path / "new"
        new.write_text("a-key")
        new.replace(key)
        os.close(pipe)
        await process.until("key_readable")
        await exchange(port + 1)


async def test_crash_loses_no_count(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, port, admin, pids):
        await exchange(port)
        await exchange(port + 1)
        await until_metric(admin, "extproc_exchanges_total", 2)
        async with live_exchange(port + 1):
            assert (await metrics(admin))["extproc_streams"] == 1
            os.kill(pids[1], signal.SIGKILL)
            assert (await process.until("worker_ended"))["worker"] == 1
        # The live exchange of the dead worker is gone, but its counts stay.
        await until_metric(admin, "extproc_streams", 0)
        await process.until("serving")
        await until_ready(admin)
        await exchange(port + 1)
        await until_metric(admin, "extproc_exchanges_total", 3)
        assert (await metrics(admin))["extproc_worker_restarts_total"] == 1
        process.signal()
        assert await process.ended() == 0


async def test_log_records_name_their_worker(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, port, _, _):
        await exchange(port + 1)
        assert (await process.until("exchange"))["worker"] == 1
        process.signal()
        assert await process.ended() == 0
    served = {record["listen"]: record["worker"] for record in process.lines if record["event"] == "serving"}
    assert served == {f"127.0.0.1:{port}": 0, f"127.0.0.1:{port + 1}": 1}


async def test_supervisor_is_ready_when_every_worker_is(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, port, admin, pids):
        os.kill(pids[0], signal.SIGSTOP)
        os.kill(pids[1], signal.SIGKILL)
        await process.until("worker_ended")
        assert (await get(admin, "/readyz")).status_code == 503
        assert (await get(admin, "/healthz")).status_code == 200
        os.kill(pids[0], signal.SIGCONT)
        await process.until("serving")
        await until_ready(admin)
        async with live_exchange(port):
            process.signal()
            await process.until("draining")
            assert (await get(admin, "/readyz")).status_code == 503


async def test_worker_that_hangs_is_not_ready(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, port, admin, pids):
        os.kill(pids[1], signal.SIGSTOP)
        assert (await process.until("worker_silent"))["worker"] == 1
        assert (await get(admin, "/readyz")).status_code == 503
        assert (await get(admin, "/healthz")).status_code == 200
        os.kill(pids[1], signal.SIGCONT)
        await process.until("worker_answers")
        await until_ready(admin)
        await exchange(port + 1)


async def test_worker_that_hangs_for_long_is_restarted(tmp_path: Path, aim: ScriptedAim) -> None:
    config, _, _ = written(tmp_path, aim, workers=2)
    folder, stopping = tmp_path / "shared", asyncio.Event()
    folder.mkdir()
    restarts = Counter("restarts", "", registry=CollectorRegistry())
    # A worker that is slow, because the machine is busy, must not count as one that hangs.
    pulse = Pulse(beat_seconds=0.1, silent_beats=30, last_beats=50, start_beats=10_000)
    worker = WorkerProcess(0, config, str(folder), SharedMetrics(str(folder)), stopping, pulse)

    async def is_ready() -> bool:
        return worker.is_ready

    async def is_restarted() -> bool:
        return next(iter(restarts.collect())).samples[0].value == 1 and worker.is_ready

    before = set(children(os.getpid()))
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.keep(restarts))
            try:
                await until(is_ready)
                (pid,) = set(children(os.getpid())) - before
                os.kill(pid, signal.SIGSTOP)
                await until(is_restarted)
            finally:
                stopping.set()
                worker.stop()
    events = [
        record["event"] for record in logs if record["event"] in ("worker_silent", "worker_killed", "worker_ended")
    ]
    assert events == ["worker_silent", "worker_killed", "worker_ended"]


async def test_second_signal_ends_workers_that_hang_too(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2, drain_seconds=3600) as (process, _, _, pids):
        os.kill(pids[0], signal.SIGSTOP)
        process.signal()
        await process.until("stopped")  # the other worker
        process.signal()
        async with asyncio.timeout(30):  # a worker that hangs while nothing stops is killed after a minute
            assert (await process.until("worker_killed"))["while_starting"] is False
            assert await process.ended() == 0


async def test_worker_that_hangs_at_its_start_is_restarted(tmp_path: Path) -> None:
    """The settings file is a named pipe without a writer: each start hangs, as on a mount that is lost."""
    folder, stopping = tmp_path / "shared", asyncio.Event()
    folder.mkdir()
    os.mkfifo(tmp_path / "settings.yaml")
    restarts = Counter("restarts", "", registry=CollectorRegistry())
    pulse = Pulse(beat_seconds=0.05, silent_beats=1, last_beats=2, start_beats=20)
    worker = WorkerProcess(0, tmp_path / "settings.yaml", str(folder), SharedMetrics(str(folder)), stopping, pulse)

    async def is_restarted_twice() -> bool:
        return next(iter(restarts.collect())).samples[0].value == 2

    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.keep(restarts))
            try:
                await until(is_restarted_twice)
            finally:
                stopping.set()
                worker.stop()
    told = [record for record in logs if record["event"] in ("worker_silent", "worker_killed", "worker_ended")]
    assert [record["event"] for record in told[:4]] == ["worker_killed", "worker_ended"] * 2
    assert told[0]["while_starting"] is True
    assert told[1]["status"] == -signal.SIGKILL


async def test_worker_that_waits_for_aim_has_started(tmp_path: Path, aim: ScriptedAim) -> None:
    """Such a worker serves, although it is not ready, so it is watched like any other, and not killed."""
    config, _, _ = written(tmp_path, aim, workers=2, readiness={"aim": True})
    changed = yaml.safe_load(config.read_text())
    changed["aim"]["base_url"] = "http://127.0.0.1:1"
    config.write_text(yaml.safe_dump(changed))
    folder, stopping = tmp_path / "shared", asyncio.Event()
    folder.mkdir()
    pulse = Pulse(beat_seconds=0.1, silent_beats=30, last_beats=50, start_beats=10_000)
    worker = WorkerProcess(0, config, str(folder), SharedMetrics(str(folder)), stopping, pulse)
    before = set(children(os.getpid()))

    with capture_logs() as logs:

        async def is_told(event: str) -> bool:
            return event in [record["event"] for record in logs]

        async def has_answered() -> bool:
            return await worker.snapshot() is not None

        async with asyncio.TaskGroup() as group:
            group.create_task(worker.keep(Counter("restarts", "", registry=CollectorRegistry())))
            try:
                await until(has_answered)
                assert not worker.is_ready
                (pid,) = set(children(os.getpid())) - before
                os.kill(pid, signal.SIGSTOP)
                await until(lambda: is_told("worker_killed"))
            finally:
                stopping.set()
                worker.stop()
    (killed,) = [record for record in logs if record["event"] == "worker_killed"]
    assert killed["while_starting"] is False


class TestRestartedWorker:
    async def _restart(self, process: Running, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        await process.until("worker_ended")
        await process.until("serving")

    async def _message(self, port: int) -> str:
        """Send a request that is blocked; return the message that the client gets."""
        async with envoy_stream(f"127.0.0.1:{port}") as stream:
            await stream.request_headers()
            await stream.read()
            await stream.body("request", REQUEST)
            reply = (await stream.read()).immediate_response
            return str(json.loads(reply.body)["error"]["message"])

    async def test_keeps_the_settings_in_force(self, tmp_path: Path, aim: ScriptedAim) -> None:
        """A file that was refused, and settings that need a restart of all, do not apply to a restarted worker."""

        async def judge(_: object) -> Any:
            return block("Aim's")

        aim.judge = judge
        async with workers(tmp_path, aim, 2) as (process, port, admin, pids):
            config = tmp_path / "settings.yaml"
            changed = yaml.safe_load(config.read_text())
            changed |= {"listen": f"127.0.0.1:{port + 2}", "profiles": {"default": {"block_message": "new"}}}
            config.write_text(yaml.safe_dump(changed))
            for _ in range(2):
                await process.until("settings_reloaded")

            async def is_supervisor_done() -> bool:
                return "block_message: new" in (shared_folder(pids[0]) / "accepted.yaml").read_text()

            await until(is_supervisor_done)
            await self._restart(process, pids[1])
            assert process.lines[-1]["listen"] == f"127.0.0.1:{port + 1}"
            assert await self._message(port + 1) == "new"
            config.write_text("colour: blue\n")
            await process.until("settings_refused")
            await self._restart(process, pids[0])
            await until_ready(admin)
            assert await self._message(port) == "new"
            assert process.lines[-1]["listen"] == f"127.0.0.1:{port}"


async def test_starting_worker_survives_a_hangup_and_reloads(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, _, _, pids):
        os.kill(pids[0], signal.SIGKILL)
        await process.until("worker_ended")

        async def is_starting() -> bool:
            return bool(set(children(process.pid)) - set(pids))

        await until(is_starting)
        process.signal(signal.SIGHUP)
        for event in ("serving", "settings_reloaded"):
            while [line["event"] for line in process.lines].count(event) < (3 if event == "serving" else 2):
                await process.until(event)
        assert [line["event"] for line in process.lines].count("worker_ended") == 1


async def test_no_process_starts_without_a_link_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = asyncio.Event()
    started: list[object] = []

    async def no_room(**_: object) -> None:
        stopping.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    async def start(*command: object, **_: object) -> None:
        started.append(command)

    monkeypatch.setattr(asyncio, "open_connection", no_room)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with capture_logs() as logs:
        worker = WorkerProcess(0, None, str(tmp_path), SharedMetrics(str(tmp_path)), stopping)
        await worker.keep(Counter("restarts", "", registry=None))
    assert [record["event"] for record in logs] == ["worker_not_started"]
    assert started == []


async def test_page_shows_the_settings_in_force(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, _, admin, _):
        config = tmp_path / "settings.yaml"
        config.write_text(config.read_text() + "profiles: {tenant-b: {}}\n")
        await process.until("settings_reloaded")

        async def shows_it() -> bool:
            return "tenant-b" in (await get(admin, "/")).text

        await until(shows_it)


async def test_drain_lasts_as_long_as_the_settings_in_force_say(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2, drain_seconds=3600) as (process, port, _, _):
        config = tmp_path / "settings.yaml"
        config.write_text(config.read_text().replace("drain_seconds: 3600", "drain_seconds: 0"))
        for _ in range(2):
            await process.until("settings_reloaded")
        async with live_exchange(port) as stream:
            process.signal()
            assert await stream.read() is None
            assert await process.ended() == 0
    events = [line["event"] for line in process.lines]
    assert "restart_needed" not in events
    assert events.count("resetting") == 1
    assert events.count("stopped") == 2  # neither was killed


async def test_no_worker_outlives_its_supervisor(tmp_path: Path, aim: ScriptedAim) -> None:
    async with workers(tmp_path, aim, 2) as (process, _, _, pids):
        folder = shared_folder(pids[0])
        assert folder.is_dir()
        os.kill(process.pid, signal.SIGKILL)

        async def are_gone() -> bool:
            return not any(is_alive(pid) for pid in pids)

        await until(are_gone)
        assert not folder.exists()


def shared_folder(pid: int) -> Path:
    """Return the folder in which a worker keeps the values of its metrics."""
    environ = dict(
        entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in entry
    )
    return Path(environ[FOLDER_VARIABLE])


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")  # there may be no parent that reaps an orphan
