"""The saving of a unix socket between Envoy and the sidecar, compared with TCP over the loopback."""

from __future__ import annotations

from typing import Any, Final

from extproc.config.address import Address
from tests.bench import costs, rounds
from tests.bench.plan import Plan
from tests.bench.rig import running
from tests.bench.rounds import Round

TCP, UNIX = "tcp", "unix"
AT_ONCE: Final = 1


async def measure(plan: Plan) -> dict[str, Any]:
    """Measure exchanges, one at a time, and streamed chunks; return medians of interleaved rounds."""
    found: costs.Found = {}
    sizes = plan.costs
    async with running() as rig:
        chains = [
            await rig.sidecar(TCP),
            await rig.sidecar(UNIX, listen=Address(path=str(rig.folder / "extproc.sock"))),
        ]
        for chain in chains:
            await rounds.warm_up(chain)
        for number in range(plan.transport_rounds):
            for chain in chains[:: -1 if number % 2 else 1]:
                exchanges: Round = await rounds.buffered(chain, AT_ONCE, sizes.exchanges[AT_ONCE])
                chunks = await rounds.streamed(chain, sizes.streams, sizes.stream_seconds)
                found.setdefault(costs.buffered(AT_ONCE), {}).setdefault(chain.name, []).append(exchanges)
                found.setdefault(costs.STREAMED, {}).setdefault(chain.name, []).append(chunks)
    return {
        what: {
            "chains": {name: costs.medians(each) for name, each in by_chain.items()},
            "ratios": costs.ratios(by_chain, [(UNIX, TCP)]),
        }
        for what, by_chain in found.items()
    }
