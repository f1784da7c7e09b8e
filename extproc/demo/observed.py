"""Collects what the demo's parts saw: detections, requests to the model, the sidecar's access records."""

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
"""How long to wait for reports after the end of an answer; usually they are already there."""

_POLL_SECONDS = 0.01
_KEPT = 100


@dataclass(frozen=True, slots=True)
class Detection:
    """One detection: `hook`, the text if it is known, and the verdict.

    `milliseconds` is the local Aim's own time, or the time that the sidecar waited for a real Aim.
    """

    hook: str
    action: str
    policies: tuple[str, ...]
    milliseconds: float
    text: str = ""


class Observed:
    """The most recent reports of the local Aim, the demo model and the sidecar's log."""

    def __init__(self, sidecar_log: Path) -> None:
        """Collect reports; the sidecar's access records are in `sidecar_log`."""
        self._sidecar_log = sidecar_log
        self._analyses: list[Analysis] = []
        self._generations: list[Generation] = []

    def on_analysis(self, analysis: Analysis) -> None:
        """Record an analysis of the local Aim."""
        self._analyses = [*self._analyses[-_KEPT:], analysis]

    def on_request(self, generation: Generation) -> None:
        """Record a generation of the demo model."""
        self._generations = [*self._generations[-_KEPT:], generation]

    def forget_generations(self) -> None:
        """Begin a new scene: a generation has no call id, so only its scene identifies it."""
        self._generations = []

    async def generation(self) -> Generation | None:
        """Return the generation of this scene after it ended, or after some seconds; None if there was none."""
        if not self._generations:
            return None
        generation = self._generations[0]
        await _wait(generation.ended.is_set)
        return generation

    async def record(self, call_id: str) -> dict[str, Any]:
        """Return the sidecar's access record of an exchange; empty if there is none within some seconds."""
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

    async def analyses(self, call_id: str, expected: int) -> list[Detection]:
        """Return the local Aim's detections of an exchange, after waiting some seconds for `expected` of them."""

        def of_exchange() -> list[Analysis]:
            return [analysis for analysis in self._analyses if analysis.call_id == call_id]

        await _wait(lambda: len(of_exchange()) >= expected)
        return [
            Detection(each.hook, each.action, each.policies, each.milliseconds, each.text or _last_text(each))
            for each in of_exchange()
        ]


def detections_of(record: dict[str, Any]) -> list[Detection]:
    """Return the verdicts in an access record, which is all that is known about a real Aim."""
    return [
        Detection(leg, verdict["action"], tuple(verdict["policies"]), verdict["ms"])
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
