"""Writes the results to docs/performance.md, its plots, and the baseline of `make bench-quick`.

python tests/bench/publish.py       # again from the baseline, when the tables or plots look otherwise now
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    # See the comment in run.py.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import plots, report
from tests.bench.gate import BASELINE
from tests.bench.process import ROOT

DOCUMENT: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"

_NOTHING: Final = "Not measured in this run.\n"
_MARKED = re.compile(r"(?<=<!-- bench: )(\S+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def publish(results: dict[str, Any]) -> None:
    """Write `results`, which must have all parts, except that instructions need valgrind."""
    BASELINE.write_text(json.dumps(results, indent=2) + "\n")
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), report.sections(results)))
    plots.draw(results, IMAGES)


def filled(document: str, sections: dict[str, str]) -> str:
    """Return the document with each marked place filled; a place says so if nothing was measured for it.

    Raises ValueError unless each section has one place.
    """
    places = [match[1] for match in _MARKED.finditer(document)]
    if len(places) != len(set(places)) or not sections.keys() <= set(places):
        raise ValueError(f"marked are {places}, measured {sorted(sections)}")
    return _MARKED.sub(lambda match: f"{match[1]}{match[2]}{sections.get(match[1], _NOTHING)}", document)


if __name__ == "__main__":
    publish(json.loads(BASELINE.read_text()))
