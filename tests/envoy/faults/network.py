"""The network between the sidecar and Aim fails."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from typing import Final

import trustme

from extproc.core.errors import Reason
from tests.envoy.faults.aim import does
from tests.envoy.faults.fault import UNAVAILABLE, Arrange, Fault, Leg, by_policy, every
from tests.envoy.faults.gate import Act, blackhole, half_close, reset, saying
from tests.envoy.faults.trial import Trial

AUTHORITY: Final = trustme.CA()
"""The authority that the sidecar trusts."""

_STRANGER: Final = trustme.CA()


def server_context(authority: trustme.CA = AUTHORITY, name: str = "127.0.0.1") -> ssl.SSLContext:
    """Return a server's TLS context with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def refused(trial: Trial) -> Awaitable[None]:
    """Stop listening."""
    trial.judge_one_leg()
    return trial.chain.to_aim.refuse()


def speaks(context: ssl.SSLContext | None) -> Arrange:
    """Give Aim another TLS context, or none."""

    def arrange(trial: Trial) -> Awaitable[None]:
        trial.judge_one_leg()
        return trial.chain.to_aim.use(context)

    return arrange


def nowhere(trial: Trial) -> None:
    """Do nothing: the settings name a host that does not exist, or a name that is never resolved."""
    trial.judge_one_leg()


def proxied(act: Act) -> Arrange:
    """Let the proxy perform `act`."""

    def arrange(trial: Trial) -> None:
        trial.judge_one_leg()
        trial.chain.to_aim.strike(b"CONNECT " if trial.leg is Leg.STREAM else b"POST http://", act)

    return arrange


def _answer(status: int) -> Act:
    return saying(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)


_ALL = every(by_policy(UNAVAILABLE))

ROWS = [
    Fault("connections are refused", refused, _ALL, Reason.UNREACHABLE),
    Fault("connections are accepted and never answered", does(blackhole), _ALL, Reason.TIMEOUT, chain="impatient"),
    Fault("connections are reset", does(reset), _ALL, Reason.UNREACHABLE),
    Fault("connections are half-closed without an answer", does(half_close), _ALL, Reason.UNREACHABLE),
    Fault("Aim's name does not resolve", nowhere, _ALL, Reason.UNREACHABLE, chain="nowhere", recovers=False),
    Fault(
        "the look-up of Aim's name hangs",
        nowhere,
        _ALL,
        Reason.TIMEOUT,
        chain="silent name server",
        recovers=False,
    ),
    Fault(
        "Aim's certificate is from an unknown CA",
        speaks(server_context(_STRANGER)),
        _ALL,
        Reason.UNREACHABLE,
        chain="https",
    ),
    Fault(
        "Aim's certificate is for another name",
        speaks(server_context(name="other.example")),
        _ALL,
        Reason.UNREACHABLE,
        chain="https",
    ),
    Fault("Aim does not speak TLS", speaks(None), _ALL, Reason.UNREACHABLE, chain="https"),
    Fault("the proxy is not running", refused, _ALL, Reason.UNREACHABLE, chain="proxy"),
    Fault("the proxy resets connections", proxied(reset), _ALL, Reason.UNREACHABLE, chain="proxy"),
    Fault("the proxy demands a login", proxied(_answer(407)), _ALL, Reason.UNREACHABLE, chain="proxy"),
]
