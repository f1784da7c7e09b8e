"""The tests of all SDKs share one chain. Each module has a function `client`, which opens its SDK's client at a URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.rig import Rig, rig

_FILES = {"default": {"inspect": {"files": True}}}


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def running() -> AsyncIterator[Rig]:
    """Yield a chain whose breaker never opens: tests fail on purpose, one after the other. It inspects files, too."""
    async with rig(aim={"api": "firewall", "breaker": {"failures": 10_000}}, profiles=_FILES) as chain:
        yield chain


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def of_firewall() -> AsyncIterator[Rig]:
    """Yield a chain whose Aim has the form that can redact requests and whole answers."""
    async with rig(aim={"api": "firewall"}, profiles=_FILES) as chain:
        yield chain


@pytest.fixture
def redacting(of_firewall: Rig) -> Rig:
    """Return that chain as if it were new."""
    of_firewall.reset()
    return of_firewall


@pytest_asyncio.fixture(loop_scope="package")
async def redacted(redacting: Rig, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a client that goes through that chain."""
    async with request.module.client(redacting.envoy.url) as client:
        yield client


@pytest.fixture
def chain(running: Rig) -> Rig:
    """Return the chain as if it were new."""
    running.reset()
    return running


@pytest_asyncio.fixture(loop_scope="package")
async def guarded(chain: Rig, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a client that goes through Envoy and the sidecar."""
    async with request.module.client(chain.envoy.url) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="package")
async def direct(chain: Rig, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a client that goes to the model itself."""
    async with request.module.client(f"http://127.0.0.1:{chain.upstream.port}") as client:
        yield client
