"""Settings that change while the process serves."""

from __future__ import annotations

import asyncio

from extproc.serve.reload import Reloader


async def test_failed_reload_does_not_prevent_the_next() -> None:
    reloads: asyncio.Queue[None] = asyncio.Queue()

    def reload() -> None:
        reloads.put_nowait(None)
        raise ValueError("unforeseen")

    reloader = Reloader(None, reload)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        for _ in range(2):
            reloader.ask()
            await asyncio.wait_for(reloads.get(), 10)
        running.cancel()
