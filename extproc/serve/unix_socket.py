"""The file of a unix socket. A socket in use is not replaced, and that of another process is not removed.

gRPC removes any socket that it finds at a path, when it binds and again when it ends. So gRPC binds to a name of its
own, and the socket is then moved to its path. A lock lets only one process at a time do so.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK_SECONDS = 10.0
"""How long to wait for another process that is about to listen at the same path. It needs milliseconds."""


class SocketFile:
    """The socket file of one listener."""

    def __init__(self, path: Path) -> None:
        """Prepare to listen at `path`."""
        self._path = path
        # Short, because the path of a socket has at most 107 bytes. The same at each start, so that the file which a
        # killed process leaves behind is removed by the next.
        self._first_path = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:6]}")
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._bound: os.stat_result | None = None

    def listen(self, bind: Callable[[Path], object]) -> None:
        """Call `bind` with the path to bind to, and move the bound socket to its path, replacing a stale one.

        Raises OSError if the path is in use, and what `bind` raises.
        """
        with self._locked():
            self._check()
            self._first_path.unlink(missing_ok=True)
            try:
                bind(self._first_path)
                self._bound = self._first_path.stat()
                self._first_path.rename(self._path)
            except BaseException:
                self._first_path.unlink(missing_ok=True)
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the path. The system releases it if the process is killed."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The file may have been removed by the process that held the lock before.
                if os.path.samestat(os.fstat(descriptor), self._lock_path.lstat()):
                    break
            except FileNotFoundError:
                pass
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise
                time.sleep(0.01)
            os.close(descriptor)
        try:
            yield
        finally:
            self._lock_path.unlink(missing_ok=True)
            os.close(descriptor)

    def _check(self) -> None:
        """Raise OSError unless the path is free or holds a socket that no process serves."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(errno.EEXIST, "the file is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # connecting to a socket in use would wait if its queue is full
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def remove(self) -> None:
        """Remove the file, unless it belongs to another process now."""
        with suppress(OSError):
            if self._bound is not None and os.path.samestat(self._bound, self._path.lstat()):
                self._path.unlink()
