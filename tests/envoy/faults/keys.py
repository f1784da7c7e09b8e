"""The file of the key for Aim fails. The last key stays in use, so only a file that never held one is felt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from extproc.core.errors import Reason
from tests.envoy.faults.fault import FINE, UNAVAILABLE, Arrange, Fault, always, by_policy, every
from tests.envoy.faults.trial import Trial, usual_client
from tests.fakes.client import Got

KEY: Final = "first-key"
"""What the file holds before each fault."""


def never(trial: Trial) -> None:
    """Do nothing: the file has never held a key."""
    trial.judge_one_leg()


def with_file(fault: Callable[[Path, Trial], Awaitable[None] | None]) -> Arrange:
    """Let `fault` happen to the file, and check that the calls have the last key."""

    async def arrange(trial: Trial) -> None:
        if (happening := fault(trial.chain.folder / "key", trial)) is not None:
            await happening
        trial.client = client

    async def client(trial: Trial) -> Got | None:
        got = await usual_client(trial)
        aim = trial.chain.aim
        used = [call.headers for call in aim.questions] + [session.headers for session in aim.sessions]
        assert [headers["authorization"] for headers in used] == [f"Bearer {KEY}"] * 2
        return got

    return arrange


def removed(file: Path, _: Trial) -> None:
    file.unlink()


def emptied(file: Path, _: Trial) -> None:
    """Begin to write the file anew, in place."""
    file.write_bytes(b"")


async def hanging(file: Path, trial: Trial) -> None:
    """Replace the file by a named pipe, and wait until the process has opened it: reading hangs from then on."""
    pipe = file.with_name("pipe")
    os.mkfifo(pipe)
    pipe.rename(file)
    descriptor = await asyncio.to_thread(os.open, file, os.O_WRONLY)
    trial.chain.at_mend.append(lambda: os.close(descriptor))


_NEVER: Final = "the key file has never held a key"

ROWS = [
    Fault(_NEVER, never, every(always(UNAVAILABLE)), Reason.KEY_REFUSED, chain="no key", recovers=False),
    Fault(
        f"{_NEVER}, and the list names key_refused",
        never,
        every(by_policy(UNAVAILABLE)),
        Reason.KEY_REFUSED,
        chain="no key",
        opened_by="named",
        recovers=False,
    ),
    Fault("the key file is removed", with_file(removed), every(always(FINE)), chain="key file"),
    Fault("the key file is emptied in place", with_file(emptied), every(always(FINE)), chain="key file"),
    Fault("reading the key file hangs", with_file(hanging), every(always(FINE)), chain="key file"),
]
