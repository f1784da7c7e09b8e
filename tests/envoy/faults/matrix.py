"""The fault matrix: its groups of rows, and the chains that they run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.envoy.faults import aim, network, sessions
from tests.envoy.faults.chain import Wiring
from tests.envoy.faults.fault import Fault

GROUPS: Final[Mapping[str, Sequence[Fault]]] = {
    "Aim": aim.ROWS,
    "Aim, in the session of a stream": sessions.ROWS,
    "The network to Aim": network.ROWS,
}

CHAINS: Final[Mapping[str, Wiring]] = {
    "usual": Wiring(),
    "impatient": Wiring(aim={"timeout_seconds": 0.5, "verdict_timeout_seconds": 0.5}),
    "firewall": Wiring(aim={"api": "firewall"}),
    "retrying": Wiring(),
    "nowhere": Wiring(aim={"base_url": "http://aim.invalid"}),
    "https": Wiring(tls=network.server_context(), ca=network.AUTHORITY.cert_pem.bytes()),
    "proxy": Wiring(aim={"base_url": "http://127.0.0.1:{aim}", "proxy": "http://127.0.0.1:{gate}"}),
}
