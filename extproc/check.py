"""`extproc check`: ask Aim one harmless question and say in words what is wrong."""

from __future__ import annotations

import time
from uuid import uuid4

from extproc.aim.client import AimClient, Caller
from extproc.errors import DetectionError, Reason
from extproc.events import Hook, Input
from extproc.identity import Identity
from extproc.settings import DEFAULT_PROFILE, Settings

_QUESTION = Input(({"role": "user", "content": "Hello!"},))

_ADVICE = {
    Reason.KEY_REFUSED: "Aim refuses the key: check AIM_API_KEY or the key file, and that it belongs to this Aim",
    Reason.UNREACHABLE: "Aim cannot be reached: check aim.base_url, DNS, aim.proxy, and for https aim.ca_file",
    Reason.TIMEOUT: "Aim does not answer within aim.timeout_seconds: check the network, a firewall, a proxy",
    Reason.RATE_LIMITED: "Aim limits the rate of this key; the key and the address are right",
    Reason.SERVER_ERROR: "Aim fails on its side; the address is right, try again later",
    Reason.REJECTED: "Aim does not know this question: aim.api may be wrong for this base URL",
    Reason.UNREADABLE_ANSWER: "what answers is not Aim, or not in this form: check aim.base_url and aim.api",
}


async def check(settings: Settings) -> tuple[bool, list[str]]:
    """Return whether all is well, and what to tell, a line each."""
    lines = [f"settings: fine ({len(settings.profiles)} profiles, aim.api {settings.aim.api})"]
    fine = True
    async with AimClient(settings) as client:
        profiles = {DEFAULT_PROFILE: None} | {
            name: None for name, profile in settings.profiles.items() if profile.api_key_file
        }
        for name in profiles:
            began = time.monotonic()
            caller = Caller(name, str(uuid4()), Identity())
            try:
                verdict = await client.ask(Hook.PRE_CALL, _QUESTION, caller)
            except DetectionError as error:
                fine = False
                advice = _ADVICE.get(error.reason, "Aim's answer cannot be used")
                lines.append(f"aim: profile {name}: {advice} ({error})")
            else:
                milliseconds = round((time.monotonic() - began) * 1000)
                lines.append(
                    f"aim: profile {name}: {settings.aim.base} answered '{verdict.action}' in {milliseconds} ms"
                )
    return fine, lines
