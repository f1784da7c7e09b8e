"""The settings file as it was accepted, for workers that are restarted.

The file on disk may have problems by then, or other addresses than those that the supervisor was started with. So the
supervisor keeps two copies in its private folder: of the file that it started with, and of the last one without
problems.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from extproc.config.load import config_path, load
from extproc.config.settings import Settings
from extproc.serve.fixed import with_fixed
from extproc.serve.shared_metrics import FOLDER_VARIABLE


class Accepted:
    """The copies, in a folder that only this user can read."""

    def __init__(self, folder: Path, config: Path | None) -> None:
        """Keep copies of `config`, else of the file that the environment names; of none if there is none."""
        self._path = config_path(config)
        self._config = config
        self._started = folder / "started.yaml"
        self._last = folder / "accepted.yaml"
        self._begun_with: bytes | None = None

    @classmethod
    def by_supervisor(cls, config: Path | None) -> Accepted:
        """Return the copies of this worker's supervisor."""
        return cls(Path(os.environ[FOLDER_VARIABLE]), config)

    def accept(self) -> Settings:
        """Read the file and keep it; return the settings in force. Raises SettingsError, and keeps the last file."""
        if self._path is None:
            return load(self._config, serving=True)
        try:
            data = self._path.read_bytes()
        except OSError:
            return load(self._config, serving=True)  # it says what is wrong
        new = self._last.with_name("new.yaml")
        _write(new, data)
        try:
            before = load(self._last) if self._last.exists() else None
            settings = load(new, serving=True, before=before)
        except BaseException:
            new.unlink()
            raise
        if not self._started.exists():
            _write(self._started, data)
        new.rename(self._last)
        return with_fixed(settings, load(self._started))

    def settings(self) -> Settings:
        """Return the settings in force, for a worker. Raises SettingsError.

        The files that they name are not read again: the supervisor has checked them, and one that hangs or is missing
        by now must not prevent the start of a worker. Without a key, detections fail.
        """
        if not self._last.exists():
            return load(self._config)
        self._begun_with = self._last.read_bytes()
        return with_fixed(load(self._last), load(self._started))

    def is_outdated(self) -> bool:
        """Return whether the file differs from the one that `settings` has read.

        The supervisor may have accepted another one since: a worker takes a while to start.
        """
        with suppress(OSError):
            begun_with = self._begun_with
            return self._path is not None and begun_with is not None and self._path.read_bytes() != begun_with
        return False


def _write(path: Path, data: bytes) -> None:
    """Write a file that only this user can read: it may hold keys."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
