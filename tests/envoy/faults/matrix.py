"""The fault matrix: the groups of rows, and the chains for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.envoy.faults import aim, client, envoy, network, sessions, sidecar, upstream
from tests.envoy.faults.chain import Wiring
from tests.envoy.faults.fault import Fault
from tests.fakes.rig import manager_of, processor_of

GROUPS: Final[Mapping[str, Sequence[Fault]]] = {
    "Aim": aim.ROWS,
    "Aim, in the session of a stream": sessions.ROWS,
    "The network to Aim": network.ROWS,
    "The upstream": upstream.ROWS,
    "The client, and what it sends": client.ROWS,
    "Envoy": envoy.ROWS,
    "The sidecar": sidecar.ROWS,
}


def _hasty(tree: Any) -> None:
    processor_of(tree)["message_timeout"] = "0.5s"
    manager_of(tree)["stream_idle_timeout"] = "1s"


CHAINS: Final[Mapping[str, Wiring]] = {
    "usual": Wiring(),
    "impatient": Wiring(aim={"timeout_seconds": 0.5, "verdict_timeout_seconds": 0.5}),
    "firewall": Wiring(aim={"api": "firewall"}),
    "retrying": Wiring(),
    "breaker": Wiring(aim={"breaker": {"failures": 1, "open_seconds": 3600}}),
    "hasty Envoy": Wiring(edit=_hasty),
    "nowhere": Wiring(aim={"base_url": "http://aim.invalid"}),
    "https": Wiring(tls=network.server_context(), ca=network.AUTHORITY.cert_pem.bytes()),
    "proxy": Wiring(aim={"base_url": "http://127.0.0.1:{aim}", "proxy": "http://127.0.0.1:{gate}"}),
    "process": Wiring(is_process=True, settings={"drain_seconds": 1}),
    "workers": Wiring(is_process=True, has_door=False, settings={"workers": 2, "drain_seconds": 1}),
    "little room": Wiring(limits={"total_held_bytes": 65_536}),
    "one exchange": Wiring(limits={"streams": 1}),
    "one session": Wiring(limits={"sessions": 1}),
}
