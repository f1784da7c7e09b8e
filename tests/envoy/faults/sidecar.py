"""The sidecar ends, drains, gets other settings, or reaches a limit."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

from extproc.core.errors import Reason
from tests.envoy.apis import CHAT
from tests.envoy.faults.fault import (
    FINE,
    NO_ROOM,
    OVERLOADED,
    Arrange,
    ByEnvoy,
    Cut,
    Fault,
    Leg,
    always,
    by_policy,
    every,
    on,
)
from tests.envoy.faults.sessions import Script, hold
from tests.envoy.faults.trial import PROMPT, Trial, in_the_middle, usual_client
from tests.fakes.aim import AimSession, Question, allow, echo
from tests.fakes.client import Got, exchange
from tests.fakes.upstream import pieces


def missing(trial: Trial) -> Any:
    """Stop listening on the sidecar's address."""
    return trial.chain.to_sidecar.refuse()


async def kill(trial: Trial) -> None:
    await trial.chain.end_sidecar(signal.SIGKILL)


async def drain(trial: Trial) -> None:
    """Stop the sidecar while Aim is silent; then let Aim answer in time."""
    process = trial.chain.process
    assert process is not None
    process.signal(signal.SIGTERM)
    await process.until("draining")
    trial.let_go.set()
    assert await process.ended() == 0
    trial.chain.process = None


async def drain_in_vain(trial: Trial) -> None:
    """Stop the sidecar while Aim is silent, for longer than the drain."""
    assert await trial.chain.end_sidecar(signal.SIGTERM) == 0


async def stop_at_once(trial: Trial) -> None:
    """Send two signals to the sidecar."""
    process = trial.chain.process
    assert process is not None
    process.signal(signal.SIGTERM)
    await process.until("draining")
    assert await trial.chain.end_sidecar(signal.SIGTERM) == 0


async def kill_worker(trial: Trial) -> None:
    """Kill the worker that has the exchange."""
    await trial.chain.signal_worker(signal.SIGKILL)


async def stop_worker(trial: Trial) -> None:
    """Stop the worker that has the exchange: it hangs, and its connections stay open."""
    await trial.chain.signal_worker(signal.SIGSTOP)


async def crowd_admin(trial: Trial) -> None:
    """Hold more connections to the admin port than it allows."""
    await trial.chain.crowd(560)


async def spoil_settings(trial: Trial) -> None:
    """Write invalid settings to the file, then valid ones."""
    chain = trial.chain
    assert chain.process is not None
    good = chain.config.read_text()
    chain.config.write_text(good + "colour: blue\n")
    await chain.process.until("settings_refused")
    chain.config.write_text(good)
    await chain.process.until("settings_reloaded")
    trial.let_go.set()


async def hang_settings(trial: Trial) -> None:
    """Replace the settings file by a named pipe, and wait until the process reads it, which hangs from then on."""
    chain = trial.chain
    good, pipe = chain.config.read_text(), chain.config.with_name("pipe")
    os.mkfifo(pipe)
    pipe.rename(chain.config)
    descriptor = await asyncio.to_thread(os.open, chain.config, os.O_WRONLY)

    def restore() -> None:
        pipe.write_text(good)
        pipe.rename(chain.config)
        os.close(descriptor)

    chain.at_mend.append(restore)
    trial.let_go.set()


async def chatter(session: AimSession) -> None:
    """Answer each chunk, and now and then silence, with a frame that verifies nothing."""
    while not session.socket.closed:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.receive()
        await session.verify({"choices": [{"index": 0, "delta": {}}]})


def fills(script: Script) -> Arrange:
    """Let the upstream send more than may be held, and Aim, which follows `script`, verify none of it."""

    def arrange(trial: Trial) -> None:
        trial.events = [CHAT.event(role="assistant", content=""), *[CHAT.event(content="x" * 4_000)] * 500]
        trial.said = b"".join(trial.events)
        trial.chain.aim.script, trial.chain.upstream.answer = script, pieces(trial.events)

    return arrange


def second(trial: Trial) -> None:
    """Send the request while another exchange waits for Aim and uses up the limit."""
    asked = asyncio.Event()
    first = CHAT.request("x" * 20_000, stream=trial.leg is Leg.STREAM)

    async def judge(question: Question) -> Any:
        if trial.leg is Leg.REQUEST and question.hook == "pre_call" and PROMPT not in str(question.body):
            asked.set()
            await trial.let_go.wait()
        return await allow(question)

    async def script(session: AimSession) -> None:
        asked.set()
        await trial.let_go.wait()
        await echo(session)

    async def client(trial: Trial) -> Got | None:
        async with asyncio.TaskGroup() as group:
            before = group.create_task(exchange(trial.chain.url, "POST", trial.path, trial.headers, first))
            await asked.wait()
            got = await usual_client(trial)
            trial.let_go.set()
        assert before.result().status == 200
        return got

    trial.chain.aim.judge, trial.chain.aim.script, trial.client = judge, script, client


_GONE = on(request=always(ByEnvoy(503)), answer=always(ByEnvoy(503)), stream=always(Cut()))

ROWS = [
    Fault("it is not running", missing, on(request=always(ByEnvoy(503))), is_counted=False),
    Fault("it is killed", in_the_middle(kill), _GONE, chain="process", is_counted=False, is_dear=True),
    Fault(
        "it receives SIGTERM, and Aim answers while it drains",
        in_the_middle(drain),
        every(always(FINE)),
        chain="process",
        is_counted=False,
        is_dear=True,
    ),
    Fault(
        "it receives SIGTERM, and Aim does not answer while it drains",
        in_the_middle(drain_in_vain),
        _GONE,
        chain="process",
        is_counted=False,
        is_dear=True,
    ),
    Fault(
        "it receives SIGTERM twice", in_the_middle(stop_at_once), _GONE, chain="process", is_counted=False, is_dear=True
    ),
    Fault(
        "one of its workers is killed",
        in_the_middle(kill_worker),
        _GONE,
        chain="workers",
        is_counted=False,
        is_dear=True,
    ),
    Fault(
        "one of its workers hangs",
        in_the_middle(stop_worker),
        on(request=always(ByEnvoy(504)), answer=always(ByEnvoy(503)), stream=always(Cut())),
        chain="workers",
        is_counted=False,
        seconds=120,
    ),
    Fault("strangers hold 560 connections to its admin port", crowd_admin, every(always(FINE)), chain="process"),
    Fault("its settings file becomes invalid", in_the_middle(spoil_settings), every(always(FINE)), chain="process"),
    Fault("reading its settings file hangs", in_the_middle(hang_settings), every(always(FINE)), chain="process"),
    Fault(
        "limits.held_bytes is reached",
        fills(chatter),
        on(stream=by_policy(OVERLOADED)),
        Reason.HELD_BYTES,
        chain="chatty Aim",
    ),
    Fault(
        "limits.total_held_bytes is reached",
        second,
        on(request=always(NO_ROOM)),
        chain="little room",
        others=("allowed",),
    ),
    Fault(
        "limits.total_held_bytes is reached by event streams",
        fills(hold),
        on(stream=by_policy(OVERLOADED)),
        Reason.HELD_BYTES,
        chain="little room",
    ),
    Fault(
        "limits.streams is reached",
        second,
        on(request=always(NO_ROOM)),
        chain="one exchange",
        others=("allowed",),
    ),
    Fault(
        "limits.sessions is reached",
        second,
        on(stream=by_policy(OVERLOADED)),
        Reason.HELD_BYTES,
        chain="one session",
        others=("allowed",),
    ),
]
