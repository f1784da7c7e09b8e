"""The faults of a soak: they happen one after the other, with calm periods between them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.soak import aim
from tests.soak.checker import Span
from tests.soak.rig import AIM_TIMEOUT, BREAKER_OPEN, Rig
from tests.soak.variants import Variant

RECOVERY_SECONDS = AIM_TIMEOUT + BREAKER_OPEN + 3.0
"""How long after a fault exchanges may still fail because of it: a call made at its end must time out first, and then
the breaker stays open for some time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `seconds` is its duration.

    A `harmless` fault does not explain failures. One that `spares_streams` does not explain those of running streams.
    """

    name: str
    seconds: float
    do: Callable[[Rig, float], Awaitable[None]]
    is_harmless: bool = False
    spares_streams: bool = False


def _aim(fault: str, seconds: float, **more: bool) -> Fault:
    async def do(rig: Rig, seconds: float) -> None:
        rig.order(fault)
        await asyncio.sleep(seconds)
        rig.order()

    return Fault(f"Aim: {fault}", seconds, do, **more)


async def _kill_sidecar(rig: Rig, seconds: float) -> None:
    await asyncio.to_thread(rig.sidecar.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(rig.sidecar.start)


async def _kill_aim(rig: Rig, seconds: float) -> None:
    await asyncio.to_thread(rig.aim.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(rig.aim.start)


async def _kill_envoy(rig: Rig, seconds: float) -> None:
    await rig.kill_envoy()
    await asyncio.sleep(seconds)
    await rig.start_envoy()


async def _kill_worker(rig: Rig, seconds: float) -> None:
    rig.sidecar.kill_worker()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(rig.sidecar.wait)


async def _rotate_certificate(rig: Rig, seconds: float) -> None:
    await rig.rotate_certificate(seconds)


async def _rotate_key(rig: Rig, seconds: float) -> None:
    """Rotate the key: Aim accepts both keys until the sidecar has the new one."""
    (old,) = rig.orders.keys
    new = f"key-{int(old.removeprefix('key-')) + 1}"
    rig.order(keys=(old, new))
    rig.give_key(new)
    await asyncio.sleep(seconds)
    rig.order(keys=(new,))


async def _reload(rig: Rig, seconds: float) -> None:
    rig.configure(stream_head_seconds=1, block_message="Ask the help desk.")
    await asyncio.sleep(seconds)
    rig.configure()


async def _bad_settings(rig: Rig, seconds: float) -> None:
    rig.configure(hooks=["no such hook"])
    await asyncio.sleep(seconds)
    rig.configure()


async def _hang_up(rig: Rig, seconds: float) -> None:
    for _ in range(5):
        rig.sidecar.signal(signal.SIGHUP)
        await asyncio.sleep(seconds / 5)


KILLED_SIDECAR = "kill -9 of the sidecar"

KILLS = (
    Fault(KILLED_SIDECAR, 1, _kill_sidecar),
    Fault("kill -9 of Aim", 2, _kill_aim),
    Fault("kill -9 of Envoy", 1, _kill_envoy),
)
"""Faults that happen once, at the beginning, so that later measurements are those of long-lived processes."""

FAULTS = (
    Fault("key rotation", 3, _rotate_key, is_harmless=True),
    _aim(aim.SERVER_ERROR, 3, spares_streams=True),
    Fault("settings reloaded", 3, _reload, is_harmless=True),
    _aim(aim.SESSIONS_CUT, 4),
    _aim(aim.RATE_LIMITED, 3, spares_streams=True),
    Fault("bad settings", 3, _bad_settings, is_harmless=True),
    _aim(aim.SILENT, 8),
    Fault("SIGHUP", 2, _hang_up, is_harmless=True),
    _aim(aim.SESSIONS_SILENT, 12),
    _aim(aim.UNREADABLE, 2, spares_streams=True),
    _aim(aim.UNKNOWN_ACTION, 2, spares_streams=True),
    _aim(aim.SESSIONS_UNKNOWN, 2),
    _aim(aim.KEY_REFUSED, 2, spares_streams=True),
)
"""Faults that are repeated until the end in every variant."""

_CERTIFICATE = Fault("certificate rotation", 3, _rotate_certificate, is_harmless=True)
_WORKER = Fault("kill -9 of a worker", 3, _kill_worker)
_SLOWER = _aim(aim.SLOWER, 10, is_harmless=True)

_BRIEF_AIM = ("Aim: " + aim.SESSIONS_CUT, "Aim: " + aim.SERVER_ERROR, "Aim: " + aim.SLOWER)


def repeated(variant: Variant) -> tuple[Fault, ...]:
    """Return the faults that are repeated until the end."""
    return (
        *((_WORKER,) if variant.workers > 1 else ()),
        *((_CERTIFICATE,) if variant.has_tls else ()),
        *((_SLOWER,) if variant.is_aim_slow else ()),
        # If Aim is slow, large answers take minutes, and no session would live so long.
        *(fault for fault in FAULTS if fault.spares_streams or fault.is_harmless or not variant.is_aim_slow),
    )


def brief(variant: Variant) -> tuple[Fault, ...]:
    """Return the faults of a soak that lasts only seconds."""
    return tuple(
        # The sidecar looks at its files once a second.
        replace(fault, seconds=2 if fault.is_harmless else 0.5)
        for fault in (*KILLS[:2], *repeated(variant))
        if not fault.name.startswith("Aim: ") or fault.name in _BRIEF_AIM
    )


async def inject(rig: Rig, faults: Sequence[Fault], calm: float, note: Callable[[Span], None]) -> None:
    """Inject one fault after the other, with `calm` seconds between them; pass the span of each to `note`."""
    clock = asyncio.get_running_loop().time
    for fault in faults:
        await asyncio.sleep(calm)
        began = clock()
        await fault.do(rig, fault.seconds)
        note(Span(fault.name, began, clock() + RECOVERY_SECONDS, fault.is_harmless, fault.spares_streams))


def until(seconds: float, calm: float, variant: Variant) -> Iterator[Fault]:
    """Yield the faults of a variant that fit into `seconds`."""
    queue = list(KILLS)
    while True:
        for fault in queue:
            seconds -= calm + fault.seconds
            if seconds < 0:
                return
            yield fault
        queue = list(repeated(variant))
