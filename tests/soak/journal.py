"""What a process has seen, in a file that outlives it: each line is in the kernel's hands before anybody acts on it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

VERIFIED = "verified"
"""By Aim, about to be told so."""
RECEIVED = "received"
"""By the model, in a request."""
LEAKED = "leaked"
"""To the model: a request with a word that Aim blocks or redacts."""
REFUSED_KEY = "refused_key"
"""By Aim: a key that it did not expect to see."""


class Journal:
    """An open journal; a process that begins anew goes on where the last one ended."""

    def __init__(self, path: Path) -> None:
        """Append to `path`."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, what: str, names: Iterable[str]) -> None:
        """Write a line for each name."""
        if lines := "".join(f"{what} {name}\n" for name in names):
            os.write(self._file, lines.encode())


def read(path: Path) -> dict[str, set[str]]:
    """Return the names by what was noted of them."""
    found: dict[str, set[str]] = {what: set() for what in (VERIFIED, RECEIVED, LEAKED, REFUSED_KEY)}
    for line in path.read_text().splitlines() if path.exists() else ():
        what, _, name = line.partition(" ")
        found[what].add(name)
    return found
