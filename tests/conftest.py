"""What every test shares."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop
from hypothesis import Phase, settings

from tests.fakes.aim import ScriptedAim

# Speed is measured in benchmarks. These machines are shared and sometimes slow, so no test fails for being slow.
# A run for the same code gives the same result. `make test-hostile` and `make fuzz` look for new examples.
settings.register_profile("untimed", deadline=None, derandomize="EXAMPLES" not in os.environ)
settings.register_profile("unshrunk", deadline=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("untimed")

_HERE = Path(__file__).parent

_ON_UVLOOP = tuple(
    _HERE / path
    for path in (
        "processor",
        "aim/test_client.py",
        "aim/test_detector.py",
        "aim/test_network.py",
        "aim/test_session.py",
        "serve/test_link.py",
    )
)
"""Tests that run the sidecar in their own process. Tests that start `extproc serve` get uvloop in that process."""

_ON_BOTH = (_HERE / "aim/test_frames.py", _HERE / "aim/test_transport.py")
"""Tests of a protocol class, whose behaviour depends on the loop's transports and TLS."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return how many workers `-n auto` starts: one more than cores, as many tests wait for a process or a clock."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else len(os.sched_getaffinity(0)) + 1


def _is_under(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what `extproc serve` does on the event loop that it uses, and all other tests on asyncio's."""
    if _is_under(item.path, _ON_BOTH):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"loop": uvloop.new_event_loop if _is_under(item.path, _ON_UVLOOP) else asyncio.new_event_loop}


@pytest_asyncio.fixture
async def aim() -> AsyncIterator[ScriptedAim]:
    """Yield a scripted Aim that listens on loopback."""
    async with ScriptedAim().running() as service:
        yield service
