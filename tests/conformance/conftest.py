"""The tests of all SDKs share one chain."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.rig import Rig, rig


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def running() -> AsyncIterator[Rig]:
    """Yield a chain whose breaker never opens: tests fail on purpose, one after the other."""
    async with rig(aim={"breaker": {"failures": 10_000}}) as chain:
        yield chain


@pytest.fixture
def chain(running: Rig) -> Rig:
    """Return the chain as if it were new."""
    running.reset()
    return running
