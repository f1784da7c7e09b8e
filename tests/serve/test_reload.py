"""Settings that change while the process serves."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from structlog.testing import capture_logs

from extproc.core.vocabulary import Hook
from extproc.serve.instance import start_client
from extproc.serve.reload import Reloader
from tests.fakes.aim import ScriptedAim, chunk_of
from tests.fakes.aim_client import ASKED, CALLER, Events
from tests.fakes.sidecar import settings_for


def _fail() -> None:
    raise ValueError("unforeseen")


async def test_failed_reload_does_not_prevent_the_next() -> None:
    applied: asyncio.Queue[None] = asyncio.Queue()
    reads = 0

    def read() -> Callable[[], None]:
        nonlocal reads
        reads += 1
        if reads == 1:
            _fail()
        return _fail if reads == 2 else lambda: applied.put_nowait(None)

    reloader = Reloader(None, read)

    async def has_read(times: int) -> None:
        while reads < times:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.01)

    with capture_logs() as logs:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(reloader.run())
            for times in (1, 2, 3):
                reloader.ask()
                await has_read(times)
            await applied.get()
            running.cancel()
    assert [record["event"] for record in logs] == ["internal_error"] * 2


async def test_change_soon_after_the_start_is_noticed(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("a")
    applied = asyncio.Event()
    reloader = Reloader(config, lambda: applied.set)
    config.write_text("another")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        await applied.wait()
        running.cancel()


async def test_outdated_settings_are_read_at_once(tmp_path: Path) -> None:
    applied = asyncio.Event()
    reloader = Reloader(None, lambda: applied.set, lambda: True)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        await applied.wait()
        running.cancel()


async def test_file_that_hangs_stops_nothing(tmp_path: Path) -> None:
    """A named pipe without a writer hangs when it is opened, as a file on a mount that is lost."""
    config = tmp_path / "settings.yaml"
    os.mkfifo(config)
    read: list[str] = []
    applied, told = asyncio.Event(), asyncio.Event()

    def reading() -> Callable[[], None]:
        read.append(config.read_text())
        return applied.set

    reloader = Reloader(config, reading, on_hang=told.set, pause=lambda _: None, hang_seconds=0.1)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        reloader.ask()
        await told.wait()
        pipe = await asyncio.to_thread(os.open, config, os.O_WRONLY)  # returns once somebody reads
        assert not applied.is_set()
        os.write(pipe, b"new")
        os.close(pipe)
        await applied.wait()
        running.cancel()
    assert read == ["new"]


async def test_file_that_is_rewritten_in_steps_is_read_once_it_is_whole(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("old")
    steps = ["", "half", "half and half"]
    read: list[str] = []
    applied = asyncio.Event()

    def reading() -> Callable[[], None]:
        read.append(config.read_text())
        return applied.set

    def pause(_: float) -> None:
        if steps:
            config.write_text(steps.pop(0))

    reloader = Reloader(config, reading, pause=pause)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        reloader.ask()
        await applied.wait()
        running.cancel()
    assert read == ["half and half"]


async def test_worker_that_cannot_compare_its_settings_tells_it() -> None:
    told, go = asyncio.Event(), threading.Event()
    applied = asyncio.Event()

    def is_outdated() -> bool:
        return go.wait(30)

    reloader = Reloader(None, lambda: applied.set, is_outdated, told.set, pause=lambda _: None, hang_seconds=0.1)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        await told.wait()
        go.set()
        await applied.wait()
        running.cancel()


async def test_file_that_never_stops_changing_is_read_all_the_same(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("")
    applied, pauses = asyncio.Event(), 0

    def pause(_: float) -> None:
        nonlocal pauses
        pauses += 1
        config.write_text("x" * pauses)

    reloader = Reloader(config, lambda: applied.set, pause=pause)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        reloader.ask()
        await applied.wait()
        running.cancel()


async def test_client_of_former_settings_is_freed_without_the_collector(aim: ScriptedAim) -> None:
    """Its certificates take almost a megabyte, and the collector of a serving process rarely runs."""
    events = Events()
    gc.collect()
    gc.disable()
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            client = start_client(settings_for(aim.base), group)
            freed = weakref.ref(client)
            await asyncio.sleep(0)  # it starts
            await client.detect(Hook.PRE_CALL, ASKED, CALLER)
            session = client.open_session(1, CALLER, events)
            session.submit(json.dumps(chunk_of("a")))
            await events.next()
            session.close()
            client.retire()
            del client, session
            while freed() is not None:  # noqa: ASYNC110 - its last tasks end
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
