"""Runs a child process of the demo: writes its output to files, notices its exit, and always stops it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from extproc.demo import DemoFailed

START_SECONDS = 30.0
"""How long a child may take to become ready; usually it takes one second."""

_STOP_SECONDS = 3.0
_POLL_SECONDS = 0.02
_TAIL_LINES = 8
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Child:
    """A running child; `log` holds its stderr."""

    name: str
    pid: int
    log: Path

    async def when_ready(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        """Wait until `is_ready` returns true. Raises DemoFailed after START_SECONDS; the child's exit ends the wait."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    if await is_ready():
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise DemoFailed(f"{self.name} is not ready after {START_SECONDS:g} s{self.last_words()}") from None

    def last_words(self) -> str:
        """Return the last lines of the log, as the end of a sentence."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return ":\n  " + "\n  ".join(lines) if lines else " and wrote nothing."


@asynccontextmanager
async def running(
    name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run `command` while the context lasts; its stdout and stderr go to files in `folder`.

    Raises DemoFailed if it cannot be run. If it exits by itself, the context is cancelled and DemoFailed is raised in
    a group.
    """
    file = name.lower().replace(" ", "-")
    log = folder / f"{file}.log"
    try:
        with log.open("wb") as stderr, (folder / f"{file}.out").open("wb") as stdout:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                # Ctrl-C goes to a terminal's whole process group, but the demo decides the order in which parts stop.
                start_new_session=True,
                preexec_fn=_tie(os.getpid()),
            )
    except OSError as error:
        raise DemoFailed(f"{name} cannot be run: {command[0]}: {error.strerror}") from error
    child = Child(name, process.pid, log)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(process, child))
            yield child
            watching.cancel()
    finally:
        await _stop(process)


async def _watch(process: asyncio.subprocess.Process, child: Child) -> None:
    status = await process.wait()
    how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    raise DemoFailed(f"{child.name} {how}{child.last_words()}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()


def _tie(parent: int) -> Callable[[], None] | None:
    """Return a function that makes a new child die with this process; None if the system does not support that."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent is already gone, so no signal will come
            os._exit(1)

    return tie
