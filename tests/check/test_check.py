"""`extproc check`: what is wrong between here and Aim is said in words, for every key."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

from extproc.check import Severity, check
from extproc.check.brand import advice_on_key
from extproc.config.settings import Settings
from tests.fakes.aim import AimSession, Question, ScriptedAim, echo
from tests.fakes.process import free_port, run

NOW = datetime.now(UTC)


def settings_for(base: str, profiles: dict[str, Any] | None = None, **aim: Any) -> Settings:
    usual = {"base_url": base, "api_key": "top-secret", "timeout_seconds": 5}
    return Settings.model_validate({"aim": {**usual, **aim}, "profiles": profiles or {}})


async def said(settings: Settings, severity: Severity = Severity.ERROR) -> list[str]:
    """Return the findings of one severity; none of any may name a secret."""
    findings = await check(settings)
    assert not any("top-secret" in str(finding) or "hunter2" in str(finding) for finding in findings)
    return [str(finding) for finding in findings if finding.severity is severity]


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answer the first bytes of each connection to a port; None closes without a word."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            head = await reader.read(65536)
            reply = answer(head)
            if reply is not None:
                writer.write(reply)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


def not_found(_: bytes) -> bytes:
    return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class TestTheWay:
    async def test_a_name_that_does_not_resolve(self) -> None:
        (line,) = await said(settings_for("https://aim.invalid"))
        assert "the name aim.invalid does not resolve; check aim.base_url" in line

    async def test_nobody_listens(self) -> None:
        port = free_port()
        (line,) = await said(settings_for(f"http://127.0.0.1:{port}"))
        assert f"nothing listens on 127.0.0.1:{port} (connection refused)" in line

    async def test_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            base = f"http://127.0.0.1:{silent.getsockname()[1]}"
            (line,) = await said(settings_for(base, timeout_seconds=0.3))
        assert "does not answer within aim.timeout_seconds" in line

    async def test_hung_up(self) -> None:
        async with answering(lambda _: None) as port:
            (line,) = await said(settings_for(f"http://127.0.0.1:{port}"))
        assert "closes the connection without an answer" in line

    async def test_another_protocol(self) -> None:
        async with answering(lambda _: b"SSH-2.0-OpenSSH_9.7\r\n\r\n") as port:
            (line,) = await said(settings_for(f"http://127.0.0.1:{port}"))
        assert "does not answer in HTTP" in line

    async def test_plain_text_where_tls_is_expected(self) -> None:
        async with answering(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            (line,) = await said(settings_for(f"https://127.0.0.1:{port}", timeout_seconds=1))
        assert "does not answer with TLS" in line or "does not answer" in line


class TestProxies:
    async def test_one_that_does_not_resolve(self) -> None:
        (line,) = await said(settings_for("https://aim.example", proxy="http://user:hunter2@proxy.invalid:3128"))
        assert "the name proxy.invalid does not resolve; check aim.proxy, HTTPS_PROXY and NO_PROXY" in line

    async def test_one_that_is_not_there(self) -> None:
        port = free_port()
        (line,) = await said(settings_for("https://aim.example", proxy=f"http://user:hunter2@127.0.0.1:{port}"))
        assert f"nothing listens on 127.0.0.1:{port}" in line
        assert "aim.proxy" in line

    @pytest.mark.parametrize("base", ["https://aim.example", "http://aim.example"])
    async def test_one_that_demands_a_login(self, base: str) -> None:
        reply = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
        async with answering(lambda _: reply) as port:
            (line,) = await said(settings_for(base, proxy=f"http://127.0.0.1:{port}"))
        assert f"the proxy 127.0.0.1:{port} demands a login" in line

    async def test_one_that_refuses(self) -> None:
        async with answering(lambda _: b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n") as port:
            (line,) = await said(settings_for("https://aim.example", proxy=f"http://127.0.0.1:{port}"))
        assert f"the proxy 127.0.0.1:{port} refuses to connect to aim.example (HTTP 403)" in line


class TestCertificates:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def trusted(self, authority: trustme.CA, tmp_path: Path) -> str:
        file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(file))
        return str(file)

    @asynccontextmanager
    async def showing(self, leaf: trustme.LeafCert) -> AsyncIterator[str]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        leaf.configure_cert(context)
        async with answering(not_found, context) as port:
            yield f"https://localhost:{port}"

    async def test_an_unknown_authority(self, authority: trustme.CA) -> None:
        async with self.showing(authority.issue_cert("localhost")) as base:
            (line,) = await said(settings_for(base))
        assert "is from an unknown CA; set aim.ca_file" in line

    async def test_another_name(self, authority: trustme.CA, trusted: str) -> None:
        async with self.showing(authority.issue_cert("other.example")) as base:
            (line,) = await said(settings_for(base, ca_file=trusted))
        assert "the certificate is for another name than localhost" in line

    async def test_expired(self, authority: trustme.CA, trusted: str) -> None:
        leaf = authority.issue_cert("localhost", not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))
        async with self.showing(leaf) as base:
            (line,) = await said(settings_for(base, ca_file=trusted))
        assert "the certificate of localhost has expired; check this machine's clock, which says 20" in line

    async def test_not_valid_yet(self, authority: trustme.CA, trusted: str) -> None:
        leaf = authority.issue_cert("localhost", not_before=NOW + timedelta(1), not_after=NOW + timedelta(9))
        async with self.showing(leaf) as base:
            (line,) = await said(settings_for(base, ca_file=trusted))
        assert "the certificate of localhost is not valid yet; check this machine's clock" in line

    @pytest.fixture
    def lonely(self, tmp_path: Path) -> ssl.SSLContext:
        """Return what shows a certificate that is its own authority."""
        files = [tmp_path / "cert.pem", tmp_path / "key.pem"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(files[0]), "-keyout", str(files[1])]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files[0], files[1])
        return context

    async def test_signed_by_itself(self, lonely: ssl.SSLContext) -> None:
        async with answering(not_found, lonely) as port:
            (line,) = await said(settings_for(f"https://localhost:{port}"))
        assert "localhost has a self-signed certificate; set aim.ca_file" in line

    async def test_not_verified(self, authority: trustme.CA) -> None:
        async with self.showing(authority.issue_cert("other.example")) as base:
            (line,) = await said(settings_for(base, verify=False), Severity.WARNING)
        assert "its certificate is not verified" in line


class TestTheClock:
    @pytest.mark.parametrize(
        ("minutes", "expected"), [(7, "7 min behind Aim's"), (-70, "70 min ahead of Aim's"), (0, None), (None, None)]
    )
    async def test_it_is_compared_with_aims(self, minutes: int | None, expected: str | None) -> None:
        date = "" if minutes is None else f"date: {formatdate(time.time() + 60 * minutes, usegmt=True)}\r\n"
        reply = f"HTTP/1.1 404 Not Found\r\n{date}content-length: 0\r\nconnection: close\r\n\r\n".encode()
        async with answering(lambda _: reply) as port:
            lines = await said(settings_for(f"http://127.0.0.1:{port}"), Severity.WARNING)
        assert [line for line in lines if expected is None or expected not in line] == []
        assert len(lines) == (0 if expected is None else 1)

    async def test_a_date_that_is_none(self) -> None:
        reply = b"HTTP/1.1 404 Not Found\r\ndate: soon\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        async with answering(lambda _: reply) as port:
            assert await said(settings_for(f"http://127.0.0.1:{port}"), Severity.WARNING) == []


class TestKeys:
    async def test_each_is_asked_over_rest_and_in_a_session(self, aim: ScriptedAim, tmp_path: Path) -> None:
        (tmp_path / "own").write_text("own-key")
        profiles = {"tenant": {"api_key_file": str(tmp_path / "own")}, "shared": {}}
        lines = await said(settings_for(aim.base, profiles), Severity.OK)
        assert [line.split(" in ")[0].split(" after ")[0] for line in lines[2:]] == [
            "ok: aim, profile default: answered 'allow'",
            "ok: aim, profile default: verified a chunk",
            "ok: aim, profile tenant: answered 'allow'",
            "ok: aim, profile tenant: verified a chunk",
        ]
        assert [question.headers["authorization"] for question in aim.questions] == [
            "Bearer top-secret",
            "Bearer own-key",
        ]
        assert [session.headers["authorization"] for session in aim.sessions] == ["Bearer top-secret", "Bearer own-key"]

    async def test_one_that_is_refused(self, aim: ScriptedAim, tmp_path: Path) -> None:
        (tmp_path / "own").write_text("own-key")

        async def judge(question: Question) -> Any:
            return (401, {}) if "own-key" in question.headers["authorization"] else {"detected": False}

        aim.judge = judge
        lines = await said(settings_for(aim.base, {"tenant": {"api_key_file": str(tmp_path / "own")}}))
        assert lines == [
            "error: aim, profile tenant, analysis: Aim refuses the key; check profiles.tenant.api_key_file, and that "
            "the key belongs to this Aim"
        ]

    async def test_one_of_the_other_brand(self, aim: ScriptedAim) -> None:
        async def judge(_: Question) -> Any:
            return (401, {"detail": "Invalid API token"})

        aim.judge = judge
        # The proxy stands for the service at this address.
        settings = settings_for("http://api.aim.security", {"default": {"hooks": ["pre_call"]}}, proxy=aim.base)
        (line,) = await said(settings)
        assert line.endswith("that the key belongs to this Aim; a key of Cato Networks needs aim.api: cato")

    @pytest.mark.parametrize(
        ("aim", "advice"),
        [
            ({}, "a key of Cato Networks needs aim.api: cato"),
            ({"api": "firewall"}, "a key of Cato Networks needs aim.api: cato"),
            ({"api": "cato"}, "a key of Aim Security needs aim.api: firewall or detect, and a key of another region"),
            ({"api": "cato", "base_url": "https://api.aisec.us1.catonetworks.com"}, "a key of Aim Security needs"),
            (
                {"api": "firewall", "base_url": "https://api.aisec.us1.catonetworks.com"},
                "api.aisec.us1.catonetworks.com is an address of Cato Networks: set aim.api: cato",
            ),
            (
                {"api": "cato", "base_url": "https://api.aim.security"},
                "api.aim.security is an address of Aim Security: set aim.api: firewall or detect",
            ),
            ({"base_url": "https://outpost.example"}, ""),
            ({"base_url": "https://notaim.security"}, ""),
        ],
        ids=str,
    )
    def test_advice_follows_the_address_and_the_api(self, aim: dict[str, Any], advice: str) -> None:
        given = advice_on_key(Settings.model_validate({"aim": aim}).aim)
        assert given.startswith(advice)
        assert bool(given) == bool(advice)

    async def test_no_session_is_opened_where_none_will_be(self, aim: ScriptedAim) -> None:
        assert await said(settings_for(aim.base, {"default": {"hooks": ["pre_call"]}})) == []
        assert aim.sessions == []

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (404, "Aim does not know this question; check aim.api"),
            (500, "Aim answers with a server error"),
            (200, "the answer is not Aim's, or not in this form"),
        ],
    )
    async def test_an_aim_that_is_none(self, aim: ScriptedAim, status: int, expected: str) -> None:
        async def judge(_: Question) -> Any:
            return (status, b"<html>")

        aim.judge = judge
        lines = await said(settings_for(aim.base, timeout_seconds=1))
        assert len(lines) == 1
        assert expected in lines[0]

    async def test_a_limited_rate_is_no_error(self, aim: ScriptedAim) -> None:
        async def judge(_: Question) -> Any:
            return (429, {})

        aim.judge = judge
        settings = settings_for(aim.base, timeout_seconds=1)
        assert await said(settings) == []
        (line,) = await said(settings, Severity.WARNING)
        assert "Aim limits the rate of this key" in line


async def cut(session: AimSession) -> None:
    await session.receive()
    session.abort()


async def silent(session: AimSession) -> None:
    await session.receive()
    await session.closed.wait()


async def blocking(session: AimSession) -> None:
    await session.receive()
    await session.block("No.")


async def wordless(session: AimSession) -> None:
    while await session.receive() is not None:
        pass
    await session.done()


class TestSessions:
    @pytest.mark.parametrize(
        ("script", "handshake", "expected"),
        [
            (cut, None, "the session ended early; look at the network"),
            (silent, None, "no answer within aim.timeout_seconds"),
            (echo, 401, "Aim refuses the key; check AIM_API_KEY"),
            (echo, 404, "Aim does not know this question"),
        ],
    )
    async def test_one_that_fails(
        self,
        aim: ScriptedAim,
        script: Callable[[AimSession], Awaitable[None]],
        handshake: int | None,
        expected: str,
    ) -> None:
        async def answer() -> int | None:
            return handshake

        aim.script, aim.handshake = script, answer
        (line,) = await said(settings_for(aim.base, timeout_seconds=1))
        assert line.startswith("error: aim, profile default, session: ")
        assert expected in line

    @pytest.mark.parametrize(
        ("script", "expected"),
        [(blocking, "blocked a chunk in a session"), (wordless, "ended a session without a verdict")],
    )
    async def test_one_that_has_its_own_mind(
        self, aim: ScriptedAim, script: Callable[[AimSession], Awaitable[None]], expected: str
    ) -> None:
        aim.script = script
        assert expected in (await said(settings_for(aim.base), Severity.OK))[-1]


class TestTheCommand:
    async def test_all_is_well(self, aim: ScriptedAim) -> None:
        status, out, err = await run("check", AIM_API_KEY="top-secret", AIM_API_BASE=aim.base)
        assert (status, err) == (0, "")
        assert [line.partition(":")[0] for line in out.splitlines()] == ["ok"] * 4
        assert "top-secret" not in out

    async def test_a_profile_without_hooks_is_a_warning(self, aim: ScriptedAim, tmp_path: Path) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text("profiles: {lax: {hooks: []}, dry: {enforce: false}}")
        status, out, err = await run("check", "--config", str(file), AIM_API_KEY="top-secret", AIM_API_BASE=aim.base)
        assert (status, err) == (0, "")
        assert [line for line in out.splitlines() if not line.startswith("ok: ")] == [
            "warning: settings, profile lax: it has no hooks: its exchanges pass without a question to Aim; "
            "set profiles.lax.hooks: [pre_call, output]"
        ]

    async def test_a_refused_key(self, aim: ScriptedAim) -> None:
        async def judge(_: Question) -> Any:
            return (401, {"detail": "Invalid API token"})

        aim.judge = judge
        status, out, _ = await run("check", AIM_API_KEY="top-secret", AIM_API_BASE=aim.base)
        assert status == 1
        assert "Aim refuses the key; check AIM_API_KEY" in out
        assert "top-secret" not in out

    async def test_wrong_settings_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "settings.yaml"
        path.write_text("colour: blue\naim: {timeout_seconds: 0}\n")
        status, out, err = await run("check", "--config", str(path), AIM_API_KEY="top-secret")
        assert (status, out) == (1, "")
        assert "colour: unknown setting" in err
        assert "aim.timeout_seconds" in err

    async def test_a_proxy_that_is_none(self) -> None:
        status, _, err = await run("check", AIM_API_KEY="k", HTTPS_PROXY="http://:0")
        assert status == 1
        assert "HTTPS_PROXY in the environment is not the URL of a proxy" in err
