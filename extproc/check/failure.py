"""Says in words why a question to Aim failed, and what to do about it."""

from __future__ import annotations

from extproc.check.finding import Finding, error, warning
from extproc.core.errors import Reason

REFUSED = "Aim refuses the key"

_ADVICE = {
    Reason.KEY_REFUSED: (REFUSED, "check {key}, and that the key belongs to this Aim"),
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


def failed(reason: Reason, where: str, key: str) -> Finding:
    """Return the finding that a question failed for `reason`; `key` names the setting with the key."""
    if reason is Reason.RATE_LIMITED:
        return warning(where, "Aim limits the rate of this key", "the key and the address are right: ask Aim")
    what, advice = _ADVICE.get(reason, (f"Aim's answer cannot be used ({reason})", "check aim.api"))
    return error(where, what, advice.format(key=key))
