"""The tests of this folder run a real Envoy, share running chains, and are skipped if there is no Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rigs

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            for mark in needs_envoy:
                item.add_marker(mark)


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def rigs() -> AsyncIterator[Rigs]:
    """Yield the chains that the tests of this folder share."""
    async with AsyncExitStack() as stack:
        yield Rigs(stack)
