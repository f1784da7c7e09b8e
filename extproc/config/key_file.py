"""A key in a file, such as a mounted Kubernetes secret. It is read again when the file changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

_log = structlog.get_logger()


def is_key(text: str) -> bool:
    """Return whether `text` is not empty and can be sent in an HTTP header."""
    return bool(text) and all("!" <= character <= "~" for character in text)


def key_problem(key: bytes) -> str | None:
    """Return why `key`, stripped, cannot be sent to Aim; None if it can."""
    if not key:
        return "it is empty"
    return None if is_key(key.decode("latin-1")) else "it contains characters that an HTTP header cannot carry"


def hash_key_problem(key: bytes) -> str | None:
    """Return why `key` cannot be used for hashing; None if it can."""
    return None if key else "it is empty"


class KeyFile:
    """A key in a file. A problem with the file is logged once, and so is the end of the problem."""

    def __init__(
        self, path: Path, setting: str, find_problem: Callable[[bytes], str | None] = key_problem, *, logs: bool = True
    ) -> None:
        """Prepare to read `path`, the value of `setting`: on first use and whenever the file has changed."""
        self._path = path
        self._setting = setting
        self._find_problem = find_problem
        self._logs = logs
        self._seen: tuple[int, int, int] | None = None
        self._key = b""
        self._problem: str | None = None

    def read(self) -> bytes:
        """Return the key, stripped; empty if there is none."""
        problem = None
        # Secrets are replaced by renaming files. While the file is missing, the last key stays in use.
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._key = self._path.read_bytes().strip()
                self._seen = seen
        except OSError as error:
            problem = error.strerror or type(error).__name__
        else:
            problem = self._find_problem(self._key)
        if problem != self._problem:
            self._problem = problem
            if self._logs:
                self._log()
        return self._key

    def _log(self) -> None:
        about = {"setting": self._setting, "file": str(self._path)}
        if self._problem is None:
            _log.info("key_readable", **about)
        else:
            is_usable = self._find_problem(self._key) is None
            _log.warning("key_unreadable", **about, problem=self._problem, last_key_in_use=is_usable)
