"""The fault matrix: its groups of rows, and the chains that they run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.envoy.faults import aim, sessions
from tests.envoy.faults.chain import Wiring
from tests.envoy.faults.fault import Fault

GROUPS: Final[Mapping[str, Sequence[Fault]]] = {
    "Aim": aim.ROWS,
    "Aim, in the session of a stream": sessions.ROWS,
}

CHAINS: Final[Mapping[str, Wiring]] = {
    "usual": Wiring(),
    "impatient": Wiring(aim={"timeout_seconds": 0.5, "verdict_timeout_seconds": 0.5}),
    "firewall": Wiring(aim={"api": "firewall"}),
    "retrying": Wiring(),
}
