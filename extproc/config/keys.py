"""The API keys for Aim: one for all profiles, or one for each."""

from __future__ import annotations

import time

from extproc.config.key_file import FIRST_SECONDS, KeyFile, is_key
from extproc.config.settings import Settings
from extproc.core.errors import DetectionRejected, Reason


class Keys:
    """The API key of each profile."""

    def __init__(self, settings: Settings, *, logs: bool = True) -> None:
        """Take the keys from `settings`. Files are followed from now on; their problems are logged if `logs`."""
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
        files = [*(() if self._default is None else (self._default,)), *self._own.values()]
        deadline = time.monotonic() + FIRST_SECONDS
        for file in files:
            file.wait(max(0.0, deadline - time.monotonic()))

    def of(self, profile: str) -> str:
        """Return the key for `profile`, without waiting for a file.

        Raises DetectionRejected with reason `key_refused` if there is no key.
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
