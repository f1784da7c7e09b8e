"""An Aim-compatible service with simple patterns, for trying the sidecar without an account.

It replaces a remote service: it implements Aim's three forms (`detect`, `firewall`, `cato`) over REST and
websocket, and imports nothing from the rest of this project. It has regular expressions and word lists from a
policies file, not Aim's detection.

    policies -> detector -> scanner -> judge (whole messages) / session (websocket) -> service
"""

HELP = "a local stand-in for trying aim-extproc; simple patterns, not Aim's detection"

__all__ = ["HELP"]
