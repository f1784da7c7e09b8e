"""Checks Envoy's version: the oldest releases whose ext_proc filter has no known fault that affects the sidecar."""

from __future__ import annotations

import re
from collections.abc import Iterator

from extproc.check.finding import Finding, warning

_PATCHED = {(1, 37): 6, (1, 38): 4, (1, 39): 1}
"""The oldest patch release of each supported minor release; newer minor releases need none."""

_NEWEST = max(_PATCHED)


def check_version(version: str, where: str) -> Iterator[Finding]:
    """Yield a finding if `version`, as Envoy names it, is older than the oldest patched release of its line."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return
    major, minor, patch = map(int, numbers.groups())
    line = (major, minor)
    if line > _NEWEST or patch >= _PATCHED.get(line, patch + 1):
        return
    lines = ", ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in _PATCHED.items())
    needed = f"{major}.{minor}.{_PATCHED[line]}" if line in _PATCHED else f"one of {lines}"
    what = "has faults in ext_proc that later patch releases mend" if line in _PATCHED else "is out of support"
    yield warning(where, f"Envoy {version} {what}", f"upgrade to {needed} or newer")
