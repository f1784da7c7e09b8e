"""A client of a scripted Aim, what it asks, and the events of its sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from extproc.aim.client import AimClient, Caller
from extproc.core.errors import DetectionError, Reason
from extproc.core.events import Event
from extproc.core.identity import Identity
from extproc.core.vocabulary import Hook, Input
from tests.fakes.sidecar import settings_for

CALLER = Caller("default", "call-1", Identity("a@b.c", "alias", "s1"))
ASKED = Input(({"role": "user", "content": "Hello"},))


@asynccontextmanager
async def client_of(base: str, *, ping_seconds: float = 20.0, **aim: Any) -> AsyncIterator[AimClient]:
    """Run a client of the Aim at `base`; `aim` holds more of the settings' section `aim`."""
    async with AimClient(settings_for(base, aim=aim), ping_seconds=ping_seconds) as client:
        yield client


async def reason_of(client: AimClient) -> Reason:
    """Return why the client's question fails."""
    with pytest.raises(DetectionError) as caught:
        await client.detect(Hook.PRE_CALL, ASKED, CALLER)
    return caught.value.reason


class Events:
    """What a session delivered."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self.queue.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.queue.get(), 10)
