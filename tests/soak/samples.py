"""The sidecar's and Envoy's memory and files while a soak runs, and what follows from them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MEBIBYTE = 1024 * 1024

_GROWTH_MIB = 24.0
_GROWTH_SHARE = 0.25
"""Memory that is called flat grows by less than either after its warm-up, whichever is more."""

_WARM_UP_SHARE = 0.25
_WINDOW_SHARE = 0.2
_FEWEST = 20
"""With fewer samples nothing is said about growth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: seconds since the beginning, bytes, numbers of open files and of streams, the machine's load."""

    at: float
    sidecar: int
    envoy: int
    files: int
    streams: int
    load: float


@dataclass(frozen=True, slots=True)
class Memory:
    """How the memory of the sidecar went, in MiB: at rest, when warm, at the end, and from there to there."""

    rest: float
    warm: float
    end: float
    peak: float
    slope: float
    """A minute."""
    minutes: float

    @property
    def is_flat(self) -> bool:
        """Tell whether it stayed within its bound."""
        return self.end - self.warm <= max(_GROWTH_MIB, _GROWTH_SHARE * self.warm)

    def described(self) -> dict[str, float]:
        """Return it as JSON, rounded."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def memory(samples: Sequence[Sample], since: float, rest: int) -> Memory | None:
    """Return how memory went in the process that lives `since`; None if there are too few samples to tell."""
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
