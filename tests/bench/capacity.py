"""What some cores carry, computed from the CPU of one exchange or chunk.

Nothing is measured here. The computation assumes that the work spreads over the cores: as many workers as cores, which
cost the same for each exchange. The part `workers` of the bench measures whether that holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CORES: Final = 2
USED: Final = 0.7
"""How much of the cores may be used if latency is to stay low."""

TOKENS_PER_SECOND: Final = 30
"""The chunks a second of a stream that people read."""

CHAIN: Final = ("guard_us", "envoy_us")
"""The CPU of the external processor and of its Envoy, or of a proxy that is both."""

ALL: Final = (*CHAIN, "around_us")
"""The same with the client and the stand-ins, which have the same cores in the bench."""


def exchanges(cpu_us: float, cores: int = CORES) -> float:
    """Return how many exchanges a second `cores` carry if each takes `cpu_us`."""
    return cores * USED * 1e6 / cpu_us


def streams(cpu_us: float, cores: int = CORES) -> float:
    """Return how many streams `cores` carry if each chunk takes `cpu_us`."""
    return exchanges(cpu_us, cores) / TOKENS_PER_SECOND


def spent(found: Mapping[str, float], parts: tuple[str, ...] = CHAIN) -> float:
    """Return the CPU of these parts in a chain's results; a chain without its own Envoy has none."""
    return sum(found.get(part, 0.0) for part in parts)
