"""Envoy ends, or loses its connection to the sidecar."""

from __future__ import annotations

import asyncio
import signal

from tests.envoy.faults.fault import Broken, ByEnvoy, Cut, Fault, always, on
from tests.envoy.faults.trial import Act, Trial, in_the_middle, usual_client
from tests.envoy.faults.upstream import falls_silent
from tests.fakes.client import Got


def ends(number: int) -> Act:
    """Send a signal to Envoy."""
    return lambda trial: trial.chain.end_envoy(number)


async def cut(trial: Trial) -> None:
    """Reset the connection from Envoy to the sidecar."""
    trial.chain.to_sidecar.cut()


async def freeze(trial: Trial) -> None:
    """Stop all traffic between Envoy and the sidecar."""
    trial.chain.to_sidecar.freeze()


def lost(trial: Trial) -> None:
    """Stop all traffic to the sidecar while the upstream prepares its answer and no detection is in progress."""
    falls_silent(trial)

    async def client(trial: Trial) -> Got | None:
        async with asyncio.TaskGroup() as group:
            answered = group.create_task(usual_client(trial))
            await trial.heard.wait()
            await freeze(trial)
        return answered.result()

    trial.client = client


async def nothing(_: Trial) -> None:
    """Wait for Envoy's own timeout."""


_DIES = on(request=always(Broken()), answer=always(Broken()), stream=always(Cut()))
_LOSES = on(request=always(ByEnvoy(503)), answer=always(ByEnvoy(503)), stream=always(Cut()))

ROWS = [
    Fault("it is killed", in_the_middle(ends(signal.SIGKILL)), _DIES),
    Fault("it receives SIGTERM", in_the_middle(ends(signal.SIGTERM)), _DIES),
    Fault("its connection to the sidecar is reset", in_the_middle(cut), _LOSES),
    Fault(
        "its connection to the sidecar falls silent",
        in_the_middle(freeze),
        on(request=always(ByEnvoy(504)), answer=always(ByEnvoy(504)), stream=always(Cut())),
        chain="hasty Envoy",
        holds_till_mended=True,
        is_counted=False,
    ),
    Fault(
        "its message_timeout is shorter than Aim's answer takes",
        in_the_middle(nothing),
        on(request=always(ByEnvoy(504))),
        chain="hasty Envoy",
    ),
    Fault(
        "its stream_idle_timeout is shorter than Aim's verdict takes",
        in_the_middle(nothing),
        on(answer=always(ByEnvoy(504)), stream=always(Cut())),
        chain="hasty Envoy",
    ),
    Fault(
        "its host vanishes",
        lost,
        on(stream=always(Cut())),
        chain="process",
        seconds=60,
    ),
]
