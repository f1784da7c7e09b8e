"""Processes that start at the same moment, or are killed while they start, on one unix socket."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from extproc.serve.unix_socket import SocketFile

KILLED = """
import os, socket, sys
from pathlib import Path
from extproc.serve.unix_socket import SocketFile

def bind(path):
    socket.socket(socket.AF_UNIX).bind(str(path))
    os._exit(9)

SocketFile(Path(sys.argv[1])).listen(bind)
"""


def listen(server: socket.socket, path: Path) -> None:
    server.bind(str(path))
    server.listen()


def test_of_two_that_start_at_once_one_listens(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    refused: list[int | None] = []
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:

        def start_second() -> None:
            try:
                SocketFile(path).listen(lambda free: listen(second, free))
            except OSError as error:
                refused.append(error.errno)

        other = Thread(target=start_second)

        def bind(free: Path) -> None:
            other.start()
            other.join(0.5)  # long enough to overtake, if nothing keeps it from that
            listen(first, free)

        SocketFile(path).listen(bind)
        other.join(30)
        assert refused == [errno.EADDRINUSE]
        assert os.listdir(tmp_path) == ["s.sock"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            first.accept()[0].close()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == 9
    assert len(os.listdir(tmp_path)) == 2
    with socket.socket(socket.AF_UNIX) as server:
        SocketFile(path).listen(lambda free: listen(server, free))
        assert os.listdir(tmp_path) == ["s.sock"]


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    def bind(free: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(free))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        SocketFile(path).listen(bind)
    assert os.listdir(tmp_path) == []


def test_longest_path_of_a_worker_fits(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * (97 - len(os.fsencode(str(tmp_path)))))
    folder.mkdir()
    path = folder / "s-255"
    with socket.socket(socket.AF_UNIX) as server:
        SocketFile(path).listen(lambda free: listen(server, free))
