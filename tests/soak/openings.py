"""What may leave without a verdict where the sidecar fails open. It has no clock and no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

REQUEST: Final = "request"
RESPONSE: Final = "response"

_OWN_DECISIONS = ("timeout", "held_bytes")
"""The reasons for which the sidecar gives up by itself. What Aim says at that moment may come too late."""
_MOMENT = 1.0
"""How long before such an opening what Aim said may not have arrived yet, in seconds."""

TOO_LARGE: Final = "body_too_large"


@dataclass(frozen=True, slots=True)
class Opening:
    """A leg that failed open: the number of its exchange (None if unknown), and the time on the monotonic clock."""

    number: int | None
    leg: str
    reason: str
    at: float


class Openings:
    """All openings that the sidecar has logged."""

    def __init__(self, found: Iterable[Opening] = ()) -> None:
        """Collect `found`."""
        self.all = tuple(found)
        self._by_leg = {(opening.number, opening.leg): opening for opening in self.all}

    @property
    def counts(self) -> dict[str, int]:
        """How many legs failed open, by leg and reason."""
        return dict(sorted(Counter(f"{each.leg} {each.reason}" for each in self.all).items()))

    def has(self, mark: str, leg: str) -> bool:
        """Return whether the leg of the text with this mark failed open."""
        return (_number(mark), leg) in self._by_leg

    def leaks(self, judged: dict[str, float], seen: Iterable[str], leg: str) -> list[str]:
        """Return what is wrong with texts whose words for Aim were seen behind `leg`.

        They may be seen only if the leg failed open before Aim had blocked or redacted them, at the times of `judged`.
        """
        wrongs = []
        for mark in sorted(seen):
            opening = self._by_leg.get((_number(mark), leg))
            if opening is None:
                wrongs.append(f"<{mark}> left the {leg} leg with a word for Aim, and the leg did not fail open")
            elif mark in judged:
                late = _MOMENT if opening.reason in _OWN_DECISIONS else 0.0
                if judged[mark] + late < opening.at:
                    wrongs.append(f"<{mark}> left the {leg} leg with a word that Aim had blocked or redacted before")
        return wrongs

    def unexplained(self, faults: Iterable[tuple[float, float]], too_large: Set[int]) -> list[str]:
        """Return the openings outside of all `faults`, which are times. A request that is too large needs no fault."""
        times = tuple(faults)
        return [
            f"exchange {each.number} failed open ({each.leg}, {each.reason}) without a fault"
            for each in self.all
            if not (each.reason == TOO_LARGE and (each.number is None or each.number in too_large))
            and not any(began <= each.at <= ended for began, ended in times)
        ]


def _number(mark: str) -> int:
    return int(mark.partition(".")[0])
