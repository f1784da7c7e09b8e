"""Aim fails as a service: over REST, and in the handshake of a session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from extproc.core.errors import Reason
from tests.envoy.faults.client import leaves, leaves_during_the_handshake
from tests.envoy.faults.fault import (
    FINE,
    UNAVAILABLE,
    Arrange,
    Fault,
    Gone,
    Leg,
    Refused,
    always,
    by_policy,
    every,
    on,
)
from tests.envoy.faults.gate import Act, drip, reset, saying
from tests.envoy.faults.trial import Trial, freed, usual_client
from tests.fakes.aim import Answer, Question, anonymize

_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
OPEN_SECONDS: Final = 0.05
"""How long the breaker of the chain with a quick one stays open."""

_ASKED = on(request=by_policy(UNAVAILABLE), answer=by_policy(UNAVAILABLE))
_ALL = every(by_policy(UNAVAILABLE))


def answers(status: int, body: Any = b"") -> Callable[[Trial], None]:
    """Answer the call, or the session's handshake, with `status`."""

    async def judge(_: Question) -> Answer:
        return status, body

    async def handshake() -> int:
        return status

    def arrange(trial: Trial) -> None:
        if trial.leg is Leg.STREAM:
            trial.chain.aim.handshake = handshake
        else:
            trial.judge(judge)

    return arrange


def labelled(encoding: str) -> Arrange:
    """Allow, in an answer that claims a content-encoding and has none."""

    async def judge(_: Question) -> Answer:
        return 200, {"detected": False}, {"content-encoding": encoding}

    return lambda trial: trial.judge(judge)


def does(act: Act) -> Arrange:
    """Let the network do `act` to the leg's call."""
    return lambda trial: trial.chain.to_aim.strike(trial.question, act)


def waits(seconds: float | None) -> Arrange:
    """Answer 429 with a Retry-After of `seconds`."""

    async def judge(_: Question) -> Answer:
        return 429, b"", {"retry-after": f"{seconds:g}"}

    return lambda trial: trial.judge(judge)


def fails_once(status: int) -> Arrange:
    """Answer the first attempt with `status`, the second as usual."""

    def arrange(trial: Trial) -> None:
        tries = iter((status,))

        async def judge(question: Question) -> Answer:
            if (failed := next(tries, None)) is not None:
                return failed, b"", {"retry-after": "0"}
            return {"detected": False, "details": {}, "detection_message": None}

        trial.judge(judge)

    return arrange


async def _silent(_: Question) -> Answer:
    return await asyncio.Event().wait()


def silent(trial: Trial) -> None:
    """Never answer, although the connection is fine."""

    async def handshake() -> None:
        await asyncio.Event().wait()

    trial.judge(_silent)
    trial.chain.aim.handshake = handshake if trial.leg is Leg.STREAM else None


def redacts(change: Any) -> Arrange:
    """Answer with a redaction whose messages are modified by `change`."""

    async def judge(question: Question) -> Answer:
        answer: Any = anonymize(question, lambda text: text.replace("7f3a", "[X]"))
        answer["redacted_chat"] = change(answer["redacted_chat"]["all_redacted_messages"])
        return answer

    return lambda trial: trial.judge(judge)


def _chat(messages: Any) -> Any:
    return {"all_redacted_messages": messages}


async def broken_before(trial: Trial) -> None:
    """Let an earlier call or handshake fail; Aim then works again."""
    trial.judge_one_leg()
    said = trial.chain.upstream.answer
    answers(500)(trial)
    await usual_client(trial)
    await freed(trial.chain)
    trial.chain.aim.reset()
    trial.chain.upstream.reset()
    trial.chain.upstream.answer = said


async def half_open(trial: Trial) -> None:
    """Let an earlier call or handshake fail, and the time pass until the breaker admits a probe."""
    await broken_before(trial)
    await asyncio.sleep(2 * OPEN_SECONDS)


def on_probe(arrange: Callable[[Trial], None]) -> Arrange:
    """Let `arrange` happen to the breaker's probe."""

    async def both(trial: Trial) -> None:
        await half_open(trial)
        arrange(trial)

    return both


def says(body: Any) -> Arrange:
    """Answer with the JSON value `body`."""
    return answers(200, json.dumps(body).encode())


_IRREVERSIBLE = on(request=always(Refused(400, "redaction_failed")), answer=always(Refused(502, "redaction_failed")))
_NAMED = "named"

ROWS = [
    Fault("Aim never answers", silent, _ALL, Reason.TIMEOUT, chain="impatient"),
    Fault("Aim answers one byte at a time", does(drip), _ALL, Reason.TIMEOUT, chain="impatient"),
    Fault(
        "Aim resets the connection in mid-answer",
        does(saying(_JSON + b'content-length: 64\r\n\r\n{"detected": fa', reset)),
        _ASKED,
        Reason.UNREACHABLE,
    ),
    Fault(
        "Aim's answer is shorter than its content-length",
        does(saying(_JSON + b'content-length: 64\r\n\r\n{"detected": false}')),
        _ASKED,
        Reason.UNREACHABLE,
    ),
    *(Fault(f"Aim answers {status}", answers(status), _ALL, Reason.SERVER_ERROR) for status in (500, 502, 503)),
    Fault("Aim answers 429", answers(429), _ALL, Reason.RATE_LIMITED),
    Fault("Aim answers 429 with a retry-after beyond the deadline", waits(3600), _ASKED, Reason.RATE_LIMITED),
    Fault(
        "Aim answers 429 once, with retry-after: 0",
        fails_once(429),
        on(request=always(FINE), answer=always(FINE)),
        chain="retrying",
    ),
    Fault("Aim answers 503 once", fails_once(503), on(request=always(FINE), answer=always(FINE)), chain="retrying"),
    *(
        Fault(f"Aim refuses the key with {status}", answers(status), every(always(UNAVAILABLE)), Reason.KEY_REFUSED)
        for status in (401, 403)
    ),
    Fault(
        "Aim refuses the key, and the list names key_refused", answers(401), _ALL, Reason.KEY_REFUSED, opened_by=_NAMED
    ),
    *(Fault(f"Aim answers {status}", answers(status, b"{}"), _ALL, Reason.REJECTED) for status in (400, 422)),
    Fault("Aim answers with a redirect", answers(302), _ALL, Reason.UNREADABLE_ANSWER),
    Fault("Aim's answer is not JSON", answers(200, b"<html>"), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault("Aim's answer is empty", answers(200, b""), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault("Aim's answer is not an object", says([]), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault("Aim's answer claims an encoding that it does not have", labelled("gzip"), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault(
        "Aim's answer has a key twice",
        answers(200, b'{"detected": true, "detected": false}'),
        _ASKED,
        Reason.UNREADABLE_ANSWER,
    ),
    Fault("Aim's answer has no verdict", says({"details": {}}), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault("Aim's verdict has the wrong type", says({"detected": "false"}), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault("Aim's answer is nested too deeply", answers(200, b"[" * 200_000), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault("Aim's answer is too large", answers(200, b" " * 4_000_000), _ASKED, Reason.UNREADABLE_ANSWER),
    Fault(
        "the breaker is open after failures in a row",
        broken_before,
        _ALL,
        Reason.BREAKER_OPEN,
        chain="breaker",
        recovers=False,
    ),
    Fault("the breaker's probe succeeds", half_open, every(always(FINE)), chain="quick breaker"),
    Fault(
        "the client of the breaker's probe leaves",
        on_probe(leaves),
        on(request=always(Gone()), answer=always(Gone())),
        chain="quick breaker",
    ),
    Fault(
        "the client of the breaker's probe leaves during the handshake",
        on_probe(leaves_during_the_handshake),
        on(stream=always(Gone())),
        chain="quick breaker",
    ),
    Fault(
        "the breaker's probe fails",
        on_probe(answers(500)),
        _ALL,
        Reason.SERVER_ERROR,
        chain="quick breaker",
        recovers=False,
    ),
    Fault(
        "Aim asks for an unknown action",
        says({"required_action": {"action_type": "shred_action"}}),
        _ASKED,
        Reason.UNKNOWN_ACTION,
        chain="firewall",
    ),
    Fault(
        "Aim redacts fewer messages than it received", redacts(lambda m: _chat(m[:-1])), _IRREVERSIBLE, chain="firewall"
    ),
    Fault(
        "Aim redacts more messages than it received",
        redacts(lambda m: _chat([*m, m[0]])),
        _IRREVERSIBLE,
        chain="firewall",
    ),
    Fault(
        "Aim redacts a text to a value that is not a string",
        redacts(lambda m: _chat([{}] * len(m))),
        _IRREVERSIBLE,
        chain="firewall",
    ),
    Fault("Aim asks for a redaction and sends none", redacts(lambda _: None), _IRREVERSIBLE, chain="firewall"),
]
