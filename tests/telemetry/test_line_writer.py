"""Standard error whose reader has stopped: what is lost, that it is told once, and that nobody waits."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from extproc.telemetry import logs, stdio
from extproc.telemetry.stdio import Stderr

pytestmark = pytest.mark.timeout(30)


class Log(Stderr):
    """Standard error that tells of its losses as the sidecar does."""

    def __init__(self) -> None:
        super().__init__(lambda count: self.record(f"lost {count}") and None)

    def record(self, text: str, size: int = 0) -> int:
        return self.write(text.ljust(size, ".") + "\n")

    def fill(self) -> int:
        """Write until records are lost; return how many were written."""
        for count in range(10_000):
            self.record("filling", 500)
            if self._lost:
                return count
        raise AssertionError("it takes all")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def stderr_is(file: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Have `file` as standard error."""
    with os.fdopen(os.dup(file), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        log = Log()
        yield log
        log.close()
        monkeypatch.undo()


@pytest.fixture(params=["pipe", "foreign pipe", "socket"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Return the two ends, the first to be read without waiting; a foreign one cannot be opened anew."""
    ours, theirs = (end.detach() for end in socket.socketpair()) if request.param == "socket" else os.pipe()
    if request.param == "foreign pipe":
        monkeypatch.setattr(stdio, "open_anew", lambda inherited: (os.dup(inherited), True))
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def read(file: int) -> list[str]:
    data = b""
    with suppress(BlockingIOError):
        while piece := os.read(file, 65536):
            data += piece
    return [line.rstrip(".") for line in data.decode().splitlines()]


def test_what_was_lost_is_told_once(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = ends
    with stderr_is(theirs, monkeypatch) as log:
        written = log.fill()
        for _ in range(4):
            log.record("lost", 500)
        assert read(ours) == ["filling"] * written
        log.record("one")
        log.record("two")
        assert read(ours) == ["lost 5", "one", "two"]
        log.fill()
        read(ours)
        log.tell_lost()  # as at the end
        log.tell_lost()
        assert read(ours) == ["lost 1"]
    assert os.get_blocking(theirs)


def test_a_long_record_is_written_whole_or_ends_where_the_next_begins(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = ends
    with stderr_is(theirs, monkeypatch) as log:
        log.record("long", 20_000)
        assert read(ours) == ["long"]
        log.record("longer", 2_000_000)
        torn = read(ours)
        log.record("next")
        assert torn == ["longer"]
        assert read(ours) == ["", "lost 1", "next"]


def test_a_reader_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    with stderr_is(theirs, monkeypatch) as log:
        os.close(ours)
        for _ in range(3):
            log.record("nothing")
        assert log._lost == 3
    os.close(theirs)


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file, stderr_is(file.fileno(), monkeypatch) as log:
        log.record("one")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))
        try:
            log.record("two")
            log.record("three")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.record("four")
        file.write(b"somebody else\n")
        log.record("five")
    assert (tmp_path / "log").read_text().splitlines() == ["one", "tw", "lost 2", "four", "somebody else", "five"]


def test_a_stream_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log = Log()
    log.record("nobody")
    stdio.give_up_stderr()
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    log.record("one")
    stdio.give_up_stderr()
    assert text.getvalue() == "lost 1\none\n"
    text.close()
    log.record("two")
    assert log._lost == 1


def test_giving_up_waits_for_nobody(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = ends
    with stderr_is(theirs, monkeypatch) as log:
        sys.stderr.write("buffered")  # a terminal's would be written
        stdio.give_up_stderr()
        assert read(ours) == ["buffered"]
        log.fill()
        sys.stderr.write("no room")
        stdio.give_up_stderr()
        sys.stderr.flush()
        assert set(read(ours)) == {"filling"}


def test_what_libraries_say_is_a_line_without_content() -> None:
    try:
        raise ValueError("a prompt")
    except ValueError as error:
        failed = (ValueError, error, error.__traceback__)
    record = logging.LogRecord('a"b', logging.ERROR, "file", 1, "%s", ("a prompt",), failed)
    line = logs._Named().format(record)
    assert json.loads(line) == {"event": "library", "logger": 'a"b', "level": "ERROR"}
    assert "\n" not in line
