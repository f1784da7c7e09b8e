"""The lines of an audit log, which a thread writes soon after what they tell of."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

_MOST_SECONDS = 20.0


def audit_lines(file: Path, count: int) -> list[dict[str, Any]]:
    """Return the lines of `file` once it has `count` of them; fail if that takes too long or if there are more."""
    deadline = time.monotonic() + _MOST_SECONDS
    while (text := file.read_text() if file.exists() else "").count("\n") < count:
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == count, text
    return lines
