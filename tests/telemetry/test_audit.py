"""The audit log as a file: whole lines, rotation, lost lines, and the identification of callers."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from extproc.config.settings import Settings
from extproc.core.identity import NOBODY, Identity
from extproc.telemetry.audit import AuditLog
from extproc.telemetry.audit_file import AuditFile
from extproc.telemetry.line_writer import CAPACITY

ALICE = Identity(user_email="alice@example.com", session_id="s1")


class Audited:
    """An audit log and the number of its lost lines."""

    def __init__(self, file: object, **more: Any) -> None:
        profiles = more.pop("profiles", {})
        settings = Settings.model_validate(
            {"aim": {"api_key": "aim-key"}, "audit": {"file": str(file), **more}, "profiles": profiles}
        )
        self.lost = 0
        self.log = AuditLog(settings, self._on_loss)

    def _on_loss(self) -> None:
        self.lost += 1


@contextmanager
def stdout_is(file: int) -> Iterator[None]:
    """Use `file` as standard output, inherited and not opened again, as a child process does."""
    before = os.dup(1)
    os.dup2(file, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


@contextmanager
def piped(kind: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Yield the ends of a pipe of this kind: the one to read from, which does not block, and the one to write to."""
    if kind == "socket":
        ours, theirs = (end.detach() for end in socket.socketpair())
    elif kind == "named pipe":
        os.mkfifo(folder / "pipe")
        ours = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        theirs = os.open(folder / "pipe", os.O_WRONLY)
    else:
        ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read(file: int) -> list[int]:
    """Return the numbers of the lines that can be read from `file`."""
    data = b""
    with suppress(BlockingIOError):
        while piece := os.read(file, 65536):
            data += piece
    assert data.endswith(b"\n")
    return [json.loads(line)["n"] for line in data.splitlines()]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text('{"n": 0}\n')
    one, other = Audited(file).log, Audited(file).log
    one.write({"n": 1})
    other.write({"n": 2})
    one.write({"n": 3})
    assert [line["n"] for line in lines(file)] == [0, 1, 2, 3]
    assert lines(file)[1]["time"].endswith("Z")


def test_new_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    Audited(file).log.write({})
    assert not file.stat().st_mode & 0o037


class Rotated:
    """A file that is rotated, and the problems of its lines."""

    def __init__(self, folder: Path, look_seconds: float) -> None:
        self.path, self.old = folder / "audit.jsonl", folder / "audit.jsonl.1"
        self.problems: list[tuple[str, bool]] = []
        self.file = AuditFile(
            self.path, lambda problem, is_first: self.problems.append((problem, is_first)), look_seconds=look_seconds
        )

    def write(self, *lines: str) -> None:
        for line in lines:
            self.file.write(line.encode() + b"\n")


def test_rotated_file_is_followed(tmp_path: Path) -> None:
    it = Rotated(tmp_path, -1)
    it.write("1")
    it.path.rename(it.old)
    it.write("2")
    it.path.unlink()
    it.write("3")
    assert (it.old.read_text(), it.path.read_text()) == ("1\n", "3\n")
    assert it.problems == []


def test_old_file_is_kept_until_the_next_look(tmp_path: Path) -> None:
    it = Rotated(tmp_path, 3600)
    it.write("1")
    it.path.rename(it.old)
    it.write("2")
    it.file.close()
    it.write("3")
    assert (it.old.read_text(), it.path.read_text()) == ("1\n2\n", "3\n")


def test_full_disk_is_counted_and_logged_once() -> None:
    it = Audited("/dev/full")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            it.log.write({"n": 1})
    assert it.lost == 3
    (told,) = logs
    assert (told["event"], told["file"]) == ("audit_line_lost", "/dev/full")


def test_line_that_did_not_fit_leaves_the_next_one_whole(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    it = Audited(file)
    it.log.write({"n": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, before[1]))
    try:
        with structlog.testing.capture_logs():  # captured records would go to the file, too
            it.log.write({"n": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    it.log.write({"n": 3})
    first, torn, last = file.read_text().splitlines()
    assert (json.loads(first)["n"], len(torn), json.loads(last)["n"]) == (1, 10, 3)
    assert it.lost == 1


def test_unread_pipe_delays_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    it = Audited(pipe)
    it.log.write({"n": 1})
    assert it.lost == 1
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        it.log.write({"n": 2})
        assert json.loads(os.read(reader, 4096))["n"] == 2
    finally:
        os.close(reader)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_stopped_reader_of_stdout_delays_nothing(kind: str, tmp_path: Path) -> None:
    with piped(kind, tmp_path) as (ours, theirs), stdout_is(theirs), structlog.testing.capture_logs() as logs:
        it = Audited("-")
        written = 0
        while it.lost < 3:
            it.log.write({"n": written, "filling": "x" * 1000})
            written += 1
            assert written < 10 * CAPACITY
        assert os.get_blocking(theirs)  # other processes may share this standard output
        os.set_blocking(ours, True)
        it.log.write({"n": "last"})
        lost = it.lost
        data = b""
        while b'"last"' not in data:
            data += os.read(ours, 65536)
        numbers = [json.loads(line)["n"] for line in data.splitlines()]
        assert len(numbers) == written + 1 - lost
        assert numbers[:-1] == sorted(numbers[:-1])
        it.log.close()
    assert [(told["event"], told["file"]) for told in logs] == [("audit_line_lost", "stdout")]


def test_stopped_reader_of_a_named_pipe_delays_nothing(tmp_path: Path) -> None:
    with piped("named pipe", tmp_path) as (ours, _), structlog.testing.capture_logs() as logs:
        it = Audited(tmp_path / "pipe")
        written = 0
        while it.lost < 3:
            it.log.write({"n": written, "filling": "x" * 1000})
            written += 1
            assert written < 10_000
        assert read(ours) == list(range(written - 3))
        it.log.write({"n": 0})
        assert read(ours) == [0]
    assert it.lost == 3
    assert [told["event"] for told in logs] == ["audit_line_lost"]


PRINT = """
from extproc.config.settings import Settings
from extproc.telemetry.audit import AuditLog
log = AuditLog(Settings.model_validate({"aim": {"api_key": "k"}, "audit": {"file": "%s"}}), lambda: None)
for number in range(1000):
    log.write({"n": number})
"""


@pytest.mark.parametrize("name", ["-", "stdout"])
def test_stdout_has_every_line_when_the_process_has_ended(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", PRINT % name], capture_output=True, text=True, timeout=60, check=True)
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == list(range(1000))


def test_file_that_stdout_shares_with_stderr_keeps_every_line(tmp_path: Path) -> None:
    with (tmp_path / "all").open("wb", buffering=0) as file:
        code = PRINT % "-" + 'import os; os.write(2, b\'{"n": "stderr"}\\n\')'
        subprocess.run([sys.executable, "-c", code], stdout=file, stderr=file, timeout=60, check=True)
    numbers = [line["n"] for line in lines(tmp_path / "all")]
    assert "stderr" in numbers
    assert [number for number in numbers if number != "stderr"] == list(range(1000))


def test_callers_are_hashed(tmp_path: Path) -> None:
    named = Audited(tmp_path / "a").log.callers("default", ALICE)
    expected = hmac.digest(b"aim-key", b"alice@example.com", hashlib.sha256).hex()[:32]
    assert named["user_email"] == expected
    assert set(named) == {"user_email", "session_id"}
    assert "alice" not in str(named)


def test_documented_command_finds_the_lines_of_a_caller(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/observability.md").read_text()
    (command,) = re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)
    key = tmp_path / "key"
    key.write_text("aim-key\n")
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("KEY_FILE", str(key))], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == Audited(tmp_path / "a").log.callers("default", ALICE)["user_email"]


def test_own_key_file_outlives_a_change_of_the_key_for_aim(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("own\n")
    log = Audited(tmp_path / "a", key_file=str(key)).log
    expected = hmac.digest(b"own", b"s1", hashlib.sha256).hex()[:32]
    assert log.callers("default", Identity(session_id="s1")) == {"session_id": expected}
    key.unlink()  # the file is missing while it is replaced
    assert log.callers("default", Identity(session_id="s1")) == {"session_id": expected}


@pytest.mark.parametrize("left", [b"", b" \n"])
def test_empty_key_hashes_nothing(tmp_path: Path, left: bytes) -> None:
    """With an empty key, anybody could find the values of hashes by trying."""
    key = tmp_path / "key"
    key.write_bytes(left)
    log = Audited(tmp_path / "a", key_file=str(key)).log
    assert log.callers("default", ALICE) == {}
    key.write_bytes(b"any \xff\n")
    deadline = time.monotonic() + 20
    while not (named := log.callers("default", ALICE)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert named["user_email"] == hmac.digest(b"any \xff", b"alice@example.com", hashlib.sha256).hex()[:32]


def test_each_tenant_has_its_own_hashes(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("tenant-key")
    log = Audited(tmp_path / "a", profiles={"b": {"api_key_file": str(key)}}).log
    assert log.callers("default", ALICE)["user_email"] != log.callers("b", ALICE)["user_email"]


def test_callers_are_named_only_on_request(tmp_path: Path) -> None:
    plain = Audited(tmp_path / "a", identity="plain").log
    assert plain.callers("default", ALICE) == {"user_email": "alice@example.com", "session_id": "s1"}
    assert plain.callers("default", NOBODY) == {}
    assert Audited(tmp_path / "a", identity="none").log.callers("default", ALICE) == {}
