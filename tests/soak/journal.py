"""A journal in a file that outlives its process: each line is written to the kernel before the process acts on it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

VERIFIED = "verified"
"""Verified by Aim, which is about to send it."""
RECEIVED = "received"
"""Received by the model in a request."""
LEAKED = "leaked"
"""Leaked to the model: a request with a word that Aim blocks or redacts."""
REFUSED_KEY = "refused_key"
"""Refused by Aim: a key that is not accepted any more."""


class Journal:
    """An open journal. A restarted process appends to the journal of its predecessor."""

    def __init__(self, path: Path) -> None:
        """Append to `path`."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, what: str, names: Iterable[str]) -> None:
        """Write a line for each name."""
        if lines := "".join(f"{what} {name}\n" for name in names):
            os.write(self._file, lines.encode())


def read(path: Path) -> dict[str, set[str]]:
    """Return the names, grouped by their kind of entry."""
    found: dict[str, set[str]] = {what: set() for what in (VERIFIED, RECEIVED, LEAKED, REFUSED_KEY)}
    for line in path.read_text().splitlines() if path.exists() else ():
        what, _, name = line.partition(" ")
        found[what].add(name)
    return found
