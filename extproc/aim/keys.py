"""The keys for Aim: one for all, or one for each profile; from files they are re-read when the file changes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.errors import DetectionRejected, Reason

if TYPE_CHECKING:
    from extproc.settings import Settings


def is_key(text: str) -> bool:
    """Tell whether `text` is something, and can be sent in an HTTP header."""
    return bool(text) and all("!" <= character <= "~" for character in text)


class KeyFile:
    """A key in a file, such as a mounted Kubernetes secret."""

    def __init__(self, path: Path) -> None:
        """Read `path` when the key is first asked for, and when the file has changed."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._key = b""

    def read(self) -> bytes:
        """Return the key, without the space around it; nothing where there is none."""
        # A secret is replaced by renaming: while it is away, the last key is as good as any.
        with suppress(OSError):
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._key = self._path.read_bytes().strip()
                self._seen = seen
        return self._key


class Keys:
    """Finds the key of a profile."""

    def __init__(self, settings: Settings) -> None:
        """Take the keys that `settings` name; files are read on first use."""
        aim = settings.aim
        self._fixed = aim.api_key.get_secret_value()
        self._default = None if self._fixed or aim.api_key_file is None else KeyFile(aim.api_key_file)
        self._own = {
            name: KeyFile(profile.api_key_file)
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
