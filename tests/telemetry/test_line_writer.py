"""The line writer with a reader that is slow, stopped or gone: some lines are lost, but the caller never waits."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from extproc.telemetry.line_sink import Descriptor
from extproc.telemetry.line_writer import LineWriter

pytestmark = pytest.mark.timeout(30)

CAPACITY = 100


def line(text: object) -> bytes:
    return f"{text}\n".encode()


class Log:
    """A writer with room for CAPACITY lines. It reports lost lines as the sidecar's log does."""

    def __init__(self, descriptor: int) -> None:
        self.losses: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self.writer = LineWriter(
            Descriptor(descriptor),
            on_loss=lambda problem, count: self.losses.put((problem, count)),
            loss_notice=lambda count: line(f"lost {count}"),
            capacity=CAPACITY,
        )

    def problems_of(self, count: int) -> set[str]:
        """Wait until this many lines are lost; return why."""
        problems = set()
        while count > 0:
            problem, lost = self.losses.get()
            problems.add(problem)
            count -= lost
        assert (count, self.losses.empty()) == (0, True)
        return problems

    def write(self, *texts: object) -> None:
        for text in texts:
            self.writer.write(line(text))


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Yield the end to read from and the end to write to."""
    ours, theirs = (end.detach() for end in socket.socketpair()) if request.param == "socket" else os.pipe()
    yield ours, theirs
    os.close(theirs)
    os.close(ours)


@contextmanager
def filled(descriptor: int) -> Iterator[None]:
    """Fill a pipe or a socket with empty lines, so that a write to it must wait."""
    os.set_blocking(descriptor, False)
    for size in (65536, 4096, 1):
        try:
            while True:
                os.write(descriptor, b"\n" * size)
        except BlockingIOError:
            pass
    os.set_blocking(descriptor, True)
    yield


def read_until(descriptor: int, last: str) -> list[str]:
    """Read up to the line `last`; return all lines that are not empty."""
    data = b""
    while not data.endswith(b"\n" + line(last)) and data != line(last):
        piece = os.read(descriptor, 65536)
        assert piece, data
        data += piece
    return [text for text in data.decode().splitlines() if text]


def test_lines_are_written_in_order(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    log = Log(theirs)
    log.write(*range(50))
    assert read_until(ours, "49") == [str(number) for number in range(50)]
    log.writer.flush(20)


def test_lines_wait_for_a_reader_that_stopped(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    with filled(theirs):
        log = Log(theirs)
        log.write(*range(CAPACITY))
        assert read_until(ours, str(CAPACITY - 1)) == [str(number) for number in range(CAPACITY)]
    assert log.losses.empty()
    assert os.get_blocking(theirs)
    log.writer.flush(20)


def test_oldest_lines_are_lost_and_counted_where_they_are_missing(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    with filled(theirs):
        log = Log(theirs)
        log.write(*range(3 * CAPACITY))
        lines = read_until(ours, str(3 * CAPACITY - 1))
    # The thread may have taken the first line already and block while writing it.
    notice = next(text for text in lines if text.startswith("lost"))
    before = lines[: lines.index(notice)]
    after = lines[lines.index(notice) + 1 :]
    assert before in ([], ["0"])
    assert after == [str(number) for number in range(2 * CAPACITY, 3 * CAPACITY)]
    assert int(notice.removeprefix("lost ")) == 3 * CAPACITY - len(before) - len(after)
    assert log.problems_of(int(notice.removeprefix("lost "))) == {"writing takes too long"}
    log.writer.flush(20)


def test_bytes_that_wait_are_bounded(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    with filled(theirs):
        lost: list[int] = []
        writer = LineWriter(Descriptor(theirs), on_loss=lambda _, count: lost.append(count), capacity_bytes=1000)
        for number in range(100):
            writer.write(line(f"{number:099}"))
        seen = [int(text) for text in read_until(ours, f"{99:099}")]
    assert seen[-10:] == list(range(90, 100))
    assert len(seen) <= 20  # those that waited, and those that the thread had taken
    assert len(seen) + sum(lost) == 100
    writer.flush(20)


def test_line_that_has_no_room_is_lost_alone(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        lost: list[int] = []
        writer = LineWriter(Descriptor(file.fileno()), on_loss=lambda _, count: lost.append(count), capacity_bytes=10)
        writer.write(b"x" * 10 + b"\n")
        writer.write(b"next\n")
        writer.flush(20)
    assert (lost, (tmp_path / "log").read_text()) == ([1], "next\n")


def test_line_of_any_length_is_written_whole(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    log = Log(theirs)
    log.write("x" * 2_000_000, "next")
    assert read_until(ours, "next") == ["x" * 2_000_000, "next"]
    log.writer.flush(20)


def test_writer_waits_for_a_descriptor_that_another_process_made_non_blocking(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    os.set_blocking(theirs, False)
    log = Log(theirs)
    log.write("x" * 2_000_000, "next")
    assert read_until(ours, "next") == ["x" * 2_000_000, "next"]
    log.writer.flush(20)


def test_lines_to_a_reader_that_is_gone_are_lost() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    log = Log(theirs)
    log.write("one", "two", "three")
    assert log.problems_of(3) == {"Broken pipe"}
    log.writer.flush(20)
    os.close(theirs)


def test_log_goes_on_after_a_full_disk(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = Log(file.fileno())
        log.write("one")
        log.writer.flush(20)
        log = Log(file.fileno())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))
        try:
            log.write("two", "three")
            assert log.problems_of(2) == {"File too large"}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.write("four")
        log.writer.flush(20)
        file.write(b"another process\n")
        log = Log(file.fileno())
        log.write("five")
        log.writer.flush(20)
    text = (tmp_path / "log").read_text()
    assert text.splitlines() == ["one", "tw", "lost 2", "four", "another process", "five"]


def test_loss_is_told_at_the_end_when_no_line_follows(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = Log(file.fileno())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            log.write("one")
            log.losses.get()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.writer.flush(20)
    assert (tmp_path / "log").read_text() == "lost 1\n"


def test_flush_gives_up_on_a_reader_that_stopped(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    with filled(theirs):
        log = Log(theirs)
        log.write("one", "two")
        log.writer.flush(0.01)
        assert log.problems_of(2) == {"the process ends"}
        os.set_blocking(ours, False)
        with suppress(BlockingIOError):
            while os.read(ours, 65536):
                pass
        log.writer.flush(20)
    assert log.losses.empty()


def test_line_that_is_written_while_the_thread_holds_the_lock_does_not_block(tmp_path: Path) -> None:
    """The garbage collector may run at any point, and a library may then log."""
    with (tmp_path / "log").open("wb", buffering=0) as file:
        writer = LineWriter(Descriptor(file.fileno()))
        with writer._changed:
            writer.write(b"one\n")
        writer.flush(20)
    assert (tmp_path / "log").read_text() == "one\n"
