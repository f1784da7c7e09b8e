"""What every test shares."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import settings

# Speed is measured in benchmarks: a machine that others use too is slow now and then, and no test fails for that.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


_ON_ASYNCIO = ("test_demo", "test_local_aim", "test_ports")
"""Tests of what runs on asyncio's loop, or whose clients need it: what they test of the sidecar is another process."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests on the loop on which `extproc serve` runs."""
    return {"loop": asyncio.new_event_loop if item.path.name.startswith(_ON_ASYNCIO) else uvloop.new_event_loop}
