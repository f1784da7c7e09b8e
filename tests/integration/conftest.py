"""A scripted Aim for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.fakes.aim import ScriptedAim


@pytest_asyncio.fixture
async def aim() -> AsyncIterator[ScriptedAim]:
    async with ScriptedAim().running() as service:
        yield service
