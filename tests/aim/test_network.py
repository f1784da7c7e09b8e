"""The proxy and the TLS context that the settings and the environment describe."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from extproc.aim.network import Network
from extproc.config.aim import Aim
from extproc.core.errors import Reason, SettingsError
from extproc.core.events import SessionDone, SessionFailed
from extproc.core.verdict import Allow
from extproc.core.vocabulary import Hook
from tests.fakes.aim import AimSession, ScriptedAim
from tests.fakes.aim_client import ASKED, CALLER, Events, client_of, reason_of
from tests.fakes.http_peer import Peer, server_tls, tunnel


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def proxy_of(base: str = "https://aim.example", proxy: str | None = None) -> str | None:
    return Network.of(Aim(base_url=base, proxy=proxy)).proxy


@pytest.mark.parametrize(
    ("value", "expected"),
    [("127.0.0.1:3128", "http://127.0.0.1:3128"), ("http://u:p@h:1", "http://u:p@h:1"), ("", None)],
)
def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, expected: str | None) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert proxy_of() == expected


def test_proxy_is_that_of_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    monkeypatch.setenv("http_proxy", "http://plain:1")
    assert (proxy_of(), proxy_of("http://aim.example")) == ("http://secure:1", "http://plain:1")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("aim.example", None),
        (".example", None),
        ("other.example", "http://h:1"),
        ("aim.example:8443", "http://h:1"),
        ("*", None),
    ],
)
def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, names: str, expected: str | None) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://h:1")
    monkeypatch.setenv("NO_PROXY", names)
    assert proxy_of() == expected


def test_proxy_of_the_settings_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://h:1")
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_of(proxy="https://own:1") == "https://own:1"


def test_user_without_a_password_gets_an_empty_one() -> None:
    assert proxy_of(proxy="http://us%40er@own:1") == "http://us%40er:@own:1"


@pytest.mark.parametrize("value", ["http://SECRET:99999", "http://SECRET:0", "socks5://SECRET:1080", "http://:3128"])
def test_wrong_proxy_is_a_problem(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("https_proxy", value)
    with pytest.raises(SettingsError) as caught:
        proxy_of()
    assert "SECRET" not in str(caught.value)


def test_ca_file_without_certificates_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for file in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        with pytest.raises(SettingsError, match=r"aim\.ca_file"):
            Network.of(Aim(ca_file=file))


def test_tls_verifies_unless_switched_off() -> None:
    assert Network.of(Aim()).tls.verify_mode is ssl.CERT_REQUIRED
    tls = Network.of(Aim(verify=False)).tls
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("url", "has_tls"),
    [("https://a", True), ("wss://a", True), ("http://a", False), ("ws://a", False), (None, False)],
)
def test_tls_is_for_the_schemes_that_need_it(url: str | None, has_tls: bool) -> None:
    assert (Network.of(Aim()).tls_for(url) is not None) == has_tls


@asynccontextmanager
async def secured_aim() -> AsyncIterator[tuple[str, trustme.CA]]:
    """Run an Aim with TLS; yield its URL and the authority of its certificate."""

    async def script(session: AimSession) -> None:
        await session.done()
        await session.socket.close()

    authority = trustme.CA()
    aim = ScriptedAim()
    aim.script = script
    async with aim.running(tls=server_tls(authority=authority)):
        yield aim.base, authority


async def test_ca_file_applies_to_rest_and_websocket(tmp_path: Path) -> None:
    async with secured_aim() as (base, authority):
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        async with client_of(base, ca_file=tmp_path / "ca.pem") as client:
            assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
            events = Events()
            client.open_session(1, CALLER, events)
            assert isinstance(await events.next(), SessionDone)


async def test_ca_file_applies_to_an_https_proxy_whose_user_has_no_password(tmp_path: Path) -> None:
    async with secured_aim() as (base, authority), Peer(tunnel(), tls=server_tls(authority=authority)) as proxy:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        with_user = proxy.url.replace("://", "://token@")
        async with client_of(base, ca_file=tmp_path / "ca.pem", proxy=with_user) as client:
            assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
            events = Events()
            client.open_session(1, CALLER, events)
            assert isinstance(await events.next(), SessionDone)
        assert len(proxy.heads) == 2
        for head in proxy.heads:
            assert b"\r\nproxy-authorization: basic dg9rzw46\r\n" in head.lower()


@pytest.mark.parametrize(("verify", "reached"), [(True, False), (False, True)])
async def test_verify_applies_to_rest_and_websocket(verify: bool, reached: bool) -> None:
    async with secured_aim() as (base, _), client_of(base, verify=verify) as client:
        events = Events()
        client.open_session(1, CALLER, events)
        if reached:
            assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
            assert isinstance(await events.next(), SessionDone)
        else:
            assert await reason_of(client) is Reason.UNREACHABLE
            assert await events.next() == SessionFailed(1, Reason.UNREACHABLE, opened=False)
