"""What gRPC's core says of failed handshakes and faults reaches the log, without content and without blocking."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from extproc.telemetry.grpc_log import Fault, Repeats, read
from tests.fakes.aim import ScriptedAim
from tests.fakes.process import get, run, serving, written
from tests.telemetry.test_logging import full, process_of, ready

STAMP = "1130 00:09:48.444250   21128 "
HANDSHAKE = "Handshake failed with error SSL_ERROR_SSL: error:1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            f"I{STAMP}ssl_transport_security.cc:2563] {HANDSHAKE}",
            ("warning", "ssl_transport_security.cc:2563", HANDSHAKE),
        ),
        (
            f"I{STAMP}chttp2_transport.cc:1937] 0x7ff2 CANCEL PINGS: UNKNOWN:Failed parsing HTTP/2 (got 'G' at byte 0)",
            ("warning", "chttp2_transport.cc:1937", "Failed parsing HTTP/2 (got ... at byte 0)"),
        ),
        (
            f'E{STAMP}src/core/parsing.cc:1020] [0x7ff27]: Parse failed with "my secret" of ipv4:10.0.0.1:7',
            ("error", "parsing.cc:1020", "[...]: Parse failed with ... of ..."),
        ),
        (
            f"W{STAMP}tcp_server.cc:1] accept failed: Too many open files",
            ("warning", "tcp_server.cc:1", "accept failed: Too many open files"),
        ),
        (f"E{STAMP}x.cc:1] a\tb\x1b[31mc\xff", ("error", "x.cc:1", "a...b...[31mc...")),
        (
            "E0000 00:00:1796066484.834023    6835 config.cc:137] Unknown experiment: x",
            ("error", "config.cc:137", "Unknown experiment: x"),
        ),
        ("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR", None),
        (f"I{STAMP}chttp2_transport.cc:1800] HTTP:1:HDR:SVR: x-secret: Failed parsing", None),
        (f"I{STAMP}parsing.cc:345] INCOMING[0x7ff]: SETTINGS len:0 id:0x00000000", None),
        (f"W{STAMP}log.cc:102] Log level INFO is not suitable for production.", None),
    ],
)
def test_fault_has_no_content(line: str, fault: tuple[str, str, str] | None) -> None:
    assert read(line) == (Fault(*fault) if fault else None)


@pytest.mark.parametrize("line", ["", "Traceback (most recent call last):", "I1130 not gRPC's"])
def test_other_text_is_told_apart(line: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        read(line)


def test_problem_is_short() -> None:
    fault = read(f"E{STAMP}x.cc:1] {'x' * 10_000}")
    assert fault is not None
    assert len(fault.problem) == 200


class Reports:
    """Counts of faults, on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seen: list[tuple[str, int]] = []
        self.repeats = Repeats(lambda fault, count: self.seen.append((fault.problem, count)), lambda: self.now)

    def add(self, problem: str) -> None:
        self.repeats.add(Fault("warning", "x.cc:1", problem))


def test_flood_is_one_record_a_window() -> None:
    it = Reports()
    for _ in range(1000):
        it.add("a")
    it.add("b")
    assert it.seen == [("a", 1), ("b", 1)]
    it.now = 10.0
    it.repeats.flush()
    assert it.seen[2:] == [("a", 999)]
    it.now = 20.0
    it.add("a")
    assert it.seen[3:] == [("a", 1)]


def test_kinds_of_faults_are_bounded() -> None:
    it = Reports()
    for number in range(1000):
        it.add(f"frame {number}")
    assert len(it.seen) == 65
    it.now = 10.0
    it.repeats.flush()
    assert it.seen[65:] == [("more kinds of faults than the log shows", 1000 - 65)]


def tls(folder: Path) -> dict[str, Any]:
    """Write a certificate; return the settings for it."""
    leaf = trustme.CA().issue_cert("127.0.0.1")
    files = {"cert_file": folder / "cert.pem", "key_file": folder / "key.pem"}
    leaf.cert_chain_pems[0].write_to_path(str(files["cert_file"]))
    leaf.private_key_pem.write_to_path(str(files["key_file"]))
    return {name: str(file) for name, file in files.items()}


async def fail_handshake(port: int) -> None:
    with suppress(ConnectionError):
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(writer):
                writer.write(b"GET /secret HTTP/1.1\r\n\r\n")
                await reader.read()


@pytest.mark.parametrize("workers", [1, 2])
async def test_failed_handshake_is_logged(tmp_path: Path, aim: ScriptedAim, workers: int) -> None:
    config, port, _ = written(tmp_path, aim, tls=tls(tmp_path), workers=workers)
    async with serving(config) as process:
        last = port + workers - 1
        while not any(line["event"] == "serving" and line["listen"].endswith(f":{last}") for line in process.lines):
            await process.until("serving")
        await fail_handshake(last)
        fault = await process.until("grpc_fault")
        process.signal()
        assert await process.ended() == 0
    assert fault["problem"].startswith("Handshake failed with error SSL_ERROR_SSL")
    assert (fault["level"], fault["count"]) == ("warning", 1)
    assert fault.get("worker", 0) == workers - 1
    assert not any("secret" in str(line) for line in process.lines)


async def test_grpc_knows_the_experiments_of_the_sidecar(
    tmp_path: Path, aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If gRPC drops one of them, an exchange needs more CPU, and each start logs an error."""
    monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    config, _, _ = written(tmp_path, aim)
    async with serving(config) as process:
        process.signal()
        assert await process.ended() == 0
    assert [line["event"] for line in process.lines] == ["serving", "draining", "stopped"]


async def test_unknown_experiment_of_the_environment_is_logged(tmp_path: Path, aim: ScriptedAim) -> None:
    config, _, _ = written(tmp_path, aim)
    async with serving(config, GRPC_EXPERIMENTS="-no_such_experiment") as process:
        process.signal()
        assert await process.ended() == 0
    (fault,) = (line for line in process.lines if line["event"] == "grpc_fault")
    assert (fault["level"], fault["problem"]) == ("error", "Unknown experiment: no_such_experiment")


async def test_failed_handshakes_block_nothing_while_nobody_reads(tmp_path: Path, aim: ScriptedAim) -> None:
    config, port, admin = written(tmp_path, aim, tls=tls(tmp_path))
    with full("pipe") as (_, theirs):
        async with process_of(config, theirs):
            await ready(admin)
            for _ in range(20):
                await asyncio.gather(*(fail_handshake(port) for _ in range(50)))
            assert (await get(admin, "/readyz")).status_code == 200


async def test_problem_after_the_start_is_readable(tmp_path: Path, aim: ScriptedAim) -> None:
    """A process that cannot listen says so in plain text, although standard error was diverted."""
    config, port, _ = written(tmp_path, aim)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with server:
        status, _, said = await run("serve", "--config", str(config))
    assert status == 2
    assert re.search(r"^listen: cannot listen on", said, flags=re.MULTILINE)
