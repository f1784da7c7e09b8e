"""What the rig reads about the processes that it has started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench.process import started

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")

_LOOKS = 200

_A_CHILD_AND_THREADS_THAT_END = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
while True:
    threads = [threading.Thread(target=int) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_children_are_found_while_threads_and_processes_end(tmp_path: Path) -> None:
    with started(tmp_path / "log", sys.executable, "-c", _A_CHILD_AND_THREADS_THAT_END) as process:
        while not (child := process.children()):
            assert process.process.poll() is None
        assert len(child) == 1
        for _ in range(_LOOKS):
            other = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
            try:
                assert process.children() == child
            finally:
                os.waitpid(other, 0)
