"""Checks Aim: makes one harmless detection with each key, over REST and through a session."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from uuid import uuid4

from extproc.aim.client import AimClient, Caller
from extproc.check.brand import advice_on_key
from extproc.check.finding import Finding, Severity, error, warning
from extproc.check.network import check_network
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

_REFUSED = "Aim refuses the key"

_ADVICE = {
    Reason.KEY_REFUSED: (_REFUSED, "check {key}, and that the key belongs to this Aim"),
    Reason.UNREACHABLE: ("Aim cannot be reached", "check the network between this machine and Aim"),
    Reason.TIMEOUT: (
        "no answer within aim.timeout_seconds",
        "look at Aim's latency, and at the network between this machine and Aim",
    ),
    Reason.SERVER_ERROR: ("Aim answers with a server error", "the address is right: try again later"),
    Reason.REJECTED: ("Aim does not know this question", "check aim.api, which may be wrong for this base URL"),
    Reason.UNREADABLE_ANSWER: ("the answer is not Aim's, or not in this form", "check aim.base_url and aim.api"),
    Reason.SESSION: (
        "the session ended early",
        "look at the network between this machine and Aim: a proxy may not support websockets",
    ),
}


async def check_aim(settings: Settings) -> list[Finding]:
    """Return the findings about the connection to Aim and about every key.

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
        where = f"aim, profile {name}"
        # Each key has its own client, so that the breaker of one does not affect another.
        async with AimClient(settings) as client:
            caller = Caller(name, str(uuid4()), Identity())
            findings.append(await _analysis(client, caller, where, key))
            if has_sessions:
                findings.append(await _session(client, caller, where, key, settings.aim.timeout_seconds))
    brand = advice_on_key(settings.aim)
    return [
        replace(each, advice=f"{each.advice}; {brand}") if brand and each.what == _REFUSED else each
        for each in findings
    ]


async def _analysis(client: AimClient, caller: Caller, where: str, key: str) -> Finding:
    began = time.monotonic()
    try:
        verdict = await client.detect(Hook.PRE_CALL, _QUESTION, caller)
    except DetectionError as failure:
        return _failure(failure.reason, f"{where}, analysis", key)
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
                        return _failure(reason, f"{where}, session", key)
                    case ChunkVerified():
                        is_verified = True
                    case StreamBlocked():
                        return Finding(Severity.OK, where, f"blocked a chunk in a session after {_since(began)}")
                    case SessionDone():
                        break
    except TimeoutError:
        return _failure(Reason.TIMEOUT, f"{where}, session", key)
    finally:
        session.close()
    said = "verified a chunk in a session" if is_verified else "ended a session without a verdict"
    return Finding(Severity.OK, where, f"{said} after {_since(began)}")


def _failure(reason: Reason, where: str, key: str) -> Finding:
    if reason is Reason.RATE_LIMITED:
        return warning(where, "Aim limits the rate of this key", "the key and the address are right: ask Aim")
    what, advice = _ADVICE.get(reason, (f"Aim's answer cannot be used ({reason})", "check aim.api"))
    return error(where, what, advice.format(key=key))


def _since(began: float) -> str:
    return f"{round((time.monotonic() - began) * 1000)} ms"
