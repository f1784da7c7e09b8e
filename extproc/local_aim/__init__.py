"""An Aim-compatible service with simple patterns, for trying the sidecar without an account.

It stands in for a remote service: it speaks Aim's three forms (`detect`, `firewall`, `cato`), REST and
websocket, and imports nothing of the rest of this project. It is a stand-in and no more: regular expressions
and word lists from a policies file, not Aim's detection.

    policies -> detector -> scanner -> judge (whole messages) / session (websocket) -> service
"""

HELP = "a local stand-in for trying aim-extproc; simple patterns, not Aim's detection"

__all__ = ["HELP"]
