"""The keys for Aim: one for all, or one for each profile; from files they are re-read when the file changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from extproc.core.errors import DetectionRejected, Reason

if TYPE_CHECKING:
    from extproc.config.settings import Settings

_log = structlog.get_logger()


def is_key(text: str) -> bool:
    """Tell whether `text` is something, and can be sent in an HTTP header."""
    return bool(text) and all("!" <= character <= "~" for character in text)


def key_problem(key: bytes) -> str | None:
    """Return why `key`, without the space around it, cannot be sent to Aim, if so."""
    if not key:
        return "it is empty"
    return None if is_key(key.decode("latin-1")) else "it holds characters that no HTTP header can carry"


def hash_key_problem(key: bytes) -> str | None:
    """Return why nothing can be hashed with `key`, if so."""
    return None if key else "it is empty"


class KeyFile:
    """A key in a file, such as a mounted Kubernetes secret; what becomes wrong with it is logged, once."""

    def __init__(
        self, path: Path, setting: str, find_problem: Callable[[bytes], str | None] = key_problem, *, logs: bool = True
    ) -> None:
        """Read `path`, which `setting` names, when the key is first asked for, and when the file has changed."""
        self._path = path
        self._setting = setting
        self._find_problem = find_problem
        self._logs = logs
        self._seen: tuple[int, int, int] | None = None
        self._key = b""
        self._problem: str | None = None

    def read(self) -> bytes:
        """Return the key, without the space around it; nothing where there is none."""
        problem = None
        # A secret is replaced by renaming: while it is away, the last key is as good as any.
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


class Keys:
    """Finds the key of a profile."""

    def __init__(self, settings: Settings, *, logs: bool = True) -> None:
        """Take the keys that `settings` name; files are read on first use, and logged about if `logs`."""
        aim = settings.aim
        self._fixed = aim.api_key.get_secret_value()
        self._default = None
        if not self._fixed and aim.api_key_file is not None:
            self._default = KeyFile(aim.api_key_file, "aim.api_key_file", logs=logs)
        self._own = {
            name: KeyFile(profile.api_key_file, f"profiles.{name}.api_key_file", logs=logs)
            for name, profile in settings.profiles.items()
            if profile.api_key_file is not None
        }

    def of(self, profile: str) -> str:
        """Return the key for `profile`.

        Raises DetectionRejected with reason `key_refused` when there is none.
        """
        file = self._own.get(profile, self._default)
        if file is not None:
            key = file.read().decode("latin-1")
            if not is_key(key):
                raise DetectionRejected(Reason.KEY_REFUSED, "the key file cannot be read, or holds no key")
            return key
        if not self._fixed:
            raise DetectionRejected(Reason.KEY_REFUSED, "no key is configured")
        return self._fixed
