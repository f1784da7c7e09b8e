"""The tasks that a serving process has only as a worker: it reports to its supervisor and obeys it."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import assert_never

import structlog

from extproc.processor.servicer import ExternalProcessor
from extproc.serve.instance import Instance
from extproc.serve.link import Beat, Link, ReadinessChanged, Reload, SnapshotTaken, TakeSnapshot
from extproc.serve.shared_metrics import FOLDER_VARIABLE
from extproc.telemetry.logs import log_internal_error

_GAUGE_SECONDS = 1.0

_log = structlog.get_logger()


async def update_held_bytes(processor: ExternalProcessor) -> None:
    """Update the shared gauge once a second, until cancelled. The value itself changes with every piece of a body."""
    while True:
        processor.telemetry.held_bytes.set(processor.load.held_bytes)
        await asyncio.sleep(_GAUGE_SECONDS)


async def obey_supervisor(link: Link, instance: Instance, stop: asyncio.Event) -> None:
    """Handle the supervisor's messages. When it has ended, remove the metrics folder that it left and set `stop`."""
    while True:
        try:
            message = await link.receive()
        except EOFError:
            break
        match message:
            case TakeSnapshot():
                try:
                    link.send(SnapshotTaken(await instance.snapshot()))
                except Exception as error:  # the status page then lacks this worker, but exchanges continue
                    log_internal_error(error)
            case Reload():
                instance.reloader.ask()
            case Beat():
                link.send(Beat())
            case ReadinessChanged() | SnapshotTaken():
                pass  # only a worker sends these
            case _:
                assert_never(message)
    _log.error("supervisor_gone")
    shutil.rmtree(os.environ[FOLDER_VARIABLE], ignore_errors=True)
    stop.set()
