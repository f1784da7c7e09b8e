"""Checks Aim: makes one harmless detection with each key, over REST and through a session."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from uuid import uuid4

from extproc.aim.client import AimClient, Caller
from extproc.check.brand import advice_on_key
from extproc.check.failure import REFUSED, failed
from extproc.check.finding import Finding, Severity
from extproc.check.network import check_network
from extproc.check.probe import probe
from extproc.config.profile import DEFAULT_PROFILE
from extproc.config.settings import Settings
from extproc.core.errors import DetectionError, Reason
from extproc.core.events import ChunkVerified, Event, SessionDone, SessionFailed, StreamBlocked
from extproc.core.identity import Identity
from extproc.core.vocabulary import Hook, Input

_TEXT = "Hello!"
_QUESTION = Input(({"role": "user", "content": _TEXT},))
_CHUNK = json.dumps(
    {
        "id": "check",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "check",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": _TEXT}, "finish_reason": None}],
    }
)


async def check_aim(settings: Settings, *, probes: bool = False) -> list[Finding]:
    """Return the findings about the connection to Aim and about every key; with `probes`, how Aim behaves, too.

    Raises SettingsError for a proxy or a CA file that cannot be used.
    """
    findings = await check_network(settings)
    if any(finding.severity is Severity.ERROR for finding in findings):
        return findings  # every detection would fail in the same way
    keys = {DEFAULT_PROFILE: "AIM_API_KEY or aim.api_key_file"} | {
        name: f"profiles.{name}.api_key_file" for name, profile in settings.profiles.items() if profile.api_key_file
    }
    has_sessions = any(Hook.OUTPUT in profile.hooks for profile in settings.profiles.values())
    for name, key in keys.items():
        found = await _check_key(settings, name, key, has_sessions=has_sessions)
        if probes and not any(finding.severity is Severity.ERROR for finding in found):
            found += await probe(settings, name, key, has_sessions=has_sessions)
        findings += found
    brand = advice_on_key(settings.aim)
    return [
        replace(each, advice=f"{each.advice}; {brand}") if brand and each.what == REFUSED else each for each in findings
    ]


async def _check_key(settings: Settings, name: str, key: str, *, has_sessions: bool) -> list[Finding]:
    where = f"aim, profile {name}"
    # Each key has its own client, so that the breaker of one does not affect another.
    async with AimClient(settings) as client:
        caller = Caller(name, str(uuid4()), Identity())
        found = [await _analysis(client, caller, where, key)]
        if has_sessions:
            found.append(await _session(client, caller, where, key, settings.aim.timeout_seconds))
        return found


async def _analysis(client: AimClient, caller: Caller, where: str, key: str) -> Finding:
    began = time.monotonic()
    try:
        verdict = await client.detect(Hook.PRE_CALL, _QUESTION, caller)
    except DetectionError as failure:
        return failed(failure.reason, f"{where}, analysis", key)
    return Finding(Severity.OK, where, f"answered '{verdict.action}' in {_since(began)}")


async def _session(client: AimClient, caller: Caller, where: str, key: str, seconds: float) -> Finding:
    events: asyncio.Queue[Event] = asyncio.Queue()
    began = time.monotonic()
    session = client.open_session(1, caller, events.put_nowait)
    session.submit(_CHUNK)
    session.done()
    is_verified = False
    try:
        # The opening may take the whole deadline; the same time again is enough for one word.
        async with asyncio.timeout(2 * seconds):
            while True:
                match await events.get():
                    case SessionFailed(reason=reason):
                        return failed(reason, f"{where}, session", key)
                    case ChunkVerified():
                        is_verified = True
                    case StreamBlocked():
                        return Finding(Severity.OK, where, f"blocked a chunk in a session after {_since(began)}")
                    case SessionDone():
                        break
    except TimeoutError:
        return failed(Reason.TIMEOUT, f"{where}, session", key)
    finally:
        session.close()
    said = "verified a chunk in a session" if is_verified else "ended a session without a verdict"
    return Finding(Severity.OK, where, f"{said} after {_since(began)}")


def _since(began: float) -> str:
    return f"{round((time.monotonic() - began) * 1000)} ms"
