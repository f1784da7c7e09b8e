"""A finding of a check: severity, place, problem, advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # it guards, but something will fail sometimes
    ERROR = "error"  # it does not guard, or ordinary traffic fails


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `advice` is empty if nothing needs to be done."""

    severity: Severity
    where: str
    what: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.severity}: {self.where}: {self.what}"
        line = f"{line}; {self.advice}" if self.advice else line
        # Names come from a running Envoy's configuration: none may send commands to a terminal.
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def error(where: str, what: str, advice: str) -> Finding:
    """Return a finding that the sidecar does not guard, or that ordinary traffic fails."""
    return Finding(Severity.ERROR, where, what, advice)


def warning(where: str, what: str, advice: str) -> Finding:
    """Return a finding that something will fail sometimes."""
    return Finding(Severity.WARNING, where, what, advice)


def actionable(
    make: Callable[[str, str, str], Finding], where: str, what: str, advice: str | None
) -> Iterator[Finding]:
    """Yield the finding that `make` makes, unless `advice` is None: the operator cannot act on it."""
    if advice is not None:
        yield make(where, what, advice)
