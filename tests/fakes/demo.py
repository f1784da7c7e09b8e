"""`extproc demo` as a process of its own.

Each demo gets a folder of its own as TMPDIR. The processes that it starts inherit it, so that `processes_of` finds
them, whatever their parent is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

SECONDS = 60.0
HIDDEN = ("AIM_", "EXTPROC_", "OPENAI_", "FORCE_COLOR", "TTY_", "COLUMNS")


def environment(folder: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    return inherited | {"TMPDIR": str(folder)} | more


def processes_of(folder: Path) -> dict[int, str]:
    """Return pid and command line of each live process whose TMPDIR is `folder`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in variables and command:
                found[int(entry.name)] = command
    return found


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def nothing_is_left(folder: Path) -> bool:
    return is_empty(folder) and not processes_of(folder)


class Demo:
    """A demo under way."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.output = ""

    async def until(self, text: str) -> None:
        """Read its output as far as `text`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while text not in self.output:
                data = await self.process.stdout.read(65536)
                assert data, f"it ended without {text!r}:\n{self.output}"
                self.output += data.decode()

    async def end(self) -> tuple[int, str]:
        """Wait for its end; return status and standard error."""
        async with asyncio.timeout(SECONDS):
            rest, errors = await self.process.communicate()
        self.output += rest.decode()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()

    def child(self, part: str) -> int:
        """Return the pid of the process whose command line holds `part`."""
        (pid,) = (pid for pid, command in processes_of(self.folder).items() if part in command)
        return pid


def _heed_signals() -> None:
    """Restore the default handling of signals, which a new process inherits, in case the test runner ignores them.

    Not in the new process itself, for which it would have to be forked: gRPC's threads would run there and write to its
    stderr.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@asynccontextmanager
async def demo(folder: Path, *arguments: str, **variables: str) -> AsyncIterator[Demo]:
    _heed_signals()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "demo", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(folder, **variables),
    )
    running = Demo(process, folder)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def once(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run `extproc demo --once`; return status, output and standard error."""
    async with demo(folder, "--once", *arguments, **variables) as running:
        status, errors = await running.end()
    return status, running.output, errors
