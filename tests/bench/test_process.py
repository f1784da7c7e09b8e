"""What the rig reads about the processes that it has started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.bench.process import children, parent, started

_LOOKS = 20

_A_CHILD_AND_THREADS_THAT_END = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
while True:
    threads = [threading.Thread(target=int) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_children_are_found_while_threads_end(tmp_path: Path) -> None:
    with started(tmp_path / "log", sys.executable, "-c", _A_CHILD_AND_THREADS_THAT_END) as process:
        while not (child := process.children()):
            assert process.process.poll() is None
        assert len(child) == 1
        for _ in range(_LOOKS):
            assert process.children() == child


def test_process_that_has_ended_is_nobodys_child() -> None:
    ended = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
    assert ended in children(os.getpid())  # it has ended, but nobody has waited for it
    os.waitpid(ended, 0)
    assert parent(ended) is None
    assert ended not in children(os.getpid())


def test_name_of_a_process_is_any_bytes(tmp_path: Path) -> None:
    command = tmp_path / "abcdefghijklmn\N{LATIN SMALL LETTER E WITH ACUTE}"  # longer than the kernel's 15 bytes
    command.symlink_to("/bin/cat")
    reading, writing = os.pipe()
    strange = os.posix_spawn(command, ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)])
    try:
        assert parent(strange) == os.getpid()
    finally:
        os.close(reading)
        os.close(writing)
        os.waitpid(strange, 0)
