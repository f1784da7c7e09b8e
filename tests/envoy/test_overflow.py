"""What Envoy answers, logs and counts when a cluster's circuit breaker is full, as docs/operations.md says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.envoy.case import allows
from tests.fakes.envoy import RunningEnvoy
from tests.fakes.rig import chat_answer, rig
from tests.fakes.upstream import Received, whole

CLUSTERS = {"sidecar": 0, "model": 1}


def breaker(cluster: str, **thresholds: int) -> Callable[[Any], None]:
    def edit(tree: Any) -> None:
        found = tree["static_resources"]["clusters"][CLUSTERS[cluster]]
        found["circuit_breakers"] = {"thresholds": [thresholds]}

    return edit


async def active_counter(envoy: RunningEnvoy) -> str:
    """Return the counter of this Envoy for requests beyond max_requests."""
    return f"upstream_rq_{'active' if await envoy.version() >= (1, 38) else 'pending'}_overflow"


async def overflows(envoy: RunningEnvoy) -> dict[str, int]:
    """Return the counters of overflows that are not 0, by `cluster.counter`, without the port of the model."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.get(f"{envoy.admin}/stats", params={"filter": r"^cluster\..*_overflow$"})
    counters = re.findall(r"^cluster\.(.*): ([1-9]\d*)$", answer.text, re.MULTILINE)
    return {re.sub(r"-127[.]0[.]0[.]1-\d+", "", name): int(value) for name, value in counters}


@pytest.mark.parametrize(
    ("cluster", "name", "flags", "details"),
    [("sidecar", "aim-extproc", "-", "ext_proc_error_gRPC_error_14"), ("model", "http", "UO", "upstream_reset")],
    ids=["sidecar", "model"],
)
async def test_exchange_beyond_max_requests_is_counted(cluster: str, name: str, flags: str, details: str) -> None:
    async with (
        rig(edit=breaker(cluster, max_requests=1), aim={"api": "firewall"}) as chain,
        asyncio.TaskGroup() as group,
    ):
        allows(chain.aim)
        release = asyncio.Event()

        async def answer(request: Received) -> None:
            await release.wait()
            await whole(chat_answer("Hi"))(request)

        chain.upstream.answer = answer
        live = group.create_task(chain.chat("one"))
        await chain.upstream.begun.wait()
        refused = await chain.chat("two")
        (entry,) = await chain.envoy.access_log()
        release.set()
        assert (await live).status_code == 200
        assert refused.status_code == 503
        assert await overflows(chain.envoy) == {f"{name}.{await active_counter(chain.envoy)}": 1}
    assert entry["flags"] == flags
    assert entry["details"].startswith(details)
    assert "overflow" in entry["details"]


async def test_request_beyond_max_pending_requests_is_counted() -> None:
    async with rig(edit=breaker("model", max_pending_requests=0), aim={"api": "firewall"}) as chain:
        allows(chain.aim)
        assert (await chain.chat("one")).status_code == 503
        (entry,) = await chain.envoy.access_log()
        assert await overflows(chain.envoy) == {"http.upstream_rq_pending_overflow": 1}
    assert entry["flags"] == "UO"
