"""The fault matrix through a real Envoy: each fault on each leg, under a closed and an open policy.

The rows are in `tests.envoy.faults`; docs/reliability.md holds them as tables.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
import yaml

from tests.envoy.faults.chain import SECONDS, Chain, running
from tests.envoy.faults.fault import Fault, Leg
from tests.envoy.faults.matrix import CHAINS, GROUPS
from tests.envoy.faults.page import PAGE
from tests.envoy.faults.trial import run
from tests.fakes.envoy import validate
from tests.fakes.rig import bootstrap
from tests.fakes.sidecar import settings_for


def _trials() -> list[object]:
    # Trials that share a chain are adjacent, because only one chain runs at a time.
    groups = [(group, row) for group, rows in GROUPS.items() for row in rows]
    return [
        pytest.param(row, leg, policy, id=f"{group}: {row.name}, {leg}, {policy}", marks=_marks(row, leg, policy))
        for group, row in sorted(groups, key=lambda found: list(CHAINS).index(found[1].chain))
        for leg in row.legs
        for policy in ("closed", "open")
    ]


def _marks(row: Fault, leg: Leg, policy: str) -> list[pytest.MarkDecorator]:
    is_slow = row.is_dear or row.seconds > SECONDS
    run = pytest.mark.long if row.is_long(leg, policy) else pytest.mark.more
    return [run] + [pytest.mark.timeout(300)] * is_slow


class Chains:
    """Holds the chain that is running."""

    def __init__(self) -> None:
        self._name = ""
        self._stack = AsyncExitStack()
        self._chain: Chain | None = None

    async def get(self, name: str) -> Chain:
        """Return the chain `name`; end the previous one."""
        if self._chain is None or self._name != name:
            await self.end()
            self._name, self._chain = name, await self._stack.enter_async_context(running(CHAINS[name]))
        return self._chain

    async def end(self) -> None:
        self._chain = None
        await self._stack.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chains() -> AsyncIterator[Chains]:
    chains = Chains()
    try:
        yield chains
    finally:
        await chains.end()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("fault", "leg", "policy"), _trials())
async def test_fault_has_the_outcome_of_its_row(chains: Chains, fault: Fault, leg: Leg, policy: str) -> None:
    chain = await chains.get(fault.chain)
    try:
        await run(chain, fault, leg, policy)
    except BaseException:
        await chains.end()  # after a failure the chain may be in any state
        raise


def test_overload_manager_of_the_page_is_valid() -> None:
    (snippet,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    tree = yaml.safe_load(bootstrap(settings_for("http://127.0.0.1:1"), 1, 1))
    validate(yaml.safe_dump({**tree, **yaml.safe_load(snippet)}))
