"""Free ports of the loopback, for processes that must be told where to listen."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

_LOOPBACK = "127.0.0.1"
_PORTS = (12_000, 32_000)
"""The range of ports. It is below the ports that the system chooses for sockets."""
_BLOCK = 20
"""Parallel workers of pytest use alternate blocks of this many ports, so that they never choose the same port."""

_random = random.SystemRandom()

_recent: deque[int] = deque(maxlen=200)
"""The last ports that were given out. Nothing may listen on them yet."""


def free_port(count: int = 1) -> int:
    """Return a port that is free, as are the `count` - 1 ports after it. None was given out shortly before."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        block = _random.randrange(_PORTS[0] // _BLOCK, _PORTS[1] // _BLOCK - workers)
        first = (block - block % workers + worker) * _BLOCK
        port = first + _random.randrange(_BLOCK - count + 1)
        ports = range(port, port + count)
        if not set(ports).intersection(_recent) and all(map(_is_free, ports)):
            _recent.extend(ports)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
        return True
