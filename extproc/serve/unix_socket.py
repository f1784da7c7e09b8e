"""The file of a unix socket. A socket in use is not replaced, and that of another process is not removed.

gRPC removes any socket that it finds at a path, when it binds and again when it ends. So gRPC binds to a unique name,
and the socket is then moved to its path. If two processes start at the same moment, the later one may still replace the
socket of the other.
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
    """The socket file of one listener."""

    def __init__(self, path: Path) -> None:
        """Prepare to listen at `path`."""
        self._path = path
        self.first_path = path.with_name(f".{secrets.token_hex(3)}")
        """The path to bind to."""
        self._bound: os.stat_result | None = None

    def check(self) -> None:
        """Raise OSError unless the path is free or holds a socket that no process serves."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # connecting to a socket in use would wait if its queue is full
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def publish(self) -> None:
        """Move the bound socket to its path, replacing a stale one; raises OSError."""
        try:
            self._bound = self.first_path.stat()
            self.first_path.rename(self._path)
        except OSError:
            self.first_path.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Remove the file, unless it belongs to another process now."""
        with suppress(OSError):
            if self._bound is not None and os.path.samestat(self._bound, self._path.lstat()):
                self._path.unlink()
