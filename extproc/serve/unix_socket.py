"""The file of a unix socket: one that somebody serves is not taken over, and nobody else's is removed.

(Of two processes that start in the same moment the later one may still take over.)

gRPC removes whatever socket it finds at a path, when it binds and again when it ends. So it is given a name that nobody
else has, and its socket is then moved to where it belongs.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
from contextlib import suppress
from pathlib import Path


class SocketFile:
    """Where one listener's socket is."""

    def __init__(self, path: Path) -> None:
        """Prepare to listen at `path`."""
        self._path = path
        self.first_path = path.with_name(f".{secrets.token_hex(3)}")
        """where to bind"""
        self._bound: os.stat_result | None = None

    def check(self) -> None:
        """Raise OSError unless there is nothing at the path, or a socket that nobody serves any more."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # one whose queue is full is served, and would have us wait
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def publish(self) -> None:
        """Move the socket that was bound to its path, in place of a stale one; raises OSError."""
        try:
            self._bound = self.first_path.stat()
            self.first_path.rename(self._path)
        except OSError:
            self.first_path.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Remove it, unless what is there now is another's."""
        with suppress(OSError):
            if self._bound is not None and os.path.samestat(self._bound, self._path.lstat()):
                self._path.unlink()
