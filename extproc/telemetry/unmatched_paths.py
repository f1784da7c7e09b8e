"""The paths that no dialect knows, as the status page shows them: how often each was met, and what was done."""

from __future__ import annotations

from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.snapshot import UNMATCHED, UnmatchedPath

_READ = ("", "generic")
"""The dialects of exchanges that no dialect but the generic one has read."""


class UnmatchedPaths:
    """A bounded table of counts. Clients choose the paths, so the least frequent one makes room for a new one."""

    def __init__(self) -> None:
        """Begin without paths."""
        self._counts: dict[tuple[str, str, str], int] = {}
        self.others = 0
        """The exchanges whose paths are no longer in the table."""

    def count(self, record: ExchangeRecord, method: str, path: str) -> None:
        """Count an exchange that ended. `method` and `path` are those that may be shown (`shown_path`)."""
        if record.dialect not in _READ:
            return  # its body was of an API that is known
        key = (method, path, _done(record))
        counts = self._counts
        if key not in counts and len(counts) >= UNMATCHED:
            least = min(counts, key=counts.__getitem__)  # the oldest of them
            self.others += counts.pop(least)
        counts[key] = counts.get(key, 0) + 1

    def rows(self) -> tuple[UnmatchedPath, ...]:
        """Return the table."""
        return tuple(UnmatchedPath(*key, count) for key, count in self._counts.items())


def _done(record: ExchangeRecord) -> str:
    """Return what was done with the exchange. What Aim has blocked was inspected; a dry run refuses nothing."""
    if record.outcome == "refused":
        return "refused"
    outcome = record.code if record.outcome == "dry_run" else record.outcome
    return "passed" if not record.dialect or outcome in ("failed_open", "refused") else "inspected"
