"""A key in a file, such as a mounted Kubernetes secret. A change of the file is noticed within about a second."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import structlog

POLL_SECONDS = 1.0
"""The interval in which a file is looked at."""

FIRST_SECONDS = 1.0
"""How long to wait for the keys of a new client. A file that takes longer is in use as soon as it has been read."""

_HANG_SECONDS = 5.0
"""A look that takes longer hangs."""

_SETTLE_SECONDS = 0.1
"""The next look at a file that may be changing."""

_MOST_BYTES = 65_536
"""The rest of a longer file is not read."""

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
    """A key in a file, which a thread of its own follows: a mount that hangs must not stop the traffic.

    A problem with the file is logged once, and so is the end of the problem. The thread ends soon after the last
    reference to this object is gone.
    """

    def __init__(
        self,
        path: Path,
        setting: str,
        find_problem: Callable[[bytes], str | None] = key_problem,
        *,
        logs: bool = True,
        poll_seconds: float = POLL_SECONDS,
        settle_seconds: float = _SETTLE_SECONDS,
        hang_seconds: float = _HANG_SECONDS,
    ) -> None:
        """Begin to follow `path`, the value of `setting`.

        Look at it every `poll_seconds`, and again after `settle_seconds` while it may be changing. A look that takes
        longer than `hang_seconds` is logged.
        """
        self._path = path
        self._setting = setting
        self._find_problem = find_problem
        self._logs = logs
        self._hang_seconds = hang_seconds
        self._looking = threading.Lock()
        self._telling = threading.Lock()
        self._looks_since: float | None = None  # when the present look began
        self._key: bytes | None = None
        self._seen: bytes | None = None  # what the last look found
        self._problem: str | None = None
        self._has_settled = threading.Event()
        stop = threading.Event()
        weakref.finalize(self, stop.set)
        threading.Thread(
            target=_follow,
            args=(weakref.ref(self), stop, poll_seconds, settle_seconds),
            name=f"key {setting}",
            daemon=True,
        ).start()

    def read(self) -> bytes:
        """Return the key, stripped; empty if there is none. This never waits for the file."""
        since = self._looks_since
        if since is not None and time.monotonic() - since > self._hang_seconds:
            with self._telling:
                if self._looks_since == since:  # it has not ended meanwhile
                    self._tell("reading it takes too long")
        return self._key or b""

    def wait(self, seconds: float) -> None:
        """Wait at most `seconds` for the first key, or the first problem."""
        if not self._has_settled.wait(seconds):
            self._report("reading it takes too long")

    def look(self) -> bool:
        """Look at the file now; return whether it may be changing, so that the next look should be soon.

        Secrets are usually replaced by renaming files. Others are rewritten in place, and may be seen empty or half
        written. So another content than the key in use counts only once two looks in a row have found it, also when
        none is in use yet: a reload begins without one, and must not put a part of one into use. While the file
        holds no key, or is missing, the last key stays in use.
        """
        may_change = self._look()
        if not may_change:
            self._has_settled.set()
        return may_change

    def _look(self) -> bool:
        with self._looking:
            try:
                content = self._content()
            except (OSError, ValueError) as error:
                self._seen = None
                self._report(getattr(error, "strerror", None) or type(error).__name__)
                return False
            is_certain = content in (self._key, self._seen)
            self._seen = content
            if not is_certain:
                return True
            problem = self._find_problem(content)
            if problem is None:
                self._key = content
            self._report(problem)
            return False

    def _content(self) -> bytes:
        self._looks_since = time.monotonic()
        try:
            with self._path.open("rb") as file:
                return file.read(_MOST_BYTES).strip()
        finally:
            self._looks_since = None

    def _report(self, problem: str | None) -> None:
        with self._telling:
            self._tell(problem)

    def _tell(self, problem: str | None) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        if not self._logs:
            return
        about = {"setting": self._setting, "file": str(self._path)}
        if problem is None:
            _log.info("key_readable", **about)
        else:
            _log.warning("key_unreadable", **about, problem=problem, last_key_in_use=bool(self._key))


def _follow(file: weakref.ref[KeyFile], stop: threading.Event, poll_seconds: float, settle_seconds: float) -> None:
    """Look at the file until it is no longer needed. The thread holds no reference to it between two looks."""
    seconds = 0.0
    while not stop.wait(seconds):
        followed = file()
        if followed is None:
            return
        seconds = settle_seconds if followed.look() else poll_seconds
        del followed
