"""Beside Envoy AI Gateway, which replays the prompt that it kept: the sidecar's filter has to stand in front of its."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.check import Severity
from extproc.check.envoy import check_envoy
from tests.envoy.case import redacts
from tests.envoy.test_meshes import manager_of, settings_of
from tests.fakes.ai_gateway import AIGateway
from tests.fakes.beds import bed
from tests.fakes.rig import chat_answer, chat_stream
from tests.fakes.upstream import pieces, whole

_FIRST = ("ext_proc", "wasm", "lua", "rbac", "local_ratelimit", "ratelimit", "compressor", "router")
"""Filters before the first of which Envoy AI Gateway inserts its own, by the beginning of their names."""


def insert(gateway: AIGateway, tree: Any) -> None:
    """Insert Envoy AI Gateway's filters where it does: it changes what Envoy Gateway generated and patched."""
    names = [each["name"] for each in manager_of(tree)["http_filters"]]
    prefixes = tuple(f"envoy.filters.http.{name}" for name in _FIRST)
    position = next(index for index, name in enumerate(names) if name.startswith(prefixes))
    gateway.install(tree, position=position)


@pytest.mark.parametrize("is_patched", [True, False], ids=["with --ai-gateway", "without"])
async def test_check_reports_the_order_in_which_redactions_are_lost(is_patched: bool) -> None:
    async with AIGateway().running() as gateway:
        listeners = ("http",) if is_patched else ()
        async with bed("envoy-gateway", lambda tree: insert(gateway, tree), ai_gateway=listeners) as chain:
            redacts("secret", "[X]")(chain.aim)
            chain.upstream.answer = whole(chat_answer("a secret"))
            answer = await chain.chat("my secret")
            assert answer.status_code == 200
            assert "a [X]" in answer.text
            (request,) = chain.upstream.requests
            findings = await check_envoy(settings_of(chain), chain.envoy.admin)
    is_lost = b"secret" in request.body
    errors = [str(finding) for finding in findings if finding.severity is Severity.ERROR]
    assert is_lost is not is_patched
    assert any("redactions are lost" in line for line in errors) is is_lost
    assert len(errors) == is_lost


async def test_stream_is_judged_in_front_of_ai_gateway() -> None:
    async with (
        AIGateway().running() as gateway,
        bed("envoy-gateway", lambda tree: insert(gateway, tree), ai_gateway=("http",)) as chain,
    ):
        redacts("secret", "[X]")(chain.aim)
        chain.upstream.answer = pieces(chat_stream("a secret", " more"))
        answer = await chain.chat("Hello", stream=True)
    assert answer.status_code == 200
    assert "a [X]" in answer.text
    assert "secret" not in answer.text
