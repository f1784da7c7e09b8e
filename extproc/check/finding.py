"""What a check has found: how bad, where, what, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # it guards, but something will go wrong sometimes
    ERROR = "error"  # it does not guard, or ordinary traffic fails


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `advice` is empty where nothing needs to be done."""

    severity: Severity
    where: str
    what: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.severity}: {self.where}: {self.what}"
        line = f"{line}; {self.advice}" if self.advice else line
        # Names in it are those of a running Envoy, which who configures it chooses: none may command a terminal.
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def error(where: str, what: str, advice: str) -> Finding:
    """Return what keeps the guard from working."""
    return Finding(Severity.ERROR, where, what, advice)


def warning(where: str, what: str, advice: str) -> Finding:
    """Return what will go wrong sometimes."""
    return Finding(Severity.WARNING, where, what, advice)
