"""The sidecar with short websocket pings, whose interval is no setting. So most of them meet an Aim that is behind.

python -m tests.soak.sidecar serve --config FILE
"""

from __future__ import annotations

from extproc.aim.client import AimClient
from extproc.cli.main import main

PING_SECONDS = 0.1

if __name__ == "__main__":
    defaults = AimClient.__init__.__kwdefaults__
    assert defaults is not None
    assert "ping_seconds" in defaults
    defaults["ping_seconds"] = PING_SECONDS
    main()
