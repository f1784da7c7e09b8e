"""The gate of `moderation`."""

from __future__ import annotations

from extproc.core.commands import ReleaseBody, ReleaseHeaders
from extproc.core.gate import Gate
from extproc.core.vocabulary import Leg


def test_gate_keeps_commands_in_order_until_it_opens() -> None:
    gate = Gate()
    assert not gate.is_closed
    gate.close()
    headers, body = ReleaseHeaders(Leg.RESPONSE), ReleaseBody(Leg.RESPONSE, b"abc")
    gate.keep(headers)
    assert (gate.held, gate.is_empty) == (0, False)
    gate.keep(body)
    assert gate.held == 3
    assert gate.open() == [headers, body]
    assert (gate.held, gate.is_empty, gate.is_closed) == (0, True, False)
