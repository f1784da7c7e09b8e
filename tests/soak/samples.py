"""Samples of the memory and the open files of the sidecar and Envoy during a soak, and their evaluation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MEBIBYTE = 1024 * 1024

_GROWTH_MIB = 24.0
_GROWTH_SHARE = 0.25
"""Flat memory grows after its warm-up by less than the larger of these two."""

_WARM_UP_SHARE = 0.25
_WINDOW_SHARE = 0.2
_FEWEST = 20
"""The fewest samples from which growth is determined."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: seconds since the beginning, bytes, open files, streams, the machine's load, and held bytes."""

    at: float
    sidecar: int
    envoy: int
    files: int
    streams: int
    load: float
    held: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the sidecar in MiB: at rest, when warm, at the end, and its slope."""

    rest: float
    warm: float
    end: float
    peak: float
    slope: float
    """MiB per minute."""
    minutes: float

    @property
    def is_flat(self) -> bool:
        """Return whether the memory stayed within its bound."""
        return self.end - self.warm <= max(_GROWTH_MIB, _GROWTH_SHARE * self.warm)

    def described(self) -> dict[str, float]:
        """Return the values as JSON, rounded."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def memory(samples: Sequence[Sample], since: float, rest: int) -> Memory | None:
    """Return the memory of the process that has run since `since`; None if there are too few samples."""
    lived = [sample for sample in samples if sample.at >= since]
    warm = lived[round(_WARM_UP_SHARE * len(lived)) :]
    if len(warm) < _FEWEST:
        return None
    count = max(1, round(_WINDOW_SHARE * len(warm)))
    sizes = [sample.sidecar / MEBIBYTE for sample in warm]
    times = [sample.at / 60 for sample in warm]
    return Memory(
        rest / MEBIBYTE,
        statistics.median(sizes[:count]),
        statistics.median(sizes[-count:]),
        max(sizes),
        statistics.linear_regression(times, sizes).slope,
        times[-1] - times[0],
    )
