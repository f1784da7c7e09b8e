"""What every test shares."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import settings

# Speed is measured in benchmarks: a machine that others use too is slow now and then, and no test fails for that.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


_ON_UVLOOP = frozenset(
    f"test_{name}.py"
    for name in ("aim_client", "dry_run", "errands", "limits", "link", "outbox", "servicer", "stream_writer")
)
"""Tests in whose process the sidecar works. Those that start `extproc serve` have its loop in that process."""

_ON_BOTH = frozenset({"test_transport.py"})
"""Those of a protocol, which a loop's transports and TLS are a part of."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests of what `extproc serve` does on the loop on which it does so, and others on asyncio's."""
    if item.path.name in _ON_BOTH:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"loop": uvloop.new_event_loop if item.path.name in _ON_UVLOOP else asyncio.new_event_loop}
