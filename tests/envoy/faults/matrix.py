"""The fault matrix: the groups of rows, and the chains for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.envoy.faults import aim, client, envoy, keys, network, sessions, sidecar, upstream
from tests.envoy.faults.chain import PROFILES, Wiring
from tests.envoy.faults.fault import Fault
from tests.fakes.rig import manager_of, processor_of

GROUPS: Final[Mapping[str, Sequence[Fault]]] = {
    "Aim": aim.ROWS,
    "Aim, in the session of a stream": sessions.ROWS,
    "The key for Aim": keys.ROWS,
    "The network to Aim": network.ROWS,
    "The upstream": upstream.ROWS,
    "The client, and what it sends": client.ROWS,
    "Envoy": envoy.ROWS,
    "The sidecar": sidecar.ROWS,
}


def _hasty(tree: Any) -> None:
    processor_of(tree)["message_timeout"] = "1s"
    manager_of(tree)["stream_idle_timeout"] = "2s"


_SLOW_TO_OPEN: Final = {name: {**profile, "stream_head_seconds": 20} for name, profile in PROFILES.items()}
"""The profiles, in which a stream that Aim has not begun to verify ends with a status, however slow the machine is."""

CHAINS: Final[Mapping[str, Wiring]] = {
    "usual": Wiring(),
    # No pause of a busy machine may be as long as this while Aim answers.
    "impatient": Wiring(aim={"timeout_seconds": 1, "verdict_timeout_seconds": 1}),
    # The clock of a full stream starts later than that of Aim's silence. Once Aim has sent a frame after that, it runs
    # out first, however slow the machine is. Until then no pause of the machine may be as long as this.
    "chatty Aim": Wiring(aim={"verdict_timeout_seconds": 2}, settings={"profiles": _SLOW_TO_OPEN}),
    # Much text may wait, so that Aim's pongs are late; a frame must arrive within one of many intervals.
    "busy Aim": Wiring(
        aim={"verdict_timeout_seconds": 2}, limits={"held_bytes": 4_194_304, "event_bytes": 16_384}, ping_seconds=0.1
    ),
    "patient": Wiring(aim={"verdict_timeout_seconds": 300}, limits={"held_bytes": 4_194_304, "event_bytes": 16_384}),
    "firewall": Wiring(aim={"api": "firewall"}),
    "retrying": Wiring(),
    "breaker": Wiring(aim={"breaker": {"failures": 1, "open_seconds": 3600}}),
    "quick breaker": Wiring(aim={"breaker": {"failures": 1, "open_seconds": aim.OPEN_SECONDS}}),
    "no key": Wiring(aim={"api_key": "", "api_key_file": "{folder}/none"}),
    "key file": Wiring(aim={"api_key": "", "api_key_file": "{folder}/key"}, files={"key": keys.KEY}),
    "hasty Envoy": Wiring(edit=_hasty),
    "nowhere": Wiring(aim={"base_url": "http://aim.invalid"}),
    # The system reads a named pipe without a writer for the look-up, in place of a name server that is silent.
    "silent name server": Wiring(
        aim={"base_url": "http://aim-without-dots", "timeout_seconds": 0.5},
        is_process=True,
        environment={"HOSTALIASES": "{folder}/aliases"},
        pipes=("aliases",),
        settings={"drain_seconds": 1},
    ),
    "https": Wiring(tls=network.server_context(), ca=network.AUTHORITY.cert_pem.bytes()),
    "proxy": Wiring(aim={"base_url": "http://127.0.0.1:{aim}", "proxy": "http://127.0.0.1:{gate}"}),
    "process": Wiring(is_process=True, settings={"drain_seconds": 1}),
    "workers": Wiring(is_process=True, has_door=False, settings={"workers": 2, "drain_seconds": 1}),
    # One stream may hold more than the process, and Aim's silence does not end it within a trial: only the total can.
    "little room": Wiring(
        aim={"verdict_timeout_seconds": 300},
        limits={"held_bytes": 1_048_576, "total_held_bytes": 65_536},
        settings={"profiles": _SLOW_TO_OPEN},
    ),
    "one exchange": Wiring(limits={"streams": 1}),
    "one session": Wiring(limits={"sessions": 1}),
}
