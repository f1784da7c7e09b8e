"""`extproc render envoy` prints a configuration that a real Envoy accepts and that guards."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.envoy import render_envoy
from extproc.render.upstream import Upstream
from tests.fakes.envoy import EnvoyFailed, run_envoy, validate

ANY_PORT = Address.parse("127.0.0.1:0")


def render(*upstreams: str, allow_upgrades: tuple[str, ...] = (), ca_file: Path | None = None, **settings: Any) -> str:
    trusted = {} if ca_file is None else {"ca_file": str(ca_file)}
    return render_envoy(
        Settings(**settings),
        listen=ANY_PORT,
        upstreams=[Upstream.parse(text) for text in upstreams or ("http://127.0.0.1:8080",)],
        admin=ANY_PORT,
        allow_upgrades=allow_upgrades,
        **trusted,
    )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tls")
    files = {"cert_file": folder / "tls.crt", "key_file": folder / "tls.key"}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sidecar"]
    command += ["-out", str(files["cert_file"]), "-keyout", str(files["key_file"])]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="tcp"),
        pytest.param({"listen": "[::1]:50051"}, id="ipv6"),
        pytest.param({"listen": "unix:/run/extproc.sock", "workers": 2}, id="unix-workers"),
        pytest.param({"listen": "localhost:50051", "workers": 2}, id="name-workers"),
    ],
)
def test_envoy_accepts_every_listen_address(settings: dict[str, Any]) -> None:
    validate(render(**settings))


def test_envoy_accepts_tls(tls: dict[str, Path]) -> None:
    validate(render(tls=tls))


def test_envoy_accepts_mtls(tls: dict[str, Path]) -> None:
    validate(render(tls={**tls, "client_ca_file": tls["cert_file"]}))


def test_envoy_accepts_every_kind_of_upstream(tls: dict[str, Path]) -> None:
    upstreams = ["http://models", "/a=https://api.example.com/v1", "/b/=https://10.0.0.1:8443", "/c=http://[::1]:8081"]
    validate(render(*upstreams, ca_file=tls["cert_file"], allow_upgrades=("/a/realtime", "/c")))


def test_envoy_reports_what_it_does_not_accept() -> None:
    with pytest.raises(EnvoyFailed, match="normalise_path"):
        validate(render().replace("normalize_path", "normalise_path"))


async def test_without_a_sidecar_nothing_reaches_the_model() -> None:
    reached = []

    async def model(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer)
        writer.close()

    async with await asyncio.start_server(model, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = render(f"http://127.0.0.1:{port}", listen="127.0.0.1:1", allow_upgrades=("/v1/realtime",))
        async with run_envoy(config) as envoy, httpx.AsyncClient(trust_env=False, timeout=60) as client:
            answer = await client.post(f"{envoy.url}/v1/chat/completions?key=secret", json={"messages": []})
            upgrade = {"connection": "upgrade", "upgrade": "websocket"}
            refused = await client.get(f"{envoy.url}/v1/responses", headers=upgrade)
            entry, _ = await envoy.access_log(2)
    # Envoy's own refusal of the upgrade (403) goes through the sidecar too, so it becomes 503 without a sidecar.
    assert (answer.status_code, refused.status_code) == (503, 503)
    assert reached == []
    assert entry["path"] == "/v1/chat/completions"
    assert entry["status"] == 503
    assert "secret" not in str(entry)
