"""The drain: a process that was told to stop waits for its live exchanges to end."""

from __future__ import annotations

import asyncio

import structlog

from extproc.processor.servicer import ExternalProcessor

GRACE_SECONDS = 2.0
"""New streams are served this long after a signal, because load balancers need time to notice the change."""

_log = structlog.get_logger()


async def drain(processor: ExternalProcessor, seconds: float, hurry: asyncio.Event) -> None:
    """Wait until the last stream has ended, for `seconds` at most and not after `hurry` is set."""
    async with asyncio.TaskGroup() as group:

        async def wait_for_streams() -> None:
            await asyncio.sleep(min(GRACE_SECONDS, seconds))
            processor.is_refusing = True
            await processor.idle.wait()

        async def wait_for_hurry() -> None:
            await hurry.wait()

        tasks = [group.create_task(wait_for_streams()), group.create_task(wait_for_hurry())]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    if processor.load.streams:
        _log.warning("resetting", streams=processor.load.streams)
