"""The plan of a soak: how long it lasts, how much traffic there is, and what fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.soak import faults
from tests.soak.script import Pace
from tests.soak.variants import Variant

BOUND_SECONDS = 45.0
"""No exchange takes this much longer than its script, whatever fails."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The form of deployment, the duration, the number of exchanges at once, and the faults of a soak."""

    variant: Variant
    seconds: float
    streams: int
    pace: Pace
    injected: tuple[faults.Fault, ...]
    calm: float
    rest: float
    """The least time of load after the last fault, which ends later than planned on a slow machine."""
    ramp: float
    slow_clients: int
    slow_seconds: float
    """How long the slow clients do not read."""
    seed: int
    large_clients: int = 0
    """Clients that get one large answer after the other."""
    least_behind: float = 0.0
    """How far Aim must have been behind with them, in seconds."""
    least_paused: float = 0.0
    """For how long reading from a model must have paused, in seconds."""

    @property
    def longest(self) -> float:
        """The time after which the soak is given up, in seconds."""
        return 2 * self.seconds + 4 * BOUND_SECONDS + 120


def usual(variant: Variant, minutes: float, streams: int, seed: int) -> Plan:
    """Return the plan of `make soak`."""
    seconds, calm = 60 * minutes, 12.0
    ramp = min(20.0, seconds / 10)
    injected = tuple(faults.until(seconds - ramp, calm, variant))
    plan = Plan(
        variant,
        seconds,
        streams,
        Pace(30, 1.5),
        injected,
        calm,
        calm,
        ramp,
        slow_clients=10,
        slow_seconds=20,
        seed=seed,
    )
    if not variant.is_aim_slow:
        return plan
    # Aim needs more than four minutes for 32 MiB. Envoy stores about 20 MiB of an answer before it stops reading.
    pace = Pace(30, 1.5, large_pieces=1024, lag=0.25)
    return replace(plan, pace=pace, slow_clients=0, large_clients=8, least_behind=60, least_paused=10)


def tiny(variant: Variant, streams: int, seed: int) -> Plan:
    """Return a plan that takes seconds, only to check that everything works."""
    injected = faults.brief(variant)
    plan = Plan(variant, 14, streams, Pace(10, 0.2), injected, 1.0, 4.0, 0.5, slow_clients=1, slow_seconds=2, seed=seed)
    if not variant.is_aim_slow:
        return plan
    pace = Pace(10, 0.2, large_pieces=300, lag=0.012)
    return replace(plan, pace=pace, slow_clients=0, large_clients=2, least_behind=1)
