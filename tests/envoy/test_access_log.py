"""The access-log formats of docs/observability.md: each mesh's Envoy knows their operators and fills them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.envoy.case import blocks
from tests.fakes.beds import bed
from tests.fakes.rig import Rig, chat_answer, rig
from tests.fakes.upstream import whole

ROOT = Path(__file__).parents[2]

# Where each mesh's resource in the documentation has its format.
FORMATS: dict[str, tuple[str | int, ...]] = {
    "envoy": ("json_format",),
    "istio": ("meshConfig", "extensionProviders", 0, "envoyFileAccessLog", "logFormat", "labels"),
    "envoy-gateway": ("spec", "telemetry", "accessLog", "settings", 0, "format", "json"),
    "kgateway": ("spec", "default", "httpSettings", "accessLog", 0, "fileSink", "jsonFormat"),
}


def found(tree: Any, path: tuple[str | int, ...]) -> Any:
    """Return the value at `path`; None if there is none."""
    for key in path:
        match tree, key:
            case dict(), str():
                tree = tree.get(key)
            case list(), int():
                tree = tree[key]
            case _:
                return None
    return tree


def documented(mesh: str) -> dict[str, str]:
    """Return the format that the documentation has for a mesh."""
    page = (ROOT / "docs" / "observability.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    (value,) = [value for block in blocks if (value := found(block, FORMATS[mesh])) is not None]
    assert isinstance(value, dict)
    return value


def managers(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield the connection managers of a parsed bootstrap."""
    if isinstance(tree, dict):
        if str(tree.get("@type")).endswith(".HttpConnectionManager"):
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from managers(each)


def logging(mesh: str) -> Callable[[Any], None]:
    stdout = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    config = {"@type": stdout, "log_format": {"json_format": documented(mesh)}}

    def edit(tree: Any) -> None:
        for manager in managers(tree):
            manager["access_log"] = [{"name": "envoy.access_loggers.stdout", "typed_config": config}]

    return edit


def chain_of(mesh: str) -> AbstractAsyncContextManager[Rig]:
    if mesh == "envoy":
        return rig(edit=logging(mesh), aim={"api": "firewall"})
    return bed(mesh, logging(mesh))


@pytest.mark.parametrize("mesh", FORMATS)
async def test_documented_format_tells_what_the_sidecar_did(mesh: str) -> None:
    async with chain_of(mesh) as chain:
        blocks("secret")(chain.aim)
        chain.upstream.answer = whole(chat_answer("Hi"))
        calls = [(await chain.chat(text)).headers["x-aim-call-id"] for text in ("my secret", "Hello")]
        refused, passed = await chain.envoy.access_log(2)
        version = await chain.envoy.version()
    assert [refused["call_id"], passed["call_id"]] == calls
    assert (refused["details"], passed["details"]) == ("aim_content_policy_violation", "via_upstream")
    assert (refused["status"], passed["status"]) == (400, 200)
    if mesh != "kgateway":
        assert (refused["aim"]["request"]["action"], passed["aim"]["request"]["action"]) == ("block", "allow")
        assert [refused["aim"]["call_id"], passed["aim"]["call_id"]] == calls
    assert int(passed["held_us"]) > 0
    if version >= (1, 37):
        assert (refused["failed_open"], passed["failed_open"]) == ("0", "0")
    if version >= (1, 38):
        assert (refused["answered_by_sidecar"], passed["answered_by_sidecar"]) == ("1", "0")
