"""What is seen behind the sidecar: what Aim was asked, what the model received, how an exchange was recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extproc.demo.model import Generation
from extproc.local_aim.judge import Analysis

_WAIT_SECONDS = 3.0
"""What is told after an answer's end comes at once; so long is waited for what never comes."""

_POLL_SECONDS = 0.01
_KEPT = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """One act of asking Aim: `hook`, the text asked about where it is known, and the verdict.

    `milliseconds` are Aim's own where it is the local one, else those that the sidecar waited for it.
    """

    hook: str
    action: str
    policies: tuple[str, ...]
    milliseconds: float
    text: str = ""


class Observed:
    """Collects from the local Aim, the demo model and the sidecar's log, the last ones of each."""

    def __init__(self, sidecar_log: Path) -> None:
        """Read the sidecar's access records in `sidecar_log`."""
        self._sidecar_log = sidecar_log
        self._analyses: list[Analysis] = []
        self._generations: list[Generation] = []

    def on_analysis(self, analysis: Analysis) -> None:
        """Take an analysis of the local Aim."""
        self._analyses = [*self._analyses[-_KEPT:], analysis]

    def on_request(self, generation: Generation) -> None:
        """Take a generation of the demo model."""
        self._generations = [*self._generations[-_KEPT:], generation]

    def forget_generations(self) -> None:
        """Begin a new scene: nothing ties a generation to an exchange but that nobody else is there."""
        self._generations = []

    async def generation(self) -> Generation | None:
        """Return the generation of this scene, ended if it ends within some seconds; None if there was none."""
        if not self._generations:
            return None
        generation = self._generations[0]
        await _wait(generation.ended.is_set)
        return generation

    async def record(self, call_id: str) -> dict[str, Any]:
        """Return the sidecar's access record of an exchange; empty if it does not come within some seconds."""
        found: dict[str, Any] = {}

        def is_written() -> bool:
            for line in self._sidecar_log.read_text(errors="replace").splitlines():
                if call_id in line and line.endswith("}"):
                    entry = json.loads(line)
                    if entry.get("event") == "exchange":
                        found.update(entry)
            return bool(found)

        await _wait(is_written)
        return found

    async def analyses(self, call_id: str, expected: int) -> list[Asked]:
        """Return what the local Aim was asked in an exchange, waiting some seconds for `expected` answers."""

        def of_exchange() -> list[Analysis]:
            return [analysis for analysis in self._analyses if analysis.call_id == call_id]

        await _wait(lambda: len(of_exchange()) >= expected)
        return [
            Asked(each.hook, each.action, each.policies, each.milliseconds, each.text or _last_text(each))
            for each in of_exchange()
        ]


def asked_by_record(record: dict[str, Any]) -> list[Asked]:
    """Return the verdicts in an access record: all that is known of an Aim that is not ours."""
    return [
        Asked(leg, verdict["action"], tuple(verdict["policies"]), verdict["ms"])
        for leg in ("request", "response")
        if (verdict := record.get(leg))
    ]


def _last_text(analysis: Analysis) -> str:
    content = analysis.messages[-1].get("content") if analysis.messages else ""
    return content if isinstance(content, str) else json.dumps(content)


async def _wait(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, or for some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                if condition():
                    return
                await asyncio.sleep(_POLL_SECONDS)
