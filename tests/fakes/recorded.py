"""Traffic of real providers, recorded by other projects. It is next to the checkout, in `../shared`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SHARED = Path(__file__).parents[2].parent / "shared"
CORPUS = SHARED / "corpus"
FOLDERS = (CORPUS, SHARED / "recordings")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One exchange. A part that its source did not record is None."""

    name: str
    method: str
    path: str
    status: int
    content_type: str
    request: bytes | None
    response: bytes | None


def recorded(*folders: Path) -> list[Recorded]:
    """Return the exchanges in `folders`, sorted by name. If they have none because `SHARED` is missing, tests skip.

    Raises FileNotFoundError for an empty, unreadable or missing folder in a `SHARED` that exists: no test may be
    skipped for that.
    """
    return [_read(meta) for folder in folders for meta in _cases(folder)]


def _cases(folder: Path) -> list[Path]:
    cases = sorted(folder.glob("*/meta.json"))
    if not cases and folder.parent.is_dir():
        raise FileNotFoundError(f"{folder} has no recorded traffic, although {folder.parent} exists")
    return cases


def _read(meta: Path) -> Recorded:
    about = json.loads(meta.read_text())
    return Recorded(
        meta.parent.name,
        about.get("method", "POST"),
        about["path"],
        about["status"] or 200,
        about["content_type"],
        _bytes(meta.with_name("request.json")),
        _bytes(meta.with_name("response.body")),
    )


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None
