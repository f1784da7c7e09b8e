"""The API keys for Aim: files that change, and the log records about invalid files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from extproc.config.key_file import KeyFile
from extproc.config.keys import Keys
from extproc.config.settings import Settings
from extproc.core.errors import DetectionRejected, Reason
from extproc.core.identity import Identity
from extproc.telemetry.audit import AuditLog


def key(keys: Keys, profile: str = "default") -> str | None:
    """Return the key of a profile; None if there is none."""
    try:
        return keys.of(profile)
    except DetectionRejected:
        return None


def said(file: Path, problem: str, *, kept: bool = False) -> EventDict:
    return {
        "event": "key_unreadable",
        "log_level": "warning",
        "setting": "aim.api_key_file",
        "file": str(file),
        "problem": problem,
        "last_key_in_use": kept,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key"


def followed(file: Path) -> KeyFile:
    """Return a key file whose thread only takes the first look."""
    key_file = KeyFile(file, "aim.api_key_file", poll_seconds=3600)
    key_file.wait(10)
    return key_file


def until(is_so: Callable[[], bool]) -> None:
    """Wait until a thread has made something true."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


_READABLE = {"event": "key_readable", "log_level": "info", "setting": "aim.api_key_file"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"se cret", "it contains characters that an HTTP header cannot carry"),
        (b"secret\xff", "it contains characters that an HTTP header cannot carry"),
    ],
)
def test_problem_with_a_file_is_logged_once_and_so_is_its_end(file: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with capture_logs() as logs:
        key_file = followed(file)
        for _ in range(3):
            key_file.look()
            assert key_file.read() == b""
    assert logs == [said(file, problem)]
    file.write_text("good-key\n")
    with capture_logs() as logs:
        key_file.look()
        for _ in range(3):
            key_file.look()
            assert key_file.read() == b"good-key"
    assert logs == [{**_READABLE, "file": str(file)}]


def test_file_without_a_key_counts_as_refused(file: Path) -> None:
    keys = Keys(Settings.model_validate({"aim": {"api_key_file": str(file)}}))
    with pytest.raises(DetectionRejected) as caught:
        keys.of("default")
    assert caught.value.reason is Reason.KEY_REFUSED


def test_thread_follows_the_file_until_nobody_needs_it(file: Path) -> None:
    before = threading.enumerate()
    file.write_text("one")
    held = [Keys(Settings.model_validate({"aim": {"api_key_file": str(file)}}))]
    until(lambda: key(held[0]) == "one")
    file.write_text("another")
    until(lambda: key(held[0]) == "another")
    (thread,) = [each for each in threading.enumerate() if each.name == "key aim.api_key_file" and each not in before]
    held.clear()
    until(lambda: not thread.is_alive())


def test_file_that_is_rewritten_in_place_gives_the_old_or_the_new_key(file: Path) -> None:
    file.write_text("old-key")
    with capture_logs() as logs:
        key_file = followed(file)
        for content in ("", "new-", "new-key"):
            file.write_text(content)
            assert key_file.look()
            assert key_file.read() == b"old-key"
        assert not key_file.look()
        assert key_file.read() == b"new-key"
    assert logs == []


def test_file_that_begins_to_hang_is_told_when_its_key_is_used(file: Path) -> None:
    file.write_text("key")
    with capture_logs() as logs:
        key_file = KeyFile(file, "aim.api_key_file", poll_seconds=0.01, settle_seconds=0.01, hang_seconds=1)
        until(lambda: key_file.read() == b"key")

        def told() -> int:
            assert key_file.read() == b"key"
            return sum(record.get("problem") == "reading it takes too long" for record in logs)

        with hanging(file):
            until(lambda: told() == 1)
            assert told() == 1  # it is told once
        file.write_text("another")
        until(lambda: key_file.read() == b"another" and logs[-1]["event"] == "key_readable")
    assert all(record["last_key_in_use"] for record in logs if record["event"] == "key_unreadable")


def test_first_key_is_not_a_part_of_one_either(file: Path) -> None:
    """A reload begins to follow the file anew."""
    with capture_logs() as logs:
        with hanging(file) as write:
            key_file = KeyFile(file, "aim.api_key_file", poll_seconds=3600, settle_seconds=3600)
            write("new-")  # the thread reads this, and then waits
        file.write_text("new-key")
        assert key_file.look()
        assert key_file.read() == b""
        assert not key_file.look()
        assert key_file.read() == b"new-key"
    assert logs == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "it is empty"), ("no key", "it contains characters that an HTTP header cannot carry")],
)
def test_last_key_stays_while_the_file_holds_none(file: Path, content: str, problem: str) -> None:
    file.write_text("good-key")
    key_file = followed(file)
    file.write_text(content)
    with capture_logs() as logs:
        for _ in range(4):
            key_file.look()
            assert key_file.read() == b"good-key"
    assert logs == [said(file, problem, kept=True)]


def test_last_key_stays_while_the_file_is_missing(file: Path) -> None:
    file.write_text("good-key")
    key_file = followed(file)
    away = file.rename(file.with_name("away"))
    with capture_logs() as logs:
        for _ in range(3):
            key_file.look()
            assert key_file.read() == b"good-key"
        away.rename(file)
        key_file.look()
    assert key_file.read() == b"good-key"
    assert logs == [said(file, "No such file or directory", kept=True), {**_READABLE, "file": str(file)}]


def test_file_that_hangs_stops_nothing(file: Path) -> None:
    file.write_text("one")
    keys = Keys(Settings.model_validate({"aim": {"api_key_file": str(file)}}))
    with hanging(file):
        assert key(keys) == "one"


def test_file_that_hangs_at_first_is_in_use_once_it_can_be_read(file: Path) -> None:
    with hanging(file):
        with capture_logs() as logs:
            keys = Keys(Settings.model_validate({"aim": {"api_key_file": str(file)}}))
        assert key(keys) is None
        assert logs == [said(file, "reading it takes too long")]
        come_back(file, "one")
        until(lambda: key(keys) == "one")


@contextmanager
def hanging(file: Path) -> Iterator[Callable[[str], None]]:
    """Let whoever reads `file` hang, as on a mount that is lost, until the function that is yielded writes to it.

    It is a named pipe, which hangs when it is opened without a writer.
    """
    pipe = file.with_name("pipe")
    os.mkfifo(pipe)
    pipe.rename(file)

    def write(text: str) -> None:
        with file.open("w") as writer:  # waits for the reader
            writer.write(text)

    yield write
    end = os.open(file, os.O_RDWR)  # a reader that hangs is let go
    file.unlink()
    os.close(end)


def come_back(file: Path, text: str) -> None:
    """Let go whoever hangs on `file`; from then on it is an ordinary file with `text`."""
    end = os.open(file, os.O_RDWR)
    back = file.with_name("back")
    back.write_text(text)
    back.rename(file)
    os.close(end)


def test_each_file_is_logged_with_its_setting(tmp_path: Path) -> None:
    profiles = {name: {"api_key_file": str(tmp_path / name)} for name in ("a", "b")}
    settings = Settings.model_validate({"aim": {"api_key": "k"}, "profiles": profiles})
    with capture_logs() as logs:
        keys = Keys(settings)
        for profile in ("a", "b", "a", "b", "default"):
            key(keys, profile)
    assert sorted(record["setting"] for record in logs) == ["profiles.a.api_key_file", "profiles.b.api_key_file"]


def test_audit_log_logs_only_problems_of_its_own_key(tmp_path: Path) -> None:
    """Problems with a key for Aim are logged once, by the client of Aim."""
    aim = {"api_key_file": str(tmp_path / "aim")}
    own = {"key_file": str(tmp_path / "own")}
    with capture_logs() as logs:
        for audit in ({}, own):
            settings = Settings.model_validate({"aim": aim, "audit": {"file": str(tmp_path / "audit"), **audit}})
            log = AuditLog(settings, lambda _: None)
            for _ in range(2):
                assert log.callers("default", Identity(session_id="s")) == {}
    assert [record["setting"] for record in logs] == ["audit.key_file"]
