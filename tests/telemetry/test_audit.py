"""The audit log as a file: whole lines, rotation, lost lines, and the identification of callers."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from extproc.config.settings import Settings
from extproc.core.identity import NOBODY, Identity
from extproc.telemetry.audit import AuditLog
from extproc.telemetry.audit_file import AuditFile
from extproc.telemetry.line_sink import PartlyWritten
from extproc.telemetry.line_writer import CAPACITY
from tests.fakes.audit import audit_lines

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

    def _on_loss(self, count: int) -> None:
        self.lost += count

    def until_lost(self, count: int) -> None:
        """Wait until a thread has counted this many lost lines."""
        deadline = time.monotonic() + 20
        while self.lost < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert self.lost == count


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


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text('{"n": 0}\n')
    for number, log in enumerate([Audited(file).log, Audited(file).log], 1):
        log.write({"n": number})
        log.write({"n": number + 10})
        audit_lines(file, 1 + 2 * number)
    assert [line["n"] for line in audit_lines(file, 5)] == [0, 1, 11, 2, 12]
    assert audit_lines(file, 5)[1]["time"].endswith("Z")


def test_new_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    Audited(file).log.write({})
    audit_lines(file, 1)
    assert not file.stat().st_mode & 0o037


class Rotated:
    """A file that is rotated."""

    def __init__(self, folder: Path, look_seconds: float) -> None:
        self.path, self.old = folder / "audit.jsonl", folder / "audit.jsonl.1"
        self.file = AuditFile(self.path, look_seconds=look_seconds)

    def write(self, *lines: str) -> None:
        self.file.put([line.encode() + b"\n" for line in lines])


def test_rotated_file_is_followed(tmp_path: Path) -> None:
    it = Rotated(tmp_path, -1)
    it.write("1")
    it.path.rename(it.old)
    it.write("2")
    it.path.unlink()
    it.write("3")
    assert (it.old.read_text(), it.path.read_text()) == ("1\n", "3\n")


def test_old_file_is_kept_until_the_next_look(tmp_path: Path) -> None:
    it = Rotated(tmp_path, 3600)
    it.write("1")
    it.path.rename(it.old)
    it.write("2")
    it.file.close()
    it.write("3")
    assert (it.old.read_text(), it.path.read_text()) == ("1\n2\n", "3\n")


def test_file_without_a_folder_is_a_problem_until_there_is_one(tmp_path: Path) -> None:
    it = Rotated(tmp_path / "folder", 3600)
    with pytest.raises(PartlyWritten, match="No such file or directory"):
        it.write("1")
    it.path.parent.mkdir()
    it.write("2")
    assert it.path.read_text() == "2\n"


def test_full_disk_is_counted_and_logged_once() -> None:
    it = Audited("/dev/full")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            it.log.write({"n": 1})
        it.until_lost(3)
        it.log.write({"n": 1})
        it.until_lost(4)
    (told,) = logs
    assert (told["event"], told["file"]) == ("audit_line_lost", "/dev/full")
    assert told["problem"] == "No space left on device"
    assert 1 <= told["lines"] <= 3  # as many as the thread wrote at once


def test_line_that_did_not_fit_leaves_the_next_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    file.put([b"1\n"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7, before[1]))
    try:
        with pytest.raises(PartlyWritten) as caught:
            file.put([b"2\n", b"long\n", b"3\n"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.whole_lines == 1
    file.put([b"4\n"])
    assert path.read_text().splitlines() == ["1", "2", "lon", "4"]


def test_named_pipe_that_nobody_reads_delays_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    it = Audited(pipe)
    it.log.write({"n": 1})
    it.log.write({"n": 2})
    with pipe.open() as reader:
        assert [json.loads(reader.readline())["n"] for _ in range(2)] == [1, 2]
    assert it.lost == 0


def test_pipe_gets_pieces_that_workers_cannot_mix(tmp_path: Path) -> None:
    with piped("named pipe", tmp_path) as (ours, _):
        file = AuditFile(tmp_path / "pipe")
        held = fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
        lines = [json.dumps({"n": number, "filling": "x" * 1500}).encode() + b"\n" for number in range(5)]
        writing = threading.Thread(target=file.put, args=(lines,))
        writing.start()
        sizes: list[int] = []
        while sum(sizes) < sum(map(len, lines)):
            select.select([ours], [], [])
            sizes.append(len(os.read(ours, held)))
        writing.join()
        file.close()
    assert sizes == [len(b"".join(lines[first : first + 2])) for first in (0, 2, 4)]


def test_reload_takes_the_lines_that_wait_for_a_file_that_hangs(tmp_path: Path) -> None:
    with piped("named pipe", tmp_path) as (ours, _):
        first = Audited(tmp_path / "pipe")
        first.log.write({"n": 1, "filling": "x" * 100_000})  # more than a pipe or a batch has room for
        first.log.write({"n": 2})
        select.select([ours], [], [])  # the thread has begun with the first line, and now hangs
        second = Audited(tmp_path / "pipe")
        (tmp_path / "pipe").unlink()
        first.log.close(second.log)
        assert [line["n"] for line in audit_lines(tmp_path / "pipe", 1)] == [2]
        assert first.lost == second.lost == 0  # the pipe is still open: without a reader the first line would be lost


def test_reload_to_another_file_leaves_the_lines_to_the_old_one(tmp_path: Path) -> None:
    first, second = Audited(tmp_path / "a"), Audited(tmp_path / "b")
    first.log.write({"n": 1})
    first.log.close(second.log)
    second.log.write({"n": 2})
    assert [line["n"] for line in audit_lines(tmp_path / "a", 1)] == [1]
    assert [line["n"] for line in audit_lines(tmp_path / "b", 1)] == [2]


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
        it.log.close(None)
    assert {(told["event"], told["file"]) for told in logs} == {("audit_line_lost", "stdout")}


def test_stopped_reader_of_a_named_pipe_delays_nothing(tmp_path: Path) -> None:
    with piped("named pipe", tmp_path) as (ours, _), structlog.testing.capture_logs() as logs:
        it = Audited(tmp_path / "pipe")
        written = 0
        while it.lost < 3:
            it.log.write({"n": written, "filling": "x" * 2000})
            written += 1
            assert written < 10 * CAPACITY
        assert written < CAPACITY  # the bytes are bounded, too
        os.set_blocking(ours, True)
        it.log.write({"n": "last"})
        lost = it.lost
        data = b""
        while b'"last"' not in data:
            data += os.read(ours, 65536)
        numbers = [json.loads(line)["n"] for line in data.splitlines()]
        assert len(numbers) == written + 1 - lost
        assert numbers[:-1] == sorted(numbers[:-1])
        it.log.close(None)
    assert {(told["event"], told["problem"]) for told in logs} == {("audit_line_lost", "writing takes too long")}


PRINT = """
from extproc.config.settings import Settings
from extproc.telemetry.audit import AuditLog
log = AuditLog(Settings.model_validate({"aim": {"api_key": "k"}, "audit": {"file": "%s"}}), lambda _: None)
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
