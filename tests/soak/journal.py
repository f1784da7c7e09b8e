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
JUDGED = "judged"
"""Blocked or redacted by Aim: the mark of a text, and when Aim had said so. Times are those of the monotonic clock."""
SENT = "sent"
"""Sent by the model: the number of an answer, and when its last byte was taken from the model."""
PAUSED = "paused"
"""Paused: the number of an answer of which the model could send nothing, and for how many seconds."""

KINDS = (VERIFIED, RECEIVED, LEAKED, REFUSED_KEY, JUDGED, SENT, PAUSED)


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
    found: dict[str, set[str]] = {what: set() for what in KINDS}
    for line in path.read_text().splitlines() if path.exists() else ():
        what, _, name = line.partition(" ")
        found[what].add(name)
    return found


def latest(entries: Iterable[str]) -> dict[str, float]:
    """Return the number in each entry `NAME NUMBER`, the greatest for each name."""
    found: dict[str, float] = {}
    for entry in entries:
        name, _, value = entry.partition(" ")
        found[name] = max(found.get(name, 0.0), float(value))
    return found
