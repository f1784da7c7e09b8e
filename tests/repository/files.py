"""The files of the repository: those that git tracks, or all of a source archive's."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BUILT = ("build", "dist", "__pycache__")


@cache
def repository_files() -> tuple[Path, ...]:
    """Return every file that git tracks. In a source archive, return every file that was not built or installed."""
    if not (ROOT / ".git").exists():
        return tuple(_unpacked(ROOT))
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(path for name in names.split("\0") if name and (path := ROOT / name).is_file())


def _unpacked(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name in (".ci", ".github") or not _is_product(name)]
        found += [Path(folder, name) for name in sorted(names)]
    return found


def _is_product(folder: str) -> bool:
    return folder in _BUILT or folder.startswith(".") or folder.endswith(".egg-info")
