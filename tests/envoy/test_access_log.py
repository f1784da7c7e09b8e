"""The access-log operators that docs/operations.md names: a real Envoy knows them and fills them in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.envoy.case import blocks
from tests.fakes.rig import chat_answer, manager_of, rig
from tests.fakes.upstream import whole

ROOT = Path(__file__).parents[2]


def documented() -> Any:
    page = (ROOT / "docs" / "operations.md").read_text()
    (block,) = re.findall(r"^```yaml\n(json_format:.*?)^```", page, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(block.replace("FILTER:", "envoy.filters.http.ext_proc:"))["json_format"]


async def test_documented_operators_tell_a_refusal() -> None:
    def log(tree: Any) -> None:
        manager_of(tree)["access_log"][0]["typed_config"]["log_format"]["json_format"] = documented()

    async with rig(edit=log, aim={"api": "firewall"}) as chain:
        blocks("secret")(chain.aim)
        chain.upstream.answer = whole(chat_answer("Hi"))
        for text in ("my secret", "Hello"):
            await chain.chat(text)
        refused, passed = await chain.envoy.access_log(2)
        async with httpx.AsyncClient(trust_env=False) as client:
            version = (await client.get(f"{chain.envoy.admin}/server_info")).json()["version"]
    if "/1.36." in version:
        pytest.skip("Envoy has these fields since 1.37")
    assert (refused["refused_by_sidecar"], passed["refused_by_sidecar"]) == ("1", "0")
    assert (refused["failed_open"], passed["failed_open"]) == ("0", "0")
    assert int(passed["held_us"]) > 0
    assert refused["aim"]["request"]["action"] == "block"
